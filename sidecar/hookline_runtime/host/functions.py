"""Host functions: what a guest may ask of its host, if its permissions say so (``docs/author/guest-abi.md``).

Each is a method of one of the families beside this file, named after its import and taking the guest's memory and plain
numbers; the table in ``hookline_api.abi`` says types and permissions, and ``PluginHost`` puts the permission in front.
None of them raises: they answer a code, or JSON that says what was wrong. A call without its permission is counted and
answered, and runs nothing.

Some of them ask somebody else, and wait: those are ``async def``, run on the event loop while the guest stands still
(``hookline_runtime.guest.fibers``), and are cancelled where the guest's call is. They may raise a ``CallError``, which
ends the call. Others may wait a moment for the store (``border.may_wait``): that is their guest's time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

import lmdb
import orjson

from hookline_api.abi import E_DENIED, E_SIZE, E_UNAVAILABLE, HOST_FUNCTIONS, WASI_MODULE
from hookline_api.outbound import EGRESS_HOST
from hookline_api.permissions import grants
from hookline_api.sources import MAX_UNAVAILABLE, source_names
from hookline_runtime.errors import CallError, without_words
from hookline_runtime.guest.border import Waiting
from hookline_runtime.guest.plain import PLAIN
from hookline_runtime.host.arguments import ABSENT, Answer, CodeError, Times, timed
from hookline_runtime.host.basics import Basics, GuestMetric
from hookline_runtime.host.cache import CacheFunctions
from hookline_runtime.host.http import HttpFunctions
from hookline_runtime.host.kv import KvError
from hookline_runtime.host.kv_functions import KvFunctions
from hookline_runtime.host.query import QueryFunctions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.border import GuestMemory, HostCallable
    from hookline_runtime.host.context import HostContext

_NO_NUMBER: Final = -(2**63)
_EGRESS: Final = EGRESS_HOST.partition("{")[0]
_MAX_LOOKED: Final = 4096
"""Characters of a sentence in which values of Secrets are looked for: it is cut to much less before it is told."""
_IN_JSON: Final = ("query_", "http_")
"""Functions that begin so say what was wrong in JSON."""

log = logging.getLogger("hookline.host")


class Family(Protocol):
    """Some host functions of one plugin, and what they need together."""

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """By name of the import."""

    def close(self) -> None:
        """Give back what it holds, on the event loop: no call will come."""


class PluginHost:
    """One plugin's view of its host. One per process and plugin, used by all of its instances."""

    def __init__(self, plugin: BundlePlugin, context: HostContext) -> None:
        self._name = plugin.name
        self._granted = frozenset(plugin.permissions)
        self._has_secrets = plugin.has_secrets
        self._sources = frozenset(source_names(plugin, plugin.kv.valkey))
        self.unavailable: dict[str, str] = {}
        """What cannot be reached now, such as ``data source 'grants'``, and why, in one sentence."""
        self.denied: dict[str, int] = {}
        """Calls without their permission, by function."""
        self.refused: dict[str, int] = {}
        """Calls that a cap, a bad argument or a failing store or server stopped, by function."""
        self._basics = Basics(plugin)
        self.log = self._basics.log
        """Where its guest's lines go."""
        self.metrics: dict[str, GuestMetric] = self._basics.metrics
        caches = CacheFunctions(plugin, context, refused=self._count_refused, unavailable=self.unavailable)
        self.caches: Mapping[str, Mapping[str, int]] = caches.counts
        """What looking for keys came to, by cache."""
        self._families: tuple[Family, ...] = (
            self._basics,
            self._keys(plugin, context),
            caches,
            HttpFunctions(plugin, unavailable=self.unavailable, refused=self.refused),
            QueryFunctions(plugin, context, unavailable=self.unavailable, count=self._count),
        )
        self._methods = {name: method for family in self._families for name, method in family.functions().items()}
        if context.stand_in is not None:
            self._methods = {name: context.stand_in(name, method) for name, method in self._methods.items()}
        self.times: dict[str, Times] = {}
        """Of the functions that wait."""

    def functions(self, *, plain: bool = False) -> Mapping[tuple[str, str], HostCallable]:
        """Every host function, with its permission in front and its errors turned into codes; and WASI's of the log.

        ``plain`` codes are apart from all answers (``hookline_runtime.guest.plain``), and the same for all functions.
        """
        made: dict[tuple[str, str], HostCallable] = {key: self._guarded(*key, plain=plain) for key in HOST_FUNCTIONS}
        made[WASI_MODULE, "fd_write"] = self.log.fd_write(self._count_refused)
        made[WASI_MODULE, "write"] = self.log.write  # of components, whose streams are ours
        return made

    def told_unavailable(self) -> dict[str, str]:
        """What cannot be reached now, as it may be told: some of it, where there is much, and no value of a Secret."""
        # A guest chooses which host it asks behind a rule's ``*``, and may know values of Secrets to make names of.
        hides = self._has_secrets
        told = {
            source: message
            for source, message in self.unavailable.items()
            if not (hides and source.startswith(_EGRESS) and source not in self._sources)
        }
        if len(told) < len(self.unavailable):
            told["egress"] = "a host that a rule with a * allows does not answer"
        some = sorted(told.items())[:MAX_UNAVAILABLE]
        return {source: self.log.without_secrets(message[:_MAX_LOOKED]) for source, message in some}

    def close(self) -> None:
        """Give back what its functions hold, on the event loop: no call will come."""
        for family in self._families:
            family.close()

    def _count(self, name: str, *, denied: bool) -> None:
        """An error was told as JSON; for want of a permission, or for another reason."""
        counts = self.denied if denied else self.refused
        counts[name] = counts.get(name, 0) + 1

    def _keys(self, plugin: BundlePlugin, context: HostContext) -> Family:
        if plugin.kv.scope == "Pod":
            return KvFunctions(plugin, context)
        # A worker whose plugins have all their keys in the pod loads none of it.
        from hookline_runtime.host.kv_cluster import ClusterKvFunctions  # noqa: PLC0415

        return ClusterKvFunctions(plugin, context, self.unavailable)

    def _count_refused(self, name: str) -> None:
        self.refused[name] = self.refused.get(name, 0) + 1

    def _guarded(self, module: str, name: str, *, plain: bool) -> HostCallable:
        function = HOST_FUNCTIONS[module, name]
        method: Callable[..., Any] = self._methods[name]

        def answer(code: int) -> int:
            if plain:
                return PLAIN + code
            # HeliosDB's functions know one error, a sum any number but one, and packed results no sign.
            if module == "env":
                return E_SIZE if code == E_SIZE and name == "kv_get" else ABSENT
            if name == "kv_incr":
                return _NO_NUMBER
            return -code if function.results == "I" else code

        if function.permission is not None and not grants(self._granted, function.permission):
            return self._denied(name, function.permission, answer(E_DENIED))

        def failed(error: Exception) -> int:
            self.refused[name] = self.refused.get(name, 0) + 1
            if isinstance(error, CodeError | KvError):
                return answer(error.code)
            # Our own mistake otherwise; the guest gets a code, in the way that the function has for it.
            if not isinstance(error, lmdb.Error) and self.refused[name] == 1:
                shown = without_words(error, secrets=self._has_secrets)
                log.error("plugin '%s': the host function %s failed", self._name, name, exc_info=shown)
            return answer(E_UNAVAILABLE)

        if asyncio.iscoroutinefunction(method):
            run = _waiting(timed(self.times.setdefault(name, Times()), method), failed)
            return Waiting(run, answer(E_UNAVAILABLE))

        def guarded(memory: GuestMemory, *numbers: Any) -> int:
            try:
                answered: int = method(memory, *numbers)
            except Exception as error:  # noqa: BLE001 - whatever it is, the guest gets a code
                return failed(error)
            return answered

        return guarded

    def _denied(self, name: str, permission: str, code: int) -> HostCallable:
        said = orjson.dumps({"error": {"cause": "denied", "message": f"{name} needs the permission {permission}"}})

        def denied(memory: GuestMemory, *_: object) -> int:
            self.denied[name] = self.denied.get(name, 0) + 1
            return memory.give(said) if name.startswith(_IN_JSON) else code

        return denied


def _waiting(
    method: Callable[..., Awaitable[Answer]], failed: Callable[[Exception], int]
) -> Callable[..., Coroutine[Any, Any, Answer]]:
    async def guarded(memory: GuestMemory, *numbers: Any) -> Answer:
        try:
            return await method(memory, *numbers)
        except CallError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the guest gets a code
            return failed(error)

    return guarded
