"""A folder's sidecar starts from what it has, while its registry is away; and it may have a mirror, and a proxy."""

from __future__ import annotations

import asyncio
import json

import pytest

from fault_proxy import FaultProxy
from http_proxy import HttpProxy
from local_registry import LocalRegistry


@pytest.fixture(scope="module")
def registry(need, tmp_path_factory):
    """A real one."""
    program = need("docker-registry", "docker-registry")
    made = LocalRegistry(program, tmp_path_factory.mktemp("registry"))
    made.start()
    yield made
    made.stop()


def oci(host, name, **more):
    """A source in a registry."""
    return {"oci": {"reference": f"{host}/{name}", "insecure": True, **more}}


@pytest.mark.parametrize("cause", ["refused", "silent"])
async def test_a_start_does_not_wait_for_a_registry_that_is_away(sidecar, registry, guests, cause):
    """Not even for a tag that is always asked again: what it had answers, and that is said."""
    registry.push("had:latest", guests.saying("had"))
    host, port = registry.host.split(":")
    async with FaultProxy(host, int(port)) as proxy:
        sidecar.folder.plugin("p", source=oci(f"127.0.0.1:{proxy.port}", "had:latest"))
        await asyncio.to_thread(sidecar.start)
        assert await sidecar.says() == "had"
        assert await asyncio.to_thread(sidecar.stop) == 0
        if cause == "silent":
            proxy.silent = True
        else:
            await proxy.refuse()
        await asyncio.to_thread(sidecar.start)
        assert await sidecar.says() == "had"
        assert sidecar.get("/readyz")[0] == 200
        assert sidecar.plugin("p")["state"] in {"Running", "LastGood", "Updating"}  # it is still being asked
        assert await asyncio.to_thread(sidecar.stop) == 0


async def test_a_file_of_mirrors_is_for_the_folder_too(new_sidecar, registry, guests, tmp_path):
    """The registry itself is not there."""
    registry.push("of/acme/m:v1", guests.saying("mirrored"))
    file = tmp_path / "mirrors.json"
    mirrors = [{"location": f"{registry.host}/of/acme", "insecure": True}]
    file.write_text(json.dumps({"registries": [{"prefix": "registry.invalid/acme", "mirrors": mirrors}]}))
    sidecar = new_sidecar()
    try:
        sidecar.folder.plugin("p", source={"oci": {"reference": "registry.invalid/acme/m:v1"}})
        sidecar.start(mirrors=file)
        assert await sidecar.says() == "mirrored"
    finally:
        sidecar.end()


async def test_the_proxy_of_the_environment_is_asked(new_sidecar, registry, guests):
    """By a name that it alone knows."""
    registry.push("p:v1", guests.saying("by proxy"))
    host, port = registry.host.split(":")
    async with HttpProxy({"registry.test": (host, int(port))}) as proxy:
        proxy.password = "user:secret"
        through = {"HTTP_PROXY": proxy.url.replace("://", "://user:secret@"), "NO_PROXY": "", "no_proxy": ""}
        sidecar = new_sidecar()
        try:
            sidecar.folder.plugin("p", source=oci("registry.test:5000", "p:v1"))
            await asyncio.to_thread(sidecar.start, environment=through)
            assert await sidecar.says() == "by proxy"
            assert "secret" not in sidecar.log
        finally:
            sidecar.end()
    assert proxy.asked
