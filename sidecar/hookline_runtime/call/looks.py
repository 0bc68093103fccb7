"""What the accelerator looks for in the bytes of a call: a ``Shape`` in its form, and facts that ``match`` reads."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Final

from hookline_runtime.call.shapes import AT_ONCE, CONTEXT, SHAPES
from hookline_runtime.guest import accelerator

if TYPE_CHECKING:
    from hookline_api.hooks import Hook

_KIND_BITS: Final[dict[type, int]] = {
    types.NoneType: 1, bool: 2, int: 4, float: 8, str: 16, list: 32, dict: 64,
}  # fmt: skip
_ANY_KIND: Final = 0x7F
_FIRST_MARK: Final = 0x10
"""From here on to 0x1f, no byte is in JSON."""
_ROLES: Final = {"hook_context": 1, "attributes": 2, "tables": 3, "request_id": 4, "query": 5, "normalized": 6}
"""What is more to a field than its kind, in the numbers of ``accelerator.c``."""
FACTS_AT: Final = {
    ("hook_context", "database"): "database", ("", "database"): "database",
    ("hook_context", "identity"): "user", ("", "username"): "user",
    ("attributes", "application_name"): "application",
    ("", "tables"): "tables",
    ("", "is_read_only"): "classes", ("", "query"): "classes",
}  # fmt: skip
"""Where a ``Call`` finds what ``match`` reads of it: the object's name, empty for the document, and the field's."""


def look(hook: Hook, facts: frozenset[str] = frozenset()) -> bytes | None:
    """What ``accelerator.scan`` looks for in calls of a hook: the fields of its ``Shape``, and these facts of ``Call``.

    None where the accelerator does not look at such calls, or is not there.
    """
    if accelerator.scan is None or hook not in SHAPES:
        return None
    marks = {place: mark for mark, place in enumerate(FACTS_AT, _FIRST_MARK) if FACTS_AT[place] in facts}
    packed = []
    for where, fields in ("", AT_ONCE[hook]), ("hook_context", CONTEXT), ("attributes", ()):
        wanted = [
            (name, sum(_KIND_BITS[kind] for kind in kinds), _ROLES.get(name, 0), marks.pop((where, name), 0))
            for name, kinds, _ in fields
        ]
        more = [(name, _ANY_KIND, 0, mark) for (inside, name), mark in marks.items() if inside == where]
        packed.append(accelerator.shape(wanted + more, len(wanted)))
    return b"".join(packed)


LOOKS: Final = {hook: wanted for hook in SHAPES if (wanted := look(hook)) is not None}
"""For ``accelerator.scan``: which inputs are complete. Empty without the accelerator."""
ANY_OBJECT: Final = accelerator.shape([], 0) * 3
"""As a look: any object, of which nothing is asked."""
