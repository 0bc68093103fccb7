"""The version before a plugin that is on probation: it answers the calls that the new one fails on.

A call of the new version that traps, times out or answers no valid decision, or that its circuit breaker answers, is
asked of the version before it, and what that says counts: for the proxy nothing has failed. So it is on all hooks, also
on those that only watch: what a guard does not see is lost, and a guest that trapped has most often done nothing yet.
What it had done (keys that it wrote) stays, and the version before it does it again.

It is not asked where the new one had no room for the call (an overload says nothing about it), nor where the server
with the keys of both is away (the new one's policy says what then), nor on a hook that it did not have, nor about a
call that its ``match`` leaves out: there the failure stands.

A failure counts against the new version (``Row.count_alone``) unless the version before it fails on the same call too.

All of this is on the way of a failure. A call that succeeds does not come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from hookline_runtime.call.matching import compile_match
from hookline_runtime.errors import CallError, OverloadError, StoreError, bare
from hookline_runtime.plugin.stats import own_row

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin
    from hookline_api.hooks import Hook
    from hookline_runtime.call.decisions import Answer
    from hookline_runtime.call.inputs import Call
    from hookline_runtime.plugin.hook import PluginHook


class Version(Protocol):
    """A plugin, as far as it stands in for another one, or has one that does."""

    entry: BundlePlugin
    hooks: dict[Hook, PluginHook]
    inline: bool
    """Whether calls run on the event loop."""

    def hold(self) -> None:
        """Stay, until ``release``."""

    def release(self) -> None:
        """Undo one ``hold``."""

    def call_now(self, hook: PluginHook, data: bytes) -> Answer | None:
        """One call on this thread. Raises CallError."""

    async def call_on(self, hook: PluginHook, data: bytes) -> Answer | None:
        """One call, once there is room for it. Raises CallError."""


V = TypeVar("V", bound=Version)


class Before(Generic[V]):
    """A plugin that is held for another one's failures, until ``end``."""

    __slots__ = ("_ended", "_hooks", "_match", "plugin")

    def __init__(self, plugin: V) -> None:
        self.plugin = plugin
        self._ended = False
        self._match = compile_match(plugin.entry.match)
        # With figures of its own: the plugin's are those of the version that runs.
        self._hooks = {name: hook.apart(own_row()) for name, hook in plugin.hooks.items()}
        plugin.hold()

    def end(self) -> None:
        """Let go of it. May be called again."""
        if not self._ended:
            self._ended = True
            self.plugin.release()

    def ask_now(self, failed: Version, hook: PluginHook, call: Call, error: CallError) -> Answer | CallError | None:
        """What it says in place of the plugin that failed so on this thread; that error again where it fails too.

        It needs no permit of its own: the call has that of the plugin that failed.
        """
        mine = self._mine(failed, hook, call, error)
        if mine is None:
            return error
        said: Answer | CallError | None
        try:
            said = self.plugin.call_now(mine, call.data)
        except CallError as second:
            said = self._second(hook, error, second)
        else:
            hook.row.count_alone()
        failed.inline = failed.inline and self.plugin.inline
        return said

    async def ask(self, failed: Version, hook: PluginHook, call: Call, error: CallError) -> Answer | CallError | None:
        """``ask_now``, once there is room for it."""
        mine = self._mine(failed, hook, call, error)
        if mine is None:
            return error
        said: Answer | CallError | None
        plugin = self.plugin
        plugin.hold()  # probation may end meanwhile
        try:
            said = await plugin.call_on(mine, call.data)
        except CallError as second:
            said = self._second(hook, error, second)
        else:
            hook.row.count_alone()
        finally:
            plugin.release()
        failed.inline = failed.inline and plugin.inline
        return said

    def _mine(self, failed: Version, hook: PluginHook, call: Call, error: CallError) -> PluginHook | None:
        """Where it is asked; None where it is not."""
        if isinstance(error, OverloadError):
            return None
        if isinstance(error, StoreError) and _has_same_keys(failed.entry, self.plugin.entry):
            return None
        mine = self._hooks.get(hook.name)
        if mine is None or not (self._match is None or self._match(call)):
            hook.row.count_alone()
            return None
        return mine

    @staticmethod
    def _second(hook: PluginHook, error: CallError, second: CallError) -> CallError:
        if isinstance(second, OverloadError):  # it was not asked: that clears nobody
            hook.row.count_alone()
        bare(second)
        return error


def _has_same_keys(one: BundlePlugin, other: BundlePlugin) -> bool:
    """Whether both find their keys on one server, by the same credentials."""
    return (one.kv.scope, one.kv.valkey, one.credentials) == (other.kv.scope, other.kv.valkey, other.credentials)
