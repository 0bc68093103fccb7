"""What a plugin may ask of its host. Without models: whoever reads or compiles a module needs no more than this."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection


class Permission(StrEnum):
    """What a plugin may ask of its host."""

    KV_READ = "kv.read"
    KV_WRITE = "kv.write"
    CACHE_READ = "cache.read"
    CACHE_WRITE = "cache.write"
    QUERY_EXECUTE = "query.execute"
    HTTP_FETCH = "http.fetch"
    CRYPTO = "crypto"
    METRICS = "metrics"
    CONFIG_READ = "config.read"


PERMISSION_PATTERN: Final = (
    "^("
    + "|".join(p.value.replace(".", r"\.") for p in Permission)
    + r"|query\.execute:[a-z0-9]([-a-z0-9]{0,47}[a-z0-9])?|custom\.[a-z0-9_.-]{1,56})$"
)
"""Of what a resource may grant."""
_PERMISSION: Final = re.compile(PERMISSION_PATTERN)


def grants(granted: Collection[str], permission: str) -> bool:
    """Whether these permissions have that one, or a part of it, as ``query.execute:orders`` is of ``query.execute``."""
    return permission in granted or any(each.startswith(f"{permission}:") for each in granted)


def is_permission(name: str) -> bool:
    """Whether a resource could grant it: an artifact may ask for any words."""
    return _PERMISSION.match(name) is not None
