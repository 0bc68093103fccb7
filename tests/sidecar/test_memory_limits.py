"""A sidecar's memory has a limit: what does not fit into it is refused with a sentence, and the rest goes on."""

from __future__ import annotations


async def test_a_plugin_that_does_not_fit_is_refused_and_the_others_go_on(new_sidecar, guests):
    """The sum is in the sentence; and once its limit is lower, it runs."""
    sidecar = new_sidecar(memory="320Mi")
    sidecar.folder.plugin("p", guests.saying(1), limits={"memory": "16Mi"})
    sidecar.start()
    assert (await sidecar.ask())["value"] == 1
    sidecar.folder.plugin("q", guests.module({"authorize": guests.echo}), limits={"memory": "512Mi"})
    failed = sidecar.wait_plugin("q", failure=lambda found: found is not None and "may have" in found["message"])
    assert "one call of 'q' may have 518Mi" in failed["failure"]["message"]
    assert "or lower limits.memory" in failed["failure"]["message"]
    assert (await sidecar.ask())["value"] == 1
    sidecar.folder.plugin("q", guests.module({"authorize": guests.echo}), limits={"memory": "32Mi"})
    sidecar.wait_plugin("q", failure=None)
