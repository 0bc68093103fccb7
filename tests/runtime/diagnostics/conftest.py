"""Guests that write lines and fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost

if TYPE_CHECKING:
    from collections.abc import Callable

_FD_WRITE = (
    '(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))'
    '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
)
_LOG = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'


class Talkers:
    """Writes modules whose hook says something, and then does something.

    ``said`` are pairs: ``out``, ``err`` or a level of ``log``, and the bytes.
    """

    def __init__(self, wat: Any) -> None:
        self.wat = wat

    def says(self, *said: tuple[str | int, bytes], at: int = 1024) -> tuple[str, dict[int, bytes]]:
        """The instructions, and the data that they need."""
        body, data = [], {}
        for target, text in said:
            data[at] = text
            pointer, length, at = at, len(text), at + len(text) + 16 - len(text) % 8
            if isinstance(target, int):
                body.append(f"(drop (call $log (i32.const {target}) (i32.const {pointer}) (i32.const {length})))")
                continue
            data[at] = pointer.to_bytes(4, "little") + length.to_bytes(4, "little")
            descriptor = {"out": 1, "err": 2}[target]
            body.append(
                f"(drop (call $fd_write (i32.const {descriptor}) (i32.const {at}) (i32.const 1) (i32.const 1000)))"
            )
            at += 16
        return "\n".join(body), data

    def module(self, *said: tuple[str | int, bytes], then: str = "(i64.const 0)", parts: str = "", **more: Any) -> str:
        """A module with a ``custom_hook`` that says that, and ``then``."""
        body, data = self.says(*said)
        imports = _LOG if all(isinstance(target, int) for target, _ in said) else _LOG + _FD_WRITE
        return self.wat.module(parts, imports=imports, data=data, hooks={"custom_hook": f"{body} {then}"}, **more)


@pytest.fixture
def talkers(wat: Any) -> Talkers:
    """The writer of such modules."""
    return Talkers(wat)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What guests have logged by now: each line with its level in front."""
    caplog.set_level(1)
    return lambda: [f"{each.levelname} {each.getMessage()}" for each in caplog.records if each.name == "hookline.guest"]


@pytest.fixture
def host() -> Callable[[], PluginHost]:
    """Makes a plugin's host."""
    return lambda: PluginHost(BundlePlugin(name="guest"), HostContext())
