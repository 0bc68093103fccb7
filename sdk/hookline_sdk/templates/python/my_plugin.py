"""my-plugin: refuses statements that drop or truncate a table."""

from __future__ import annotations

import re

import hookline

FORBIDDEN = re.compile(r"\b(drop|truncate)\b", re.IGNORECASE)


def pre_query(query: hookline.Query) -> hookline.Answer:
    found = FORBIDDEN.search(query["query"])
    if found is None:
        return None
    return hookline.block(f"{found[1].lower()} is not allowed{hookline.config('because', '')}")


WitWorld = hookline.plugin(pre_query=pre_query)
