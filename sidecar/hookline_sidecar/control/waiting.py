"""While a sidecar is not ready, its pod waits: the log says for what, and a start that hangs ends.

In an injected pod, no other container starts before this one is ready, for however long that takes: the startup probe
never gives up, since a restart would help nobody (``docs/operate/injection.md``). So two things are this process's own
work. It says in its log what it waits for, where ``kubectl logs`` shows it. And if it hangs before it was ever ready,
which kubelet could not tell from waiting, it ends, and its parent starts another one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_sidecar.control.view import View

_LOOK_S: Final = 1.0
_START_S: Final = 5.0
"""Who waits for longer is warned of; before that, it is a start like any other."""
_SAY_AGAIN_S: Final = 10.0
"""Reasons that change all the time are said this often."""
_HANGS_S: Final = 60.0
_REASONS: Final = 5
_REASON: Final = 500

log = logging.getLogger("hookline.supervisor")


async def watch(view: Callable[[], View]) -> None:
    """Say what is waited for, once for each change, as long as the process lives."""
    said, said_at, was_ready, begin = ("", 0), 0.0, False, time.monotonic()
    text = ""
    try:
        while True:
            if not was_ready:
                faulthandler.dump_traceback_later(_HANGS_S, exit=True)
            await asyncio.sleep(_LOOK_S)
            now_true = view()
            reasons = [] if now_true.draining else now_true.not_ready()
            if not reasons and not was_ready:
                was_ready = True
                faulthandler.cancel_dump_traceback_later()
            before, text = text, _in_one_line(reasons)
            if was_ready and text and not before:
                continue  # for the moment of a switch; what lasts is there at the next look
            now = time.monotonic()
            level = logging.WARNING if text and (was_ready or now - begin > _START_S) else logging.INFO
            if (text, level) == said or (text and said[0] and level == said[1] and now - said_at < _SAY_AGAIN_S):
                continue
            if text:
                log.log(level, "not ready: %s", text)
            elif said[0] and not now_true.draining:
                log.info("ready")
            said, said_at = (text, level), now
    finally:
        faulthandler.cancel_dump_traceback_later()


def _in_one_line(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
    return "; ".join(" ".join(each[:_REASON].split()) for each in reasons[:_REASONS]) + more
