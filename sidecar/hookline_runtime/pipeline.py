"""The chain of one hook: which plugins are asked, in which order, and what their answers come to.

This is the table "The twelve hooks" of the design as code. Each rule is one small class: it says when the chain
stops and what stands when it is through. Failures are turned into answers here and nowhere else: a plugin that
fails closed stops the chain with the hook's refusing answer, one that fails open is as if it were not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from hookline_api.hooks import OBSERVERS, Hook
from hookline_runtime.decisions import DEFAULTS, Decision, closed
from hookline_runtime.errors import CallError
from hookline_runtime.matching import Matcher, compile_match

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.inputs import Call
    from hookline_runtime.plugin import Plugin


class _First:
    """The first plugin that has an opinion decides.

    ``take`` hears one plugin's decision and says whether the chain stops; ``outcome``, asked once at the end, says
    who decided, and what.
    """

    def __init__(self) -> None:
        self.decided: tuple[str | None, Decision] | None = None

    def take(self, call: Call, plugin: str, decision: Decision) -> bool:  # noqa: ARG002 - part of the rule's shape
        self.decided = (plugin, decision)
        return True

    def outcome(self, call: Call) -> tuple[str | None, Decision]:
        return self.decided or (None, {"action": DEFAULTS[call.hook]})


class _DenyWins(_First):
    """Any deny wins, else any allow."""

    def take(self, call: Call, plugin: str, decision: Decision) -> bool:  # noqa: ARG002 - part of the rule's shape
        denied = bool(decision["action"] == "deny")
        if denied or self.decided is None:
            self.decided = (plugin, decision)
        return denied


class _Rewriting(_First):
    """A rewrite feeds the next plugin; anything else stops."""

    def take(self, call: Call, plugin: str, decision: Decision) -> bool:
        self.decided = (plugin, decision)
        if decision["action"] == "rewrite":
            call.rewrite(decision["value"], plugin)
            return False
        return True


class _Storing(_First):
    """Each plugin may veto, or change the time to live for the next one."""

    def take(self, call: Call, plugin: str, decision: Decision) -> bool:
        self.decided = (plugin, decision)
        if decision["action"] == "skip":
            return True
        call.change_ttl(decision["ttl_ms"])
        return False

    def outcome(self, call: Call) -> tuple[str | None, Decision]:
        plugin, decision = self.decided or (None, {"action": "store"})
        if decision["action"] == "store" and call.ttl_ms is not None:
            decision = {"action": "store", "ttl_ms": call.ttl_ms}
        return plugin, decision


_RULES: Final[dict[Hook, type[_First]]] = {
    Hook.AUTHENTICATE: _First,
    Hook.AUTHORIZE: _DenyWins,
    Hook.PRE_QUERY: _Rewriting,
    Hook.REWRITE: _Rewriting,
    Hook.ROUTE: _First,
    Hook.CACHE_GET: _First,
    Hook.CACHE_SET: _Storing,
    Hook.CUSTOM: _First,
}


class Link:
    """One plugin in one chain; where the plugin could not be had, its place, which fails closed."""

    __slots__ = ("_matches", "entry", "name", "plugin")

    def __init__(self, entry: BundlePlugin, plugin: Plugin | None) -> None:
        self.entry = entry
        self.name = entry.name
        self.plugin = plugin
        self._matches: Matcher | None = compile_match(entry.match)

    def matches(self, call: Call) -> bool:
        """Whether the plugin is asked about this call."""
        return self._matches is None or self._matches(call)

    def fails_open(self, hook: Hook, error: CallError) -> bool:
        """Whether the chain goes on without this plugin."""
        policy = getattr(self.entry.failure_policy, error.cause)
        return policy == "Open" if policy is not None else hook in OBSERVERS


class Chains:
    """The chains of one bundle. A new bundle has new ones; ``retire`` ends these after their last call.

    Its plugins are held until then, because a call that waits for the chain's first plugin still needs the
    second one when the bundle has long been replaced.
    """

    def __init__(self, version: str, links: list[Link]) -> None:
        self.version = version
        self._plugins = [link.plugin for link in links if link.plugin is not None]
        for plugin in self._plugins:
            plugin.hold()
        self._under_way = 0
        self._retired = False
        self._deciding: dict[Hook, tuple[Link, ...]] = {}
        self._observing: dict[Hook, tuple[Link, ...]] = {}
        for hook in Hook:
            ours = [link for link in links if hook in link.entry.hooks]
            watches = [link.entry.mode == "Shadow" or hook in OBSERVERS for link in ours]
            self._deciding[hook] = tuple(link for link, aside in zip(ours, watches, strict=True) if not aside)
            self._observing[hook] = tuple(
                link for link, aside in zip(ours, watches, strict=True) if aside and link.plugin is not None
            )

    def has_deciders(self, hook: Hook) -> bool:
        """Whether any plugin may decide this hook."""
        return bool(self._deciding[hook])

    def _tell_observers(self, call: Call) -> None:
        """Hand the call, as it came, to the plugins that only watch; they run off the reply's path."""
        for link in self._observing[call.hook]:
            if link.plugin is not None and link.matches(call):
                link.plugin.observe(call.hook, call.data)

    async def decide(self, call: Call) -> Decision:
        """Ask the chain. Raises nothing: a failure is an answer, as its policy says."""
        self._under_way += 1
        try:
            return await self._decide(call)
        finally:
            self._end()

    @contextlib.contextmanager
    def held(self) -> Iterator[Chains]:
        """Keep these chains and their plugins for several calls, whatever is committed meanwhile."""
        self._under_way += 1
        try:
            yield self
        finally:
            self._end()

    def _end(self) -> None:
        self._under_way -= 1
        if self._retired and not self._under_way:
            self._release()

    def retire(self) -> None:
        """No call begins after this; the plugins are released when the last one ends. May be called again."""
        self._retired = True
        if not self._under_way:
            self._release()

    def _release(self) -> None:
        released, self._plugins = self._plugins, []
        for plugin in released:
            plugin.release()

    async def _decide(self, call: Call) -> Decision:
        hook = call.hook
        self._tell_observers(call)
        if hook in OBSERVERS:
            return self._answer(call, None, {"action": DEFAULTS[hook]})
        rule = _RULES[hook]()
        for link in self._deciding[hook]:
            if not link.matches(call):
                continue
            if link.plugin is None:
                failure = link.entry.failure
                cause = failure.cause if failure else "fetch"
                message = f"plugin '{link.name}' is not loaded ({cause})"
                return self._answer(call, link.name, closed(hook, message) | {"failure": cause})
            try:
                decision = await link.plugin.call(hook, call.data)
            except CallError as error:
                if link.fails_open(hook, error):
                    continue
                # The client learns who and why in a word; what happened in detail is the operator's.
                message = f"plugin '{link.name}' failed ({error.cause})"
                return self._answer(call, link.name, closed(hook, message) | {"failure": error.cause})
            if decision is not None and rule.take(call, link.name, decision):
                break
        return self._answer(call, *rule.outcome(call))

    def _answer(self, call: Call, plugin: str | None, decision: Decision) -> Decision:
        return decision | {"plugin": plugin, "request_id": call.request_id, "bundle": self.version}
