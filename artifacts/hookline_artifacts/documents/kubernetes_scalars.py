"""What a scalar of YAML is to Kubernetes: the ``resolve`` of go.yaml.in/yaml/v2, and JSON's numbers as Go has them.

The source is resolve.go of that module, ``convertToJSONableObject`` of sigs.k8s.io/yaml for keys, and ``convertNumber``
of apimachinery's util/json for numbers. ``tests/sidecar/sources/yaml_table`` compares with all of them.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import re
from decimal import Decimal
from typing import Any, Final

_PREFIX: Final = "tag:yaml.org,2002:"
MERGE: Final = _PREFIX + "merge"
_STR, _BOOL, _INT, _FLOAT, _NULL, _TIMESTAMP, _BINARY = (
    _PREFIX + name for name in ("str", "bool", "int", "float", "null", "timestamp", "binary")
)
_RESOLVED: Final = frozenset({_STR, _BOOL, _INT, _FLOAT, _NULL, _TIMESTAMP})


def _words(value: object, tag: str, *words: str) -> dict[str, tuple[str, Any]]:
    return {form: (tag, value) for word in words for form in (word, word.title(), word.upper())}


_WORDS: Final = {
    **_words(True, _BOOL, "y", "yes", "true", "on"),  # noqa: FBT003
    **_words(False, _BOOL, "n", "no", "false", "off"),  # noqa: FBT003
    **_words(None, _NULL, "", "~", "null"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), (_FLOAT, math.nan)),
    **{sign + form: (_FLOAT, math.inf) for form in (".inf", ".Inf", ".INF") for sign in ("", "+")},
    **{"-" + form: (_FLOAT, -math.inf) for form in (".inf", ".Inf", ".INF")},
}
# strconv.ParseInt with base 0; the underscores are gone by then.
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO]?(?P<o>[0-7]+)|(?P<d>0|[1-9][0-9]*))"
)
_BASES: Final = (("x", 16), ("b", 2), ("o", 8))
_SIGNED_BINARY: Final = re.compile(r"0b(?P<value>[-+][01]+)")
_DECIMAL_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# What begins with a point goes to strconv.ParseFloat as it is, and that wants a digit at both sides of an underscore.
_POINT_FLOAT: Final = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_TIME: Final = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:(?P<between>[Tt]| +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2}):(?P<second>[0-9]{1,2})(?:[.,][0-9]+)?"
    r"(?P<zone>Z|[-+](?P<east>[0-9]{2}):(?P<more>[0-9]{2}))?)?"
)
_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)


class ScalarError(ValueError):
    """Kubernetes does not take it. The text is the reason."""


def resolve(text: str, *, tag: str | None, plain: bool) -> Any:
    """The value of a scalar: None, a bool, an int, a float (also one that JSON has not) or a str.

    ``plain`` says that neither quotes nor a tag make it a text. Raises ScalarError where the tag does not fit.
    """
    if tag is None:
        return _guess(text)[1] if plain else text
    if tag == _BINARY:
        return _binary(text)
    if tag == _STR or tag not in _RESOLVED:
        return text
    found, value = _guess(text)
    if tag == _FLOAT and found == _INT and value in _INT64:
        return float(value)
    if tag == _TIMESTAMP and found == _STR and _is_time(text):
        return text
    if found != tag:
        name = tag.removeprefix(_PREFIX)
        raise ScalarError(f"{text!r:.60} is not of the type !!{name} that it is said to be")
    return value


def key(value: Any) -> str:
    """The key of a JSON object that a resolved scalar becomes. Raises ScalarError where it becomes none."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() if value in _INT64:
            return str(value)
        case float():
            return _float_key(value)
    what = "null" if value is None else "a number beyond 64 bits" if isinstance(value, int) else "a collection"
    raise ScalarError(f"a key is {what}: put it in quotes if it is meant as text")


