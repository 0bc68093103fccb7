"""What the command lines of both programs have in common: options that are variables too, and how they log."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import re
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api.text import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Address = tuple[str, int]
_LEVELS: Final = ("debug", "info", "warning", "error")


class Options:
    """A parser whose every option can also be given in the environment; the command line wins.

    ``--max-body`` is ``HOOKLINE_MAX_BODY`` there.
    """

    def __init__(self, environment: Mapping[str, str], *, program: str, description: str, epilog: str) -> None:
        self._environment = environment
        self.parser = argparse.ArgumentParser(
            prog=program,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        version = f"{program} {importlib.metadata.version('hookline')}"
        self.parser.add_argument("--version", action="version", version=version)
        self._group = self.parser.add_argument_group()

    def group(self, title: str) -> None:
        """Begin a group: ``--help`` lists the options that follow under its title."""
        self._group = self.parser.add_argument_group(title)

    def add(
        self,
        name: str,
        *,
        kind: Callable[[str], Any],
        metavar: str,
        text: str,
        default: str | None = None,
        required: bool = False,
    ) -> None:
        """One option, without its dashes. ``kind`` raises ``argparse.ArgumentTypeError`` with a sentence."""
        # A variable that is empty counts as not set: that is what templates leave.
        given = self._environment.get("HOOKLINE_" + name.upper().replace("-", "_")) or default
        shown = f" (default: {default})".replace("%", "%%") if default else ""
        self._group.add_argument(
            f"--{name}", type=kind, metavar=metavar, default=given, help=text + shown,
            required=required and given is None,
        )  # fmt: skip

    def add_logging(self) -> None:
        """``--log-level`` and ``--log-format``; ``log_to_stderr`` takes what they give."""
        self.group("logging")
        self.add("log-level", kind=one_of(*_LEVELS), metavar="LEVEL", default="info",
                 text=f"lowest level of log lines to write: {', '.join(_LEVELS)}")  # fmt: skip
        self.add("log-format", kind=one_of("text", "json"), metavar="FORMAT", default="text",
                 text="format of log lines: text, or json for one JSON object per line")  # fmt: skip


def address(text: str) -> Address:
    """``HOST:PORT``; without a host, this machine alone."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a HOST:PORT such as 127.0.0.1:9901")
    return host.strip("[]") or "127.0.0.1", int(port)


def existing_or_not(text: str) -> Path:
    """A path."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: a variable in the command line may not be set")
    return Path(text)


def one_of(*choices: str) -> Callable[[str], str]:
    """One of these words."""

    def check(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return check


_MAX_LINE: Final = 8_192
"""Characters of one record, and of each line of a stack trace: twice what a guest may say at once."""
_OBJECT: Final = re.compile(r"<([\w.]{1,100}) object at 0x[0-9a-f]{1,16}>")
"""What Python calls an object that has no words for itself: aiohttp writes a TLS context so into each of its errors."""
_MAX_TRACE: Final = 65_536
"""Characters of a stack trace in a JSON line, of which the end says most."""


class _TextLines(logging.Formatter):
    """One record is one line, whatever an artifact or a registry managed to put into a sentence.

    A stack trace is more, each of them indented: none can be taken for a record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        record.message = readable(_without_objects(record.message), _MAX_LINE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        trace = _without_objects(super().formatException(ei))
        return "\n".join(f"  {readable(line, _MAX_LINE)}" for line in trace.split("\n"))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": _without_objects(record.getMessage())[:_MAX_LINE],
        }
        if record.exc_info:
            line["exception"] = _without_objects(self.formatException(record.exc_info))[-_MAX_TRACE:]
        return json.dumps(line)


def _without_objects(text: str) -> str:
    return _OBJECT.sub(r"\1", text)


def keep_secrets() -> None:
    """No core file of this process or of any that it starts: what is in their memory are values of Secrets."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def log_to_stderr(level: str, *, as_json: bool) -> None:
    """Log lines with UTC times, as text or as JSON."""
    handler = logging.StreamHandler()
    text = _TextLines("%(asctime)s %(levelname)-7s %(name)s[%(process)d]: %(message)s")
    formatter: logging.Formatter = _JsonLines() if as_json else text
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # It warns of each write to a connection that is gone: ten that pipeline and leave are fifteen thousand lines.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
