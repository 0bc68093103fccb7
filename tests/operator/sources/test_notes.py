"""What of a plugin's own description cannot be read is told where people look."""

from __future__ import annotations

from hookline_artifacts.module.annotate import with_sections

NOTE = "the section hookline.plugin is ignored: it cannot be read ("


async def test_a_section_that_cannot_be_read_is_in_the_status_and_a_warning_in_the_log(
    operator, tenant, module, eventually
):
    """The plugin runs: nothing of it depends on what it says of itself."""
    tenant.plugin("guard", tenant.module("one", with_sections(module(), {"hookline.plugin": b"{nothing"})))

    def verified():
        found = tenant.get("guard").get("status", {}).get("conditions", [])
        return next((each for each in found if each["type"] == "Verified" and each["status"] == "True"), None)

    await eventually(verified, "Verified")
    assert NOTE in verified()["message"]
    (line,) = [each for each in operator.log.read_text().splitlines() if NOTE in each]
    assert f"plugin '{tenant.name}/guard'" in line
    assert "WARNING" in line.upper()