def number(value: Any) -> Any:
    """A number as the API server hands it out, and everything else as it is.

    What has no fraction is an int where it fits into 64 bits, though beyond 63 bits only with a float's precision.
    Raises ScalarError where JSON has no such number.
    """
    if isinstance(value, int) and (isinstance(value, bool) or value in _INT64):
        return value
    if not isinstance(value, int | float):
        return value
    value = float(value)
    if not math.isfinite(value):
        raise ScalarError("JSON has no number that is infinite, too large for 64 bits, or none (.nan)")
    if not value.is_integer() or abs(value) >= 1e21:  # noqa: PLR2004 - where Go's encoding/json takes to exponents
        return value
    whole = int(Decimal(repr(value)))  # the shortest digits, then zeros, as Go writes it
    return whole if whole in _INT64 or whole in _UINT64 else value


def decimal(text: str) -> int | float:
    """The number that decimal digits say; beyond 64 bits a float, which may be infinite."""
    # 20 digits and a sign hold every 64 bits; of longer ones int() takes quadratic time.
    return int(text) if len(text) <= 21 and int(text) in range(-(2**63), 2**64) else float(text)  # noqa: PLR2004


def _guess(text: str) -> tuple[str, Any]:
    """What a scalar is that nothing is said of: its tag and its value."""
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith("."):
        return _finite(text) if _POINT_FLOAT.fullmatch(text) else (_STR, text)
    if text[0] not in "+-0123456789":
        return _STR, text
    digits = text.replace("_", "")
    integer = _integer(digits)
    if integer is not None:
        return _INT, integer
    found, value = _finite(digits) if _DECIMAL_FLOAT.fullmatch(digits) else (_STR, text)
    return (found, value) if found == _FLOAT else (_STR, text)


def _integer(digits: str) -> int | None:
    """An int of 64 bits, with a sign or without; None where it is none."""
    if (binary := _SIGNED_BINARY.fullmatch(digits)) is not None:
        value = int(binary["value"], 2)
        return value if value in _INT64 else None
    found = _INTEGER.fullmatch(digits)
    if found is None:
        return None
    allowed = _INT64 if found["sign"] else _UINT64
    for name, base in _BASES:
        if found[name] is not None:
            value = int(found["sign"] + found[name], base)  # linear, for a power of two
            return value if value in allowed else None
    read = decimal(found["sign"] + found["d"])
    return read if isinstance(read, int) and read in allowed else None


def _finite(text: str) -> tuple[str, Any]:
    value = float(text)  # underscores between digits are Python's too
    return (_FLOAT, value) if math.isfinite(value) else (_STR, text)


def _is_time(text: str) -> bool:
    """Whether it is one of the four forms that go.yaml.in/yaml/v2 knows."""
    found = _TIME.fullmatch(text)
    if found is None or (found["between"] and (found["zone"] is None) != (found["between"][0] == " ")):
        return False
    try:
        dt.date(int(found["year"]) or 4, int(found["month"]), int(found["day"]))  # Go has a year 0, a leap year
        dt.time(int(found["hour"] or 0), int(found["minute"] or 0), int(found["second"] or 0))
    except ValueError:
        return False
    return int(found["east"] or 0) <= 24 and int(found["more"] or 0) <= 60  # noqa: PLR2004


def _binary(text: str) -> str:
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode()
    except ValueError as error:
        what = "text" if isinstance(error, UnicodeDecodeError) else "base64"
        raise ScalarError(f"a !!binary is not {what}: leave the tag out, and the base64 stays as it is") from None


def _float_key(value: float) -> str:
    """As ``strconv.FormatFloat(value, 'g', -1, 32)``, where six digits say it all: a 32-bit float holds those."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = f"{value:g}"
    if float(text) != value or not (value == 0 or 1e-37 < abs(value) < 1e38):  # noqa: PLR2004
        raise ScalarError(f"a key is the number {value!r}, of which Kubernetes may keep less: put it in quotes")
    return text
