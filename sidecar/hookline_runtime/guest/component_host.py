"""The interface ``hookline:plugin/host`` for components, upon the host functions that core modules have.

Those read and write a guest's memory by pointers. A component gives and takes texts, so what stands for its memory here
is the texts of one host call: a pointer is the number of one. Permissions, bounds and meaning are therefore the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.abi import E_ARGUMENT, E_CAP, E_DENIED, E_MEMORY, E_SIZE, E_UNAVAILABLE, HOST_FUNCTIONS
from hookline_api.component import FUNCTIONS, LEVELS, ComponentFunction
from hookline_runtime.errors import TrapError
from hookline_runtime.guest.border import U32, Waiting, may_wait
from hookline_runtime.guest.component_caller import EndedError
from hookline_runtime.guest.component_values import Error, list_of, number, ok_of, option_of, write_text
from hookline_runtime.guest.plain import PLAIN
from hookline_runtime.guest.waiting import blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.guest.border import Host
    from hookline_runtime.guest.component_caller import Caller
    from hookline_runtime.guest.said import Said

_ABSENT: Final = -1
_MAX_FAILURE: Final = 2000
_OTHER_LEVEL: Final = 99
_CODES: Final = {
    E_MEMORY: "it failed",
    E_SIZE: "it is too large",
    E_ARGUMENT: "an argument is not what the function takes",
    E_CAP: "a cap is reached",
    E_UNAVAILABLE: "it is not available now",
}
_WRITERS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "u64": number("u64"),
    "result<_, string>": ok_of(None),
    "result<bool, string>": ok_of(number("bool")),
    "result<s64, string>": ok_of(number("s64")),
    "result<string, string>": ok_of(write_text),
    "result<option<string>, string>": ok_of(option_of(write_text)),
    "result<list<string>, string>": ok_of(list_of(write_text)),
}


class _Texts:
    """What ``border.GuestMemory`` says, for one host call."""

    __slots__ = ("_said", "given", "may_wait", "texts")

    def __init__(self, said: Said, *, may_wait: bool) -> None:
        self._said = said
        self.texts: list[bytes] = []
        self.given: bytes | None = None
        self.may_wait = may_wait

    def said(self) -> Said:
        """What the guest says in its call."""
        return self._said

    def read(self, pointer: int, length: int) -> bytes | None:
        return self.texts[pointer][: length & U32]

    def write(self, pointer: int, data: bytes) -> bool:
        del pointer
        self.given = data
        return True

    def give(self, data: bytes) -> int:
        self.given = data
        return 1


def host_functions(host: Host) -> dict[str, tuple[Callable[..., Any], Callable[[Any, Any], None] | None]]:
    """Every function of the interface: how it is called, and how its answer is written."""
    made: dict[str, tuple[Callable[..., Any], Callable[[Any, Any], None] | None]] = {}
    for name, function in FUNCTIONS.items():
        if function.stands_for is None:
            made[name] = _fail, None
        else:
            given = host[function.stands_for]
            call = blocking(given) if isinstance(given, Waiting) else given
            spends = may_wait(function.stands_for[1]) and not isinstance(given, Waiting)
            made[name] = (
                _bridge(name, function, call, spends=spends),
                _WRITERS[function.result] if function.result else None,
            )
    return made


def _fail(_: Caller, values: list[Any]) -> None:
    text = values[0].decode(errors="replace")[:_MAX_FAILURE]
    raise EndedError(TrapError(f"the plugin failed: {' '.join(text.split())}"))


def _bridge(name: str, function: ComponentFunction, call: Callable[..., int], *, spends: bool) -> Callable[..., Any]:
    places = {param: place for place, (param, _) in enumerate(function.params)}
    order = function.numbers.split() or list(places)
    permission = HOST_FUNCTIONS[function.stands_for].permission if function.stands_for else None
    codes = _CODES | {E_DENIED: f"denied: the permission {permission} is not granted"}

    def run(instance: Caller, values: list[Any]) -> Any:
        memory = _Texts(instance.said, may_wait=instance.in_hook)
        if name == "log":
            level = values[0].decode(errors="replace")
            values[0] = LEVELS.index(level) if level in LEVELS else _OTHER_LEVEL
        numbers: list[Any] = []
        for word in order:
            value = 0 if word == "out" else U32 if word == "most" else values[places[word]]
            if value is None:
                numbers += (0, _ABSENT)
            elif isinstance(value, bytes):
                numbers += (len(memory.texts), len(value))
                memory.texts.append(value)
            else:
                numbers.append(value)
        begin = time.perf_counter_ns() if spends else 0
        answer = call(memory, *numbers)
        if spends:
            instance.host_ns += time.perf_counter_ns() - begin
        return _told(name, function, codes, answer, memory.given)

    return run


def _told(name: str, function: ComponentFunction, codes: dict[int, str], answer: int, given: bytes | None) -> Any:
    """What the function's answer is for the guest."""
    kind = function.result
    if kind is not None and answer < PLAIN // 2:
        return Error(f"{name}: {codes.get(answer - PLAIN, 'it failed')}".encode())
    match kind:
        case None | "result<_, string>":
            return None
        case "u64" | "result<s64, string>":
            return answer
        case "result<bool, string>":
            return bool(answer)
        case "result<list<string>, string>":
            return [each.encode() for each in orjson.loads(given or b"[]")]
        case _:
            return _text(name, b"" if given is None and "option" not in kind else given, is_hex=function.is_hex)


def _text(name: str, given: bytes | None, *, is_hex: bool) -> bytes | Error | None:
    """What a function wrote, or gave. DANGER: the engine panics where it is not text."""
    if given is None or is_hex:
        return None if given is None else given.hex().encode()
    if not given.isascii():
        try:
            given.decode()
        except UnicodeDecodeError:
            return Error(f"{name}: the value is not text in UTF-8".encode())
    return given
