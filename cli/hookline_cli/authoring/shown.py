"""What a call came to, for people and for programs; and what to do about a call that failed."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from hookline_api.abi import HOST_FUNCTIONS, ungranted_imports
from hookline_api.text import readable
from hookline_cli.frame import sized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_runtime.trial.trial import Called

_MOST: Final = 2000
_FULL: Final = 7 / 8
"""Of the memory that is allowed, from which on a trap may be the want of more."""
_WORDLESS: Final = "wasm `unreachable` instruction executed"
_LINES: Final = 50
"""Of a log that are shown."""
ADVICE: Final[Mapping[str, str]] = {
    "trap": "the guest ended the call itself: see what it logged, and whether it checks what it is sent",
    "timeout": "look for a loop without an end; where the work is real, give it more with --limit timeout=1s "
    "(--limit fuel=N where fuel is counted, --limit wait=5s where it waits)",
    "result": "the answer is none of the hook's: docs/reference/hooks.md has those that are",
    "overload": "an input or its memory is larger than allowed: --limit input=1Mi, --limit memory=128Mi, or see that "
    "alloc finds a place",
    "store": "the store of keys failed; try again",
}
"""What its author can do about a call that failed, by its cause."""
_OF_RESULTS: Final[Mapping[str, str]] = {
    "outside memory": "return pointer << 32 | length of what is in memory, as an SDK does; see docs/reference/hooks.md",
    "limits.output": "answer less, or allow more: --limit output=2Mi",
    "not valid JSON": "answer with JSON in UTF-8, as an SDK writes it: docs/reference/hooks.md has the answers",
}
"""The same of results, by words of the message."""
_PIECE: Final = {"continue", "allow", "success", "hit", "store", "default", "accepted"}


def colored(text: str, color: str, *, bold: bool = False) -> str:
    """The text in a color where stdout is a terminal, and NO_COLOR (https://no-color.org) does not say otherwise."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(text, fg=color, bold=bold) if wanted else text


def decision_line(decision: Mapping[str, Any]) -> str:
    """One line: the action, and the decision as JSON."""
    action = str(decision.get("action"))
    color = "green" if action in _PIECE else "red" if action in {"block", "deny", "denied"} else "yellow"
    shown = {key: value for key, value in decision.items() if key not in {"request_id", "bundle", "plugin"}}
    return f"{colored(action, color, bold=True)}  {readable(json.dumps(shown, ensure_ascii=False), _MOST)}"


def called_lines(called: Called) -> list[str]:
    """A call for people."""
    lines = [decision_line(called.decision)]
    if called.cause is not None:
        lines.append(
            f"  {colored('failed', 'red', bold=True)} ({called.cause}): {readable(called.message or '', _MOST)}"
        )
        if called.rejected:
            lines.append(f"  it answered: {_bytes(called.rejected)}")
        lines.append(f"  what to do: {advice(called)}")
    lines += log_lines(called)
    if called.unanswered is not None:
        question = readable(json.dumps(called.unanswered["question"], ensure_ascii=False), 300)
        lines.append(
            f"  unanswered: {called.unanswered['function']} {question}: give an answer in --answers FILE, "
            "or in the case's 'answers'"
        )
    lines.append(f"  {numbers(called)}")
    return lines


def log_lines(called: Called) -> list[str]:
    """What the guest logged."""
    lines = [f"  log {each.level}: {readable(each.text, _MOST)}" for each in called.log[:_LINES]]
    if len(called.log) > _LINES:
        lines.append(f"  … and {len(called.log) - _LINES} lines more")
    return lines


def _bytes(raw: bytes) -> str:
    """As text where it is some, and else with what is none escaped."""
    try:
        return readable(raw.decode(), _MOST)
    except UnicodeDecodeError:
        return repr(raw)


def advice(called: Called) -> str:
    """What to do about a call that failed."""
    if called.denied:
        needed = ungranted_imports([_whole(each) for each in called.denied], ())
        permissions = " ".join(f"--permission {each}" for each in sorted(set(needed.values())))
        return f"it called {', '.join(sorted(called.denied))} without the permission: grant it with {permissions}"
    limit = called.memory_limit
    if called.cause == "trap" and limit is not None and called.memory >= limit * _FULL and _says_nothing(called):
        return (
            f"its memory has {sized(called.memory)} of the {sized(limit)} that limits.memory allows, "
            "and a guest that gets no more ends: look for what grows without an end; where the work is real, give it "
            "more with --limit memory=128Mi"
        )
    if called.cause == "result" and (named := _OF_RESULTS.get(_kind(called.message or ""))):
        return named
    return ADVICE.get(called.cause or "", "see docs/author/hooks.md")


def _says_nothing(called: Called) -> bool:
    """Whether a guest that trapped gave no reason of its own."""
    return (called.message or "").endswith(_WORDLESS)


def _kind(message: str) -> str:
    return next((words for words in _OF_RESULTS if words in message), "")


def _whole(name: str) -> str:
    """A host function with its module."""
    return next((f"{module}.{each}" for module, each in HOST_FUNCTIONS if each == name), name)


def numbers(called: Called) -> str:
    """What it took."""
    parts = [f"{called.us:,.0f} µs", f"memory {called.memory / 1024:,.0f} KiB"]
    if called.fuel is not None:
        parts.append(f"fuel {called.fuel:,}")
    for label, counts in (("host calls", called.host_calls), ("denied", called.denied), ("refused", called.refused)):
        if counts:
            told = ", ".join(f"{name} {count}" if count > 1 else name for name, count in sorted(counts.items()))
            parts.append(f"{label}: {told}")
    return " · ".join(parts)


def called_data(called: Called) -> dict[str, Any]:
    """A call for programs."""
    failure = None
    if called.cause is not None:
        failure = {"cause": called.cause, "message": called.message, "advice": advice(called)}
        failure["answer"] = _bytes(called.rejected) if called.rejected else None
    return {
        "decision": called.decision,
        "failure": failure,
        "log": [{"level": each.level, "text": each.text} for each in called.log],
        "us": round(called.us, 1),
        "fuel": called.fuel,
        "memory": called.memory,
        "hostCalls": dict(called.host_calls),
        "denied": dict(called.denied),
        "refused": dict(called.refused),
        "unanswered": called.unanswered,
    }
