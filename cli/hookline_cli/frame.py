"""What all commands have in common: how they are declared, what they print, and how they end.

A command gives an ``Answer`` or raises; nothing else decides an exit code. What people read goes to stdout as text, or
with ``--json`` as one object; progress and errors go to stderr.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
FAULT: Final = 70
INTERRUPTED: Final = 130
EXITS: Final[Mapping[int, str]] = {
    0: "the command did what it says, and a check was passed",
    REFUSED: "a check was not passed: it is not signed as asked, not what it should be, forbidden by a policy, does "
    "not compile, or does not answer as its cases say",
    USAGE: "the command line is wrong, or a key, a policy, a manifest or another document that it names is",
    UNAVAILABLE: "it cannot be had or written: a registry is away or refuses, a file or a compiler is not there, a "
    "disk is full",
    FAULT: "a fault in hookline itself",
    INTERRUPTED: "it was interrupted",
}
"""The exit codes, of all commands."""
_QUIET_S: Final = 1.0
"""Seconds before progress is shown."""
_EACH_S: Final = 0.2
_NOTICES_S: Final = 3.0
"""Seconds in which a command notices that it was cancelled."""
_UNITS: Final = ("B", "KiB", "MiB", "GiB")
_KIBI: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command found or did."""

    lines: Sequence[str]
    """For people."""
    data: Mapping[str, Any] | None = field(default_factory=dict)
    """The same for programs; None where all was printed as it happened."""
    code: int = 0
    raw: bytes | None = None
    """What is written to stdout as it is, instead of lines."""


