"""The version before a plugin that is on probation: it answers the calls that the new one fails on.

A call of the new version that traps, times out or answers no valid decision, or that its circuit breaker answers, is
asked of the version before it, and what that says counts: for the proxy nothing has failed. So it is on all hooks, also
on those that only watch: what a guard does not see is lost, and a guest that trapped has most often done nothing yet.
What it had done (keys that it wrote) stays, and the version before it does it again.

It is not asked where the new one had no room for the call (an overload says nothing about it), nor on a hook that it
did not have, nor about a call that its ``match`` leaves out: there the failure stands.

A failure counts against the new version (``Row.count_alone``) unless the version before it fails on the same call too.

All of this is on the way of a failure. A call that succeeds does not come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_runtime.call.matching import compile_match
from hookline_runtime.errors import CallError, OverloadError, bare
from hookline_runtime.plugin.stats import own_row

if TYPE_CHECKING:
    from hookline_runtime.call.decisions import Answer
    from hookline_runtime.call.inputs import Call
    from hookline_runtime.plugin.plugin import Plugin, Road


class Before:
    """A plugin that is held for another one's failures, until ``end``."""

    __slots__ = ("_ended", "_match", "_roads", "plugin")

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self._ended = False
        self._match = compile_match(plugin.entry.match)
        # With figures of its own: the plugin's are those of the version that runs.
        self._roads = {hook: road.apart(own_row()) for hook, road in plugin.roads.items()}
        plugin.hold()

    def end(self) -> None:
        """Let go of it. May be called again."""
        if not self._ended:
            self._ended = True
            self.plugin.release()

    def ask_now(self, failed: Plugin, road: Road, call: Call, error: CallError) -> Answer | CallError | None:
        """What it says in place of the plugin that failed so on this thread; that error again where it fails too.

        It needs no place of its own: the call has that of the plugin that failed.
        """
        mine = self._road(road, call, error)
        if mine is None:
            return error
        said: Answer | CallError | None
        try:
            said = self.plugin.call_now(mine, call.data)
        except CallError as second:
            said = self._second(road, error, second)
        else:
            road.row.count_alone()
        failed.inline = failed.inline and self.plugin.inline
        return said

    async def ask(self, failed: Plugin, road: Road, call: Call, error: CallError) -> Answer | CallError | None:
        """``ask_now``, once there is room for it."""
        mine = self._road(road, call, error)
        if mine is None:
            return error
        said: Answer | CallError | None
        plugin = self.plugin
        plugin.hold()  # probation may end meanwhile
        try:
            said = await plugin.call_on(mine, call.data)
        except CallError as second:
            said = self._second(road, error, second)
        else:
            road.row.count_alone()
        finally:
            plugin.release()
        failed.inline = failed.inline and plugin.inline
        return said

    def _road(self, road: Road, call: Call, error: CallError) -> Road | None:
        """Where it is asked; None where it is not."""
        if isinstance(error, OverloadError):
            return None
        mine = self._roads.get(road.hook)
        if mine is None or not (self._match is None or self._match(call)):
            road.row.count_alone()
            return None
        return mine

    @staticmethod
    def _second(road: Road, error: CallError, second: CallError) -> CallError:
        if isinstance(second, OverloadError):  # it was not asked: that clears nobody
            road.row.count_alone()
        bare(second)
        return error
