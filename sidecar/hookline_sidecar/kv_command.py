"""``hookline-sidecar kv``: the keys of a running sidecar's plugins, from beside it; and ``get``, what it runs.

It asks the socket in the state folder (``control.admin.kv``), so it needs no token, only a user who may
open that: the sidecar's own, as ``kubectl exec`` gives, or root.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hookline_api.commands import existing_or_not
from hookline_sidecar.settings import ADMIN_SOCKET, default_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

_ROOT: Final = "/admin/kv"
_MAX_VALUE: Final = 64 * 1024
_ANSWER_S: Final = 30.0
_MAX_ANSWER: Final = 16 * 2**20
_CHUNK: Final = 2**18
_NOT_FOUND: Final = 404
_CONFLICT: Final = 412

_EXIT_REFUSED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_NOT_FOUND: Final = 3
_EXIT_CONFLICT: Final = 4
_EXIT_UNREACHABLE: Final = 5

_EPILOG: Final = """\
PLUGIN is the metadata.name of the plugin's resource. Each sidecar, so each pod, has keys of its own. The plugin's next
call sees a change, in all workers, and the change survives restarts. To give every pod the same keys to begin with, set
spec.kv.initial in the resource. Keys of a plugin with kv.scope: Cluster are on its server, and not here.

examples:
  hookline-sidecar kv list
  hookline-sidecar kv list residency-router --prefix region
  hookline-sidecar kv get cost-governor budget/tenant-a
  hookline-sidecar kv put cost-governor budget/tenant-a '{"queries_per_minute": 1000}'
  hookline-sidecar kv put column-mask rules - < rules.json
  hookline-sidecar kv delete cost-governor budget/tenant-a
  kubectl exec web -c hookline-sidecar -- hookline-sidecar kv list

exit codes:
  0  the command succeeded
  1  the sidecar refused; stderr says why
  2  the command line is wrong
  3  there is no such key or plugin
  4  --only-new was given, and the key exists already
  5  no sidecar answered
"""


class _FailedError(Exception):
    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; the exit code, as ``--help`` lists them."""
    return _run(_parser(environment).parse_args(arguments), "kv")