class Progress:
    """How far something is, on a terminal, once it has taken a second."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._begun = self._shown = time.monotonic()
        self._is_shown = False
        self._wanted = sys.stderr.isatty()

    def more(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        now = time.monotonic()
        if self._wanted and now - self._begun > _QUIET_S and now - self._shown > _EACH_S:
            self._shown, self._is_shown = now, True
            of = f" of {sized(self._total)}" if self._total is not None else ""
            click.echo(f"\r\033[K{for_terminal(self._what)}: {sized(self._done)}{of}", err=True, nl=False)

    def end(self) -> None:
        """Take it away."""
        if self._is_shown:
            click.echo("\r\033[K", err=True, nl=False)


class Waiting:
    """That something goes on, on a terminal, once it has taken a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = 0.0
        self._wanted = sys.stderr.isatty()

    def at(self, seconds: float) -> None:
        """So many seconds have passed."""
        if self._wanted and seconds > _QUIET_S and seconds - self._shown > _EACH_S:
            self._shown = seconds
            click.echo(f"\r\033[K{for_terminal(self._what)}: {seconds:.0f} s", err=True, nl=False)

    def end(self) -> None:
        """Take it away."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
            self._shown = 0.0


def painted(text: str, colour: str) -> str:
    """A word in a colour, on a terminal that has colours and is not asked for none (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return click.style(text, fg=colour)


def sized(size: int) -> str:
    """A number of bytes for people."""
    value = float(size)
    for unit in _UNITS:
        if value < _KIBI or unit == _UNITS[-1]:
            break
        value /= _KIBI
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def command(
    name: str, *, text: str, examples: str, options: Sequence[click.Parameter]
) -> Callable[[Callable[..., Answer | Awaitable[Answer]]], click.Command]:
    """Declare a command. ``text`` begins with one line that stands in the list of commands."""

    def declare(function: Callable[..., Answer | Awaitable[Answer]]) -> click.Command:
        @functools.wraps(function)
        def run(*, as_json: bool, **given: Any) -> None:
            sys.exit(_run(function, given, as_json=as_json))

        codes = "\n".join(f"  {code:<3}  {what}" for code, what in EXITS.items())
        shown = re.sub("^hookline ", f"{_name} ", examples, flags=re.MULTILINE)
        return click.Command(
            name,
            params=[*options, click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object.")],
            callback=run,
            help=text,
            epilog=f"\b\nexamples:\n{_indented(shown)}\n\n\b\nexit codes:\n{codes}",
        )

    return declare


def registry_options() -> list[click.Parameter]:
    """How registries are reached."""
    return [
        click.Option(["--insecure"], is_flag=True, help="Speak plain HTTP to registries; logins go in the clear."),
        click.Option(
            ["--ca"], type=FILE, metavar="FILE",
            help="Certificate authorities (PEM) to trust beside the system's.",
        ),
        click.Option(
            ["--docker-config"], type=FILE, metavar="FILE",
            help="Docker's config.json with logins to registries. Default: where docker has it.",
        ),
    ]  # fmt: skip


FILE: Final = click.Path(path_type=Path)


def hooks_like(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001 - click's
    """Hooks that a shell may complete."""
    from hookline_api.hooks import Hook  # noqa: PLC0415 - a shell asks for it

    return [each.value for each in Hook if each.value.startswith(begun)]


def permissions_like(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Permissions that a shell may complete."""
    from hookline_api.permissions import Permission  # noqa: PLC0415 - a shell asks for it

    return [each.value for each in Permission if each.value.startswith(begun)]


class UsageError(Exception):
    """The command line asks for what cannot be. The message is one sentence."""


class RefusedError(Exception):
    """Whoever was asked said no, and will again. The message is one sentence."""


_COLOR: Final = re.compile(r"\x1b\[(?:0|1|3[0-7])m")
"""What ``click.style`` writes for those that commands use; none hides what it is about."""
_PIECES: Final = re.compile(rf"{_COLOR.pattern}|.", re.DOTALL)
KUBECTL: Final = "kubectl hookline"
_name = "hookline"


def called(name: str) -> None:
    """Say as what the program was called: ``hookline``, or ``KUBECTL``."""
    global _name  # noqa: PLW0603 - of the process, once
    _name = name


def is_kubectl() -> bool:
    """Whether it runs as a plugin of kubectl: then a cluster is asked where nothing else is said."""
    return _name == KUBECTL


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.strip("\n").splitlines())


def _run(function: Callable[..., Answer | Awaitable[Answer]], given: dict[str, Any], *, as_json: bool) -> int:
    """Run a command and print its answer; the exit code."""
    # Late: --help does without either.
    from hookline_api import plugins_of_pydantic  # noqa: PLC0415
    from hookline_artifacts.errors import ConfigError, FetchError, LoadError  # noqa: PLC0415

    plugins_of_pydantic.switch_off()
    try:
        found = function(**given)
        if not isinstance(found, Answer):
            found = _finished(found)
        answer = found
    except (ConfigError, UsageError) as error:
        return failed(error, USAGE, as_json=as_json)
    except FetchError as error:
        return failed(error, UNAVAILABLE, as_json=as_json)
    except (LoadError, RefusedError) as error:
        return failed(error, REFUSED, as_json=as_json)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return failed(f"{where}{error.strerror or error}", UNAVAILABLE, as_json=as_json)
    try:
        _print(answer, as_json=as_json)
    except OSError as error:
        return unwritable(error)
    return answer.code


def _print(answer: Answer, *, as_json: bool) -> None:
    """Raises OSError where nobody reads it, or a disk is full."""
    if as_json:
        if answer.data is not None:
            click.echo(json.dumps(answer.data, indent=2))
    elif answer.raw is not None:
        click.echo(answer.raw, nl=sys.stdout.isatty() and not answer.raw.endswith(b"\n"))
    else:
        for line in answer.lines:
            say(line)
    sys.stdout.flush()


def note(text: str) -> None:
    """Something that a person may want to know beside the answer; programs that ask for JSON do not."""
    context = click.get_current_context(silent=True)
    if context is None or not context.params.get("as_json"):
        click.echo(for_terminal(f"note: {text}"), err=True)


def words(command: str, *arguments: object) -> str:
    """A command line to copy: ``hookline build 'my guard'``."""
    given = [f"./{each}" if isinstance(each, Path) and str(each)[0] == "-" else str(each) for each in arguments]
    return f"{_name} {shlex.join([command, *given])}"


def unwritable(error: OSError) -> int:
    """Stdout takes nothing more; the exit code. What is left of it is not tried once more at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if not isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError):
            click.echo(for_terminal(f"{_name}: stdout cannot be written: {error.strerror}"), err=True)
    return UNAVAILABLE


def say(text: str) -> None:
    """Print what people read, at once: of a command that goes on, what happened meanwhile."""
    click.echo(for_terminal(text))


def for_terminal(text: str) -> str:
    """What a command says, in which a registry, a cluster or a module may have a word: it commands no terminal.

    Lines end and colors are set; all else that is not printable is escaped, as Python would.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in "\n\t" or _COLOR.fullmatch(each)
        else each.encode("unicode_escape").decode()
        for each in _PIECES.findall(text)
    )


def _finished(found: Awaitable[Answer]) -> Answer:
    """What a command comes to. Ctrl-C cancels it, and ends it where it has not noticed after some seconds of work."""
    import asyncio  # noqa: PLC0415 - 40 ms, which --help does without

    async def awaited() -> Answer:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - this is one
        tasks.append((task, loop))
        return await found

    def interrupted(*_: object) -> None:
        if not tasks:
            raise KeyboardInterrupt
        task, loop = tasks.pop()
        task.cancel()
        loop.call_soon_threadsafe(lambda: None)  # it may sleep
        signal.setitimer(signal.ITIMER_REAL, _NOTICES_S)

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    tasks: list[tuple[asyncio.Task[Any], asyncio.AbstractEventLoop]] = []
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return asyncio.run(awaited())
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGALRM, ended)
    try:
        return asyncio.run(awaited())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def failed(error: Exception | str, code: int, *, as_json: bool) -> int:
    """Say why, to people or to a program; the exit code."""
    if not as_json:
        click.echo(for_terminal(f"{_name}: {error}"), err=True)
        return code
    try:
        click.echo(json.dumps({"error": str(error), "exit": code}, indent=2))
        sys.stdout.flush()
    except OSError as wrong:
        return unwritable(wrong)
    return code


def fault(error: BaseException, *, as_json: bool = False) -> int:
    """Say of an error that nobody expected; the exit code."""
    if os.environ.get("HOOKLINE_TRACEBACK"):
        import traceback  # noqa: PLC0415

        traceback.print_exception(error)
    text = " ".join(str(error).split())
    return failed(
        f"this is a fault in hookline ({type(error).__name__}: {text:.300}); set HOOKLINE_TRACEBACK=1 to see where, "
        "and report it",
        FAULT,
        as_json=as_json,
    )
