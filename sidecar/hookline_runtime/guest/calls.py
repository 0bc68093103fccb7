"""Calls into a guest: one room, and two ways to do the same.

``native`` speaks to wasmtime's C API with prototypes of our own. ``official`` uses wasmtime-py as it is
documented; it is thirty times as slow, the reference for the other, and what runs where the installed
library is not the one that the prototypes were written for. ``HOOKLINE_CALLS=official`` chooses it.

A guest that imports a host function which waits has a third way: ``fibers``, which is ``native`` on stacks that a call
may leave. Where that cannot be, its calls block threads (``waiting``). ``HOOKLINE_CALLS=fibers`` puts all guests there,
and ``HOOKLINE_CALLS=threads`` none.

Either gives two classes: a ``Guest`` is a module linked to its host functions for one plugin, an ``Instance`` is one
instantiation with a store and a memory of its own. The rest of the runtime never sees a store, a pointer or a trap.
What each call guarantees, in both:

- it ends: one deadline covers instantiation, ``_initialize``, ``alloc``, the hook and ``dealloc``. When the engine's
  clock says that the time is over, the thread's own processor time is asked: a call that was not given a core goes
  on, up to a hard cap, so a busy machine or a throttled pod kills no innocent call;
- it stays in its memory: pointers and lengths from a guest are masked to 32 bits, and checked, before use;
- it raises a ``CallError`` and nothing else, and an instance that raised is never used again;
- host functions cannot raise: they answer a code, whatever happens.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, cast

from hookline_runtime.guest import capi

_fibers_unfit = "HOOKLINE_CALLS" if os.environ.get("HOOKLINE_CALLS") in {"official", "threads"} else capi.fibers_unfit
if capi.unfit is None and capi.fibers_unfit is not None:
    logging.getLogger("hookline.calls").warning("guests that wait have a thread each: %s", capi.fibers_unfit)

if TYPE_CHECKING:
    from hookline_api.resources import Limits
    from hookline_runtime.guest.border import Host
    from hookline_runtime.guest.compiled_component import CompiledComponent
    from hookline_runtime.guest.engine import CompiledModule
    from hookline_runtime.guest.native import Guest, Instance
elif os.environ.get("HOOKLINE_CALLS") == "official":
    from hookline_runtime.guest.official import Guest, Instance
elif capi.unfit is not None:
    logging.getLogger("hookline.calls").warning("calls take the fallback, wasmtime-py: %s", capi.unfit)
    from hookline_runtime.guest.official import Guest, Instance
elif os.environ.get("HOOKLINE_CALLS") == "fibers":
    from hookline_runtime.guest.fibers import Guest, Instance
else:
    from hookline_runtime.guest.native import Guest, Instance

__all__ = ["Guest", "Instance", "link"]


def link(module: CompiledModule | CompiledComponent, *, limits: Limits, host: Host) -> Guest:
    """A module, linked to one plugin's host functions: a ``Guest`` whose calls may wait, where it imports what waits.

    A component has calls of its own (``component``). Raises VerifyError.
    """
    if module.is_component:
        from hookline_runtime.guest import component  # noqa: PLC0415 - most processes need none of it

        return cast("Guest", component.Guest(module, limits=limits, host=host))
    made = Guest(module, limits=limits, host=host)
    if made.waits and not made.on_fibers and _fibers_unfit is None:
        from hookline_runtime.guest import fibers  # noqa: PLC0415 - most processes need none of it

        return fibers.Guest(module, limits=limits, host=host)
    return made
