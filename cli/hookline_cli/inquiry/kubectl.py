"""The ``kubectl`` program: what it reads, and what it runs in a pod."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, FetchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONTAINER: Final = "hookline-sidecar"
_TIMEOUT_S: Final = 60.0
_MAX_ANSWER: Final = 256 * 2**20
_WORDS: Final = 600
_AWAY: Final = ("connection refused", "no such host", "i/o timeout", "unable to connect", "no route to host")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """How a command in a pod ended."""

    code: int
    out: bytes
    err: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kubectl:
    """It, with the options that say which cluster and which namespace."""

    program: str
    flags: Sequence[str]

    @classmethod
    def found(cls, *, namespace: str | None, context: str | None, kubeconfig: Path | None) -> Kubectl:
        """Raises ConfigError where there is none."""
        program = shutil.which("kubectl")
        if program is None:
            raise ConfigError(
                "a cluster is asked with kubectl, which is not on the PATH: install it, or ask a sidecar with --admin "
                "or --state"
            )
        flags = [f"--kubeconfig={kubeconfig}"] if kubeconfig is not None else []
        flags += [f"--context={context}"] if context is not None else []
        flags += [f"--namespace={namespace}"] if namespace is not None else []
        return cls(program=program, flags=flags)

    def get(self, *arguments: str, everywhere: bool = False) -> dict[str, Any]:
        """``kubectl get …``, parsed. Raises FetchError with kubectl's words."""
        done = self._run("get", *arguments, "--output=json", *(["--all-namespaces"] if everywhere else []))
        if done.code != 0:
            raise FetchError(_said(done.err), transient=False)
        try:
            found = json.loads(done.out)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FetchError("kubectl did not answer with an object", transient=False)
        return found

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """One object. Raises ConfigError for what cannot be a name, and what ``get`` does."""
        _no_option(name)
        return self.get(kind, name)

    def items(self, *arguments: str, everywhere: bool = False) -> list[dict[str, Any]]:
        """The items of a list."""
        found = self.get(*arguments, everywhere=everywhere).get("items")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def try_items(self, *arguments: str) -> list[dict[str, Any]]:
        """The same of what may be forbidden, or not installed: then nothing."""
        try:
            return self.items(*arguments)
        except FetchError:
            return []

    def inside(self, pod: str, *command: str, data: bytes | None = None) -> Done:
        """Run a command in a pod's sidecar. Raises FetchError where it was not run."""
        _no_option(pod)
        stdin = ["--stdin"] if data is not None else []
        done = self._run("exec", pod, f"--container={CONTAINER}", *stdin, "--", *command, data=data)
        # kubectl ends with the command's own code, and with 1 and these words where it did not come so far.
        if done.code != 0 and done.err.lower().startswith(("error from server", "error: unable", "unable to connect")):
            raise FetchError(f"pod '{pod}' cannot be asked: {_said(done.err)}", transient=False)
        return done

    def _run(self, *arguments: str, data: bytes | None = None) -> Done:
        verb, *rest = arguments
        command = [self.program, verb, *self.flags, *rest]
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the program is kubectl, and names are arguments
                command, input=data if data is not None else b"", capture_output=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise FetchError(f"kubectl {verb} did not end within {_TIMEOUT_S:g} s; is the cluster there?") from None
        except OSError as error:
            raise ConfigError(f"kubectl cannot be run: {error.strerror}") from None
        if len(done.stdout) > _MAX_ANSWER:
            raise FetchError(f"kubectl {verb} answered with more than {_MAX_ANSWER} bytes", transient=False)
        return Done(code=done.returncode, out=done.stdout, err=done.stderr.decode(errors="replace"))


def _no_option(name: str) -> None:
    """Raises ConfigError for a name that kubectl would take for an option, or for another object than one of a kind."""
    if not name or name.startswith("-") or "/" in name:
        raise ConfigError(
            f"{name!r:.80} cannot be a name: it has letters, digits, '-' and '.', and begins with a letter or digit"
        )


def _said(text: str) -> str:
    """Kubectl's words in one line, with what to do where that is known."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("E", "Warning:"))]
    words = readable(" ".join((lines or text.splitlines() or ["it gave no reason"])[-1].split()), _WORDS)
    if any(each in text.lower() for each in _AWAY):
        return f"the cluster does not answer; see to --kubeconfig and --context (kubectl: {words})"
    if "error loading config file" in text:
        return f"the kubeconfig cannot be read; see to --kubeconfig, or KUBECONFIG ({words})"
    if "the server doesn't have a resource type" in text:
        return f"Hookline's resources are not installed in this cluster (kubectl: {words})"
    if "not found" in text.lower() and "Error from server (NotFound)" in text:
        return words.replace("Error from server (NotFound): ", "")
    return f"kubectl: {words}"
