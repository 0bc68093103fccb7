"""Starts of the operator with thousands of plugins: under twenty policies, and under none, in turn.

Each start is measured beside its peer within a minute, so that whatever else the machine does is in both. A *restart*
finds everything as it left it. A *cold start* finds the resources alone, and no cache: it asks the registry for every
artifact, and under policies for the signatures too.

Every plugin is under all policies. Each asks for a signature by one of two keys and judges settings; between them they
use every kind of selector.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.operator import plugins
from bench.operator.rig import Rig, Watch, many, rig
from bench.report import Figure, Options, Result, say, spread
from hookline_api.base import API_VERSION, PLURAL, POLICY_KIND
from hookline_api.policies import POLICY_PLURAL
from hookline_operator.cluster.kube import path
from signing import SigningKey, sign

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES: Final = 20
_KEYS: Final = 2
"""By which each artifact is signed; each policy asks for one of them."""
_ASKED: Final = 1.2
_ROUNDS: Final = 3
_SELECTORS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}},
    {"pluginSelector": {"names": ["other-*", "plugin-*"]}},
    {"pluginSelector": {"matchExpressions": [{"key": "exempt", "operator": "NotIn", "values": ["yes"]}]}},
)
"""Each selects every plugin, by another way."""


@dataclass(frozen=True, slots=True)
class _Start:
    """How one start went. Seconds."""

    ready: float
    """Until ``/readyz`` says so."""
    cpu: float
    """Of the operator's, until it is quiet."""
    done: float
    """A cold start's, until all plugins are Ready."""


@dataclass(slots=True)
class _Pairs:
    """The starts of one kind, each with its peer of the same round."""

    under: list[_Start] = field(default_factory=list)
    without: list[_Start] = field(default_factory=list)

    def ratios(self, what: str) -> list[float]:
        """Of each round."""
        return [getattr(a, what) / getattr(b, what) for a, b in zip(self.under, self.without, strict=True)]

    def figure(self, kind: str, what: str, shown: str, *, asked: bool = True) -> Figure:
        """The median of the ratios, and what they were made of."""
        ratios = self.ratios(what)
        under, without = (
            spread([getattr(each, what) for each in some], unit=" s", digits=1) for some in (self.under, self.without)
        )
        return Figure(
            what=f"{kind} under {POLICIES} policies: {shown}, against without",
            asked=f"≤ {_ASKED} times" if asked else "",
            measured=f"{spread(ratios)}; {under} and {without}",
            reached=statistics.median(ratios) <= _ASKED if asked else None,
        )


async def measure(options: Options) -> Result:
    """Rounds of restarts, then rounds of cold starts."""
    return await compared(options.pick(100, 5_000), spaces=options.pick(5, 50), rounds=options.pick(1, _ROUNDS))


async def compared(count: int, *, spaces: int, rounds: int) -> Result:
    """So many plugins in so many namespaces."""
    result = Result(
        name="policies", idea=f"{count:,} WasmPlugin objects under {POLICIES} policies and under none, in turn."
    )
    async with rig() as ground:
        keys = [SigningKey() for _ in range(_KEYS)]
        artifacts = await plugins.make(ground, count, spaces, result)
        for repository, artifact in artifacts:
            sign(ground.registry, repository, artifact, *keys)
        test = _Test(ground, count, spaces, keys)
        restarts, colds = _Pairs(), _Pairs()
        for number in range(rounds):
            # Whoever comes second in one round is the first in the next.
            for under in (True, False) if number % 2 else (False, True):
                say(f"policies: round {number + 1} of {rounds}, {'under policies' if under else 'under none'}")
                await test.set(under=under)
                (colds.under if under else colds.without).append(await test.cold(under=under))
                (restarts.under if under else restarts.without).append(await test.restart())
        result.figures += [
            restarts.figure("restart", "ready", "until ready"),
            restarts.figure("restart", "cpu", "CPU until it is quiet"),
            colds.figure("cold start", "ready", "until ready"),
            colds.figure("cold start", "done", "until all plugins are Ready"),
            colds.figure("cold start", "cpu", "CPU until it is quiet", asked=False),
        ]
        if ground.operator.tracebacks():
            result.notes.append(f"DEFECTS in the operator's log: {ground.operator.tracebacks()}")
    return result


class _Test:
    """Brings the cluster into the state before each start."""

    def __init__(self, ground: Rig, count: int, spaces: int, keys: Sequence[SigningKey]) -> None:
        self._ground = ground
        self._count = count
        self._spaces = spaces
        self._keys = keys

    async def set(self, *, under: bool) -> None:
        """Have the policies there, or none."""
        where = path(API_VERSION, POLICY_PLURAL)
        for each in (await self._ground.kube.list(where))[0]:
            await self._ground.kube.request("DELETE", path(API_VERSION, POLICY_PLURAL, None, each["metadata"]["name"]))
        if under:
            for number in range(POLICIES):
                await self._ground.create(where, policy(number, self._keys[number % _KEYS]))

    async def cold(self, *, under: bool) -> _Start:
        """A start with the resources alone."""
        ground = self._ground
        await many(
            ground.kube.request("DELETE", path("apps/v1", "controllerrevisions", f"space-{number}"))
            for number in range(self._spaces)
        )
        found, _ = await ground.kube.list(path(API_VERSION, PLURAL))
        await many(self._forget(each) for each in found)
        await asyncio.to_thread(shutil.rmtree, ground.folder / "cache", ignore_errors=True)
        async with Watch(ground.kube) as watch:
            watch.ready.clear()
            ready = await ground.operator.start()
            begin = asyncio.get_running_loop().time() - ready
            done = await watch.until(lambda: len(watch.ready) == self._count, f"{self._count} plugins are Ready")
        if under:
            await ground.operator.until(self._counted, f"{POLICIES} policies that refuse none of {self._count}")
        cpu = await ground.operator.quiet()
        await ground.operator.stop()
        return _Start(ready, cpu, done - begin)

    async def restart(self) -> _Start:
        """A start that finds all as the last one left it."""
        ready = await self._ground.operator.start()
        cpu = await self._ground.operator.quiet()
        await self._ground.operator.stop()
        return _Start(ready, cpu, ready)

    async def _forget(self, found: dict[str, Any]) -> None:
        """Take a plugin's status away."""
        metadata = found["metadata"]
        await self._ground.kube.request(
            "PATCH",
            path(API_VERSION, PLURAL, metadata["namespace"], metadata["name"], "status"),
            body={"status": None},
            content_type="application/merge-patch+json",
        )

    async def _counted(self) -> bool:
        """Whether each policy says that it refuses none of the plugins, and knows all their signatures."""
        found, _ = await self._ground.kube.list(path(API_VERSION, POLICY_PLURAL))
        states = [each.get("status") or {} for each in found]
        return all(
            (each.get("matched"), each.get("refused"), each.get("unknown")) == (self._count, 0, 0) for each in states
        )


def policy(number: int, key: SigningKey) -> dict[str, Any]:
    """One that every plugin here is under, and that allows them all."""
    return {
        "apiVersion": API_VERSION,
        "kind": POLICY_KIND,
        "metadata": {"name": f"policy-{number}"},
        "spec": {
            **_SELECTORS[number % len(_SELECTORS)],
            "sources": ["oci"],
            "repositories": ["registry.example.com/**", "*/module-*"],
            "signatures": {"anyOf": [{"name": f"team {number}", "key": {"pem": key.pem}}]},
            "permissions": ["config.read", "metrics", "kv.read"],
            "limits": {"memory": f"{128 + number}Mi"},
        },
    }