def run_get(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Write what the admin surface answers at a path to stdout; the exit code, as of ``kv``."""
    parser = argparse.ArgumentParser(
        prog="hookline-sidecar get",
        description="Asks a running sidecar over the admin socket in its --state, and writes the answer to stdout.",
        parents=[_common(environment)],
        epilog="exit codes: 0 answered, 1 refused, 2 wrong command line, 3 no such path, 5 no sidecar answered",
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help="path to ask for: /v1/plugins (what runs, and problems), /v1/bundle, /v1/modules/PLUGIN (its bytes), "
        "/metrics, /readyz, …",
    )
    parser.set_defaults(command=_get_path)
    return _run(parser.parse_args(arguments), "get")


def _get_path(sidecar: _Sidecar, options: argparse.Namespace) -> None:
    path = str(options.path)
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise _FailedError(_EXIT_USAGE, "PATH must be a path such as /v1/plugins")
    sidecar.copy(path, sys.stdout.buffer)


def _run(options: argparse.Namespace, command: str) -> int:
    try:
        options.command(_Sidecar(options.state / ADMIN_SOCKET), options)
        sys.stdout.flush()
    except _FailedError as error:
        sys.stderr.write(f"hookline-sidecar {command}: {error}\n")
        return error.code
    except BrokenPipeError:  # as of `kv list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _common(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    state = environment.get("HOOKLINE_STATE") or str(default_state(environment))
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state", type=existing_or_not, metavar="DIR", default=state,
        help=f"state folder of the sidecar; or set HOOKLINE_STATE (default: {state})".replace("%", "%%"),
    )  # fmt: skip
    return common


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    shape, common = argparse.RawDescriptionHelpFormatter, _common(environment)
    parser = argparse.ArgumentParser(
        prog="hookline-sidecar kv",
        description="Reads and writes the keys of plugins in a running sidecar.",
        epilog=_EPILOG,
        formatter_class=shape,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Any, text: str, *positional: tuple[str, str]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common], help=text, description=text, formatter_class=shape)
        for each, explained in positional:
            made.add_argument(each, metavar=each.upper(), help=explained)
        made.add_argument("--json", action="store_true", help="write the answer as JSON")
        made.set_defaults(command=command)
        return made

    plugin, key = ("plugin", "metadata.name of a plugin"), ("key", "key: any text, which may contain /")
    listing = add("list", _list, "list the keys of a plugin with their sizes, or list the plugins")
    listing.add_argument("plugin", metavar="PLUGIN", nargs="?", help="metadata.name of a plugin (default: all)")
    listing.add_argument("--prefix", default="", help="list only the keys that begin with PREFIX")
    add("get", _get, "write a value to stdout, byte for byte", plugin, key)
    value = ("value", "value: text, or - to read stdin; at most 64 KiB. If it begins with -, put -- before it")
    putting = add("put", _put, "store a value", plugin, key, value)
    putting.add_argument("--only-new", action="store_true", help="store the value only if the key does not exist")
    putting.add_argument("--prepare", action="store_true", help="store the value even if the plugin does not exist yet")
    add("delete", _delete, "delete a key; a key that does not exist is not an error", plugin, key)
    return parser


def _list(sidecar: _Sidecar, options: argparse.Namespace) -> None:
    if options.plugin is None:
        answer = json.loads(sidecar.ask("GET", _ROOT))
        rows = [
            (each["plugin"], "on a server", "-")
            if each.get("scope") == "Cluster"
            else (each["plugin"], str(each["keys"]), str(each["bytes"]))
            for each in answer["plugins"]
        ]
        _show(answer, ("PLUGIN", "KEYS", "BYTES"), rows, as_json=options.json)
        return
    entries: list[dict[str, Any]] = []
    page: str | None = f"{_path(options.plugin)}?limit=1024&prefix={quote(os.fsencode(options.prefix), safe='')}"
    while page is not None:
        answer = json.loads(sidecar.ask("GET", page))
        entries += answer["entries"]
        page = answer["next"]
    rows = [
        (_printable(each), str(each["size"]), "-" if each["ttl_ms"] is None else f"{each['ttl_ms'] / 1000:.0f}s")
        for each in entries
    ]
    _show({"plugin": options.plugin, "entries": entries}, ("KEY", "BYTES", "ENDS IN"), rows, as_json=options.json)


def _get(sidecar: _Sidecar, options: argparse.Namespace) -> None:
    path = _path(options.plugin, options.key)
    if options.json:
        _print(json.dumps(json.loads(sidecar.ask("GET", path)), indent=2))
        return
    value = sidecar.ask("GET", path, headers={"Accept": "application/octet-stream"})
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty() and not value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")


def _put(sidecar: _Sidecar, options: argparse.Namespace) -> None:
    value = sys.stdin.buffer.read(_MAX_VALUE + 1) if options.value == "-" else os.fsencode(options.value)
    if len(value) > _MAX_VALUE:
        raise _FailedError(_EXIT_REFUSED, f"a value has at most {_MAX_VALUE} bytes; nothing is stored")
    path = _path(options.plugin, options.key) + ("?prepare=true" if options.prepare else "")
    headers = {"If-None-Match": "*"} if options.only_new else {}
    answer = json.loads(sidecar.ask("PUT", path, body=value, headers=headers))
    _done(answer, f"{'replaced' if answer['existed'] else 'stored'}, {len(value)} bytes", options)


def _delete(sidecar: _Sidecar, options: argparse.Namespace) -> None:
    answer = json.loads(sidecar.ask("DELETE", _path(options.plugin, options.key)))
    _done(answer, "deleted" if answer["existed"] else "did not exist", options)


class _Sidecar:
    """A sidecar, by its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a good answer. Raises _FailedError."""
        with self._answer(method, path, body, headers or {}) as answer, self._reached():
            data = answer.read(_MAX_ANSWER + 1)
        if len(data) > _MAX_ANSWER:
            raise _FailedError(_EXIT_REFUSED, f"the sidecar answered with more than {_MAX_ANSWER} bytes")
        return data

    def copy(self, path: str, out: BinaryIO) -> None:
        """Write the body of a good answer as it comes, of any size; a text ends its line. Raises _FailedError."""
        with self._answer("GET", path, None, {}) as answer:
            more = True
            while more:
                with self._reached():
                    data = answer.read(_CHUNK)
                out.write(data)
                more = bool(data)
            if answer.headers.get_content_type() != "application/wasm":
                out.write(b"\n")

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """A good answer, to be read. Raises _FailedError."""
        connection = http.client.HTTPConnection("localhost", timeout=_ANSWER_S)
        with contextlib.closing(connection):
            with self._reached():
                connection.sock = self._connect()
                connection.request(method, path, body=body, headers={**headers, "Connection": "close"})
                answer = connection.getresponse()
                refusal = b"" if answer.status == http.HTTPStatus.OK else answer.read(_MAX_ANSWER)
            if answer.status != http.HTTPStatus.OK:
                raise self._refusal(answer.status, refusal)
            yield answer

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Tells what goes wrong between this process and the sidecar."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise _FailedError(_EXIT_UNREACHABLE, self._why(error)) from None

    def _refusal(self, status: int, data: bytes) -> _FailedError:
        code = {_NOT_FOUND: _EXIT_NOT_FOUND, _CONFLICT: _EXIT_CONFLICT}.get(status, _EXIT_REFUSED)
        try:
            sentence = str(json.loads(data)["detail"])
        except (ValueError, KeyError, TypeError):
            sentence = f"the sidecar answered {status}"
        return _FailedError(code, sentence)

    def _connect(self) -> socket.socket:
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unix.settimeout(_ANSWER_S)
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # By the descriptor: the whole name may be longer than a socket's may be.
                unix.connect(f"/proc/self/fd/{folder}/{self._path.name}")
            finally:
                os.close(folder)
        except BaseException:
            unix.close()
            raise
        return unix

    def _why(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            return (
                f"no sidecar answers at {self._path}: is one running, and is --state (or HOOKLINE_STATE) the folder "
                "that it was started with?"
            )
        if isinstance(error, PermissionError):
            return f"this user may not open {self._path}: run this as the sidecar's own user, or as root"
        if isinstance(error, TimeoutError):
            return f"the sidecar at {self._path} did not answer within {_ANSWER_S:g} s"
        return f"the sidecar at {self._path} closed the connection: {error}"


def _path(plugin: str, key: str | None = None) -> str:
    if not plugin or key == "":
        raise _FailedError(
            _EXIT_USAGE, "PLUGIN and KEY must not be empty: a variable in the command line may not be set"
        )
    path = f"{_ROOT}/{quote(os.fsencode(plugin), safe='')}"
    return path if key is None else f"{path}/{quote(os.fsencode(key), safe='/')}"


def _printable(entry: Mapping[str, Any]) -> str:
    key = entry.get("key")
    # A key that would break a line or a terminal, or is not text, is shown as a request spells it.
    return str(key) if key and key.isprintable() else str(entry["path"]).split("/", 4)[4]


def _show(answer: object, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, as_json: bool) -> None:
    if as_json:
        _print(json.dumps(answer, indent=2))
        return
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        _print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _done(answer: object, words: str, options: argparse.Namespace) -> None:
    _print(json.dumps(answer) if options.json else f"{options.plugin} {ascii(options.key)[1:-1]}: {words}")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
