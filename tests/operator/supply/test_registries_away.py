"""A registry that is away delays nobody whose plugin is known: not at a start, and not with a cache that is full."""

from __future__ import annotations

import contextlib

import pytest

from fault_proxy import FaultProxy

CAUSES = ["refused", "silent"]


@contextlib.asynccontextmanager
async def in_front_of(registry):
    """A proxy before the registry, that goes away as a test wants it."""
    host, port = registry.host.split(":")
    async with FaultProxy(host, int(port)) as proxy:
        yield proxy


async def go(proxy, cause):
    """Away."""
    if cause == "silent":
        proxy.silent = True
    else:
        await proxy.refuse()


def at(proxy, name, **more):
    """A source behind the proxy."""
    return {"oci": {"reference": f"127.0.0.1:{proxy.port}/{name}", "insecure": True, **more}}


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_restart_without_the_registry_offers_at_once_what_is_known(
    new_operator, tenant, module, registry, connect, cause
):
    """To a new pod too, and a tag that is always asked again is no exception; the cache is too small for both."""
    for number in (1, 2):
        registry.push(f"{tenant.name}/away{number}:latest", module(f"away {number}"))
    async with in_front_of(registry) as proxy:
        operator = new_operator("--cache-size=1").start()
        tenant.pod("old")
        before = await connect(operator, tenant, "old")
        for number in (1, 2):
            tenant.plugin(f"p{number}", at(proxy, f"{tenant.name}/away{number}:latest", trackInterval="10s"))
        await before.until(lambda: set(before.runs()) == {"p1", "p2"})
        await go(proxy, cause)
        operator.stop()
        operator.start()
        tenant.pod("new")
        sidecar = await connect(operator, tenant, "new")
        await sidecar.until(lambda: set(sidecar.runs()) == {"p1", "p2"})
        assert sorted(sidecar.blobs.values()) == sorted([module("away 1"), module("away 2")])

        # Another module comes into the full cache from elsewhere, and pushes neither out.
        tenant.plugin("p3", tenant.module("three", module("three")))
        await sidecar.until(lambda: set(sidecar.runs()) == {"p1", "p2", "p3"})
        tenant.pod("newest")
        newest = await connect(operator, tenant, "newest")
        await newest.until(lambda: len(newest.blobs) == 3 and len(newest.runs()) == 3)
        proxy.heal()
        await proxy.accept()


async def test_a_mirror_of_the_administrators_serves_where_the_registry_is_away(
    new_operator, tenant, module, registry, connect, tmp_path
):
    """By the file that ``--mirrors`` names; what people see is the registry's own name."""
    registry.push(f"{tenant.name}/mirrored:v1", module("mirrored"))
    file = tmp_path / "mirrors.yaml"
    file.write_text(
        f"registries: [{{prefix: registry.invalid, mirrors: [{{location: '{registry.host}', insecure: true}}]}}]"
    )
    operator = new_operator(f"--mirrors={file}").start()
    tenant.plugin("guard", {"oci": {"reference": f"registry.invalid/{tenant.name}/mirrored:v1"}})
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(sidecar.runs)
    assert sidecar.bundle_of("guard").artifact.reference == f"registry.invalid/{tenant.name}/mirrored:v1"
    assert list(sidecar.blobs.values()) == [module("mirrored")]
