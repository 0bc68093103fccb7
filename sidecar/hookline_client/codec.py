"""JSON in bytes, by orjson where it is installed; both read strictly, and raise ValueError or TypeError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

dumps: Callable[[Any], bytes]
loads: Callable[[bytes], Any]


def _dumps(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _loads(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), parse_constant=_no_number)  # decoded here: json would take UTF-16 too
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


try:
    import orjson
except ImportError:
    dumps, loads = _dumps, _loads
else:
    dumps, loads = orjson.dumps, orjson.loads
