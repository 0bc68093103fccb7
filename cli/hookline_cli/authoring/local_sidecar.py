"""A sidecar on this machine that runs one plugin while its author works on it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.documents import kubernetes_yaml
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli.authoring import building, portrait
from hookline_cli.authoring.project import MANIFEST, Project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hookline_cli.authoring.subject import Subject

_NEEDED: Final = ("hookline_sidecar", "uvloop", "prometheus_client")
_MAX_ANSWER: Final = 2**22
_LOOK_S: Final = 0.05
_END_S: Final = 10.0
_MAX_LINE: Final = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """What a sidecar says of the plugin."""

    sha256: str | None
    """Of the module that runs; None where none does."""
    problem: str | None
    """Why it is not the one that was asked for."""


def write_manifest(folder: Path, project: Project, subject: Subject) -> None:
    """The project's WasmPlugin beside its module in a folder of manifests. Raises ConfigError and FetchError."""
    documents = _documents(project)
    plugins = [each for each in documents if each.get("kind") == "WasmPlugin"]
    if len(plugins) > 1:
        raise ConfigError(f"{MANIFEST} has {len(plugins)} WasmPlugins, and one is wanted")
    source = {"file": {"path": project.built.name}}
    if not plugins:
        text = portrait.resource(project.name, source, subject.info, subject.description)
        plugins = kubernetes_yaml.read(text.encode())
        documents = [*documents, *plugins]
    for each in plugins:
        spec = each.get("spec")
        if not isinstance(spec, dict):
            raise ConfigError(f"{MANIFEST}: spec has to be a mapping")
        # Where it is published and who signs it counts once it is. And what is saved runs, whatever its cases say, and
        # without the version before it to answer where it fails: its author wants to see that.
        kept = {key: value for key, value in spec.items() if key not in {"verify", "sha256"}}
        rollout = spec.get("rollout") if isinstance(spec.get("rollout"), dict) else {}
        at_once = {"selfTest": "Off", "rollout": {**(rollout or {}), "probation": {"calls": 0}}}
        each["spec"] = {**kept, "source": source, **at_once}
    text = "\n---\n".join(json.dumps(each, ensure_ascii=False) for each in documents)
    building.write(folder / f"{project.name}.yaml", text.encode())


def _documents(project: Project) -> list[dict[str, Any]]:
    path = project.folder / MANIFEST
    if not path.exists():
        return []
    from hookline_cli.authoring.texts import read  # noqa: PLC0415

    try:
        found = kubernetes_yaml.read(read(path, most=kubernetes_yaml.MAX_FILE, what=MANIFEST))
    except kubernetes_yaml.UnreadableError as error:
        raise ConfigError(f"{MANIFEST}: {error}") from None
    return [each for each in found if isinstance(each, dict)]


class LocalSidecar:
    """One that was started here. ``started`` makes it."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self._process = process
        self._socket = state / "admin.sock"

    async def lines(self) -> AsyncIterator[str]:
        """What it writes, to its end."""
        assert self._process.stderr is not None  # noqa: S101 - it was asked for
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # longer than any of its lines is
            if not line:
                return
            yield line.decode(errors="replace").rstrip("\n")

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def running(self, name: str) -> Running | None:
        """What it says of the plugin; None where it does not answer yet, or does not know of it."""
        try:
            told = await self._get("/v1/plugins")
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return None
        for each in told.get("plugins", ()):
            if each.get("name") == name:
                failure, artifact = each.get("failure"), each.get("artifact")
                return Running(
                    sha256=artifact.get("sha256") if artifact else None,
                    problem=str(failure.get("message")) if failure else None,
                )
        problems = told.get("problems") or []
        return Running(sha256=None, problem=str(problems[0])) if problems else None

    def read_again(self) -> None:
        """Have it read its folder at once, and not once it notices that something changed."""
        # DANGER: one that only starts is ended by the signal, as any program; its socket is there once it is heeded.
        if self._process.returncode is None and self._socket.exists():
            self._process.send_signal(signal.SIGHUP)

    async def runs(self, name: str, sha256: str) -> Running:
        """Wait until it runs this module, or says why not, or ends."""
        before = await self.running(name)
        while self._process.returncode is None:
            found = await self.running(name)
            if found is not None and (found.sha256 == sha256 or (found.problem and found != before)):
                return found
            await asyncio.sleep(_LOOK_S)
        return Running(sha256=None, problem=f"the sidecar has ended with the code {self._process.returncode}")

    async def _get(self, path: str) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=_MAX_ANSWER)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.read(_MAX_ANSWER)
            while more := await reader.read(_MAX_ANSWER):
                body += more
            return json.loads(body)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def started(plugins: Path, state: Path, *, listen: str, inputs: bool) -> AsyncIterator[LocalSidecar]:
    """A sidecar of this installation on these manifests, ended at the end. Raises FetchError."""
    missing = [each for each in _NEEDED if importlib.util.find_spec(each) is None]
    if missing:
        raise FetchError(
            f"the sidecar cannot be started: {', '.join(missing)} is missing; pip install 'hookline[cli,sidecar]'",
            transient=False,
        )
    command = [
        sys.executable, "-m", "hookline_sidecar", "--plugins", str(plugins), "--state", str(state), "--listen", listen,
        "--admin", "off", "--drain", "1s", "--log-format", "json",
        "--log-decisions", "inputs" if inputs else "decisions",
    ]  # fmt: skip
    # In a session of its own: Ctrl-C is for the command, which ends it.
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        limit=_MAX_LINE,
    )  # fmt: skip
    try:
        yield LocalSidecar(process, state)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _END_S)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.contextmanager
def scratch() -> Any:
    """A folder of manifests and one of state, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="hookline-dev-") as folder:
        plugins, state = Path(folder) / "plugins", Path(folder) / "state"
        plugins.mkdir()
        yield plugins, state
