"""The keys of a sidecar's plugins: by its admin surface, or by ``hookline-sidecar kv`` in its pod."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from hookline_api.text import readable
from hookline_artifacts.errors import FetchError
from hookline_cli.frame import RefusedError, UsageError

if TYPE_CHECKING:
    from hookline_cli.inquiry.admin import Admin
    from hookline_cli.inquiry.kubectl import Kubectl

_ROOT: Final = "/admin/kv"
MAX_VALUE: Final = 64 * 1024
_REFUSED: Final = (1, 4)
"""Exit codes of ``hookline-sidecar kv``: it refused, or the key exists already."""
_PAGES: Final = 1000


class Keys(Protocol):
    """What may be done with them. Everything raises FetchError and RefusedError."""

    def plugins(self) -> dict[str, Any]:
        """The plugins that are loaded or have keys."""

    def list(self, plugin: str, prefix: str) -> dict[str, Any]:
        """The keys of one."""

    def get(self, plugin: str, key: str) -> bytes:
        """A value."""

    def set(self, plugin: str, key: str, value: bytes, *, only_new: bool, prepare: bool) -> dict[str, Any]:
        """Store a value."""

    def delete(self, plugin: str, key: str) -> dict[str, Any]:
        """Delete a key."""


@dataclass(frozen=True, slots=True)
class AdminKeys:
    """By the admin surface."""

    admin: Admin

    def plugins(self) -> dict[str, Any]:
        """All."""
        return self.admin.json(_ROOT)

    def list(self, plugin: str, prefix: str) -> dict[str, Any]:
        """Page by page."""
        entries: list[Any] = []
        page: str | None = f"{_path(plugin)}?limit=1024&prefix={quote(os.fsencode(prefix), safe='')}"
        for _ in range(_PAGES):
            if page is None:
                break
            answer = self.admin.json(page)
            entries += answer.get("entries") or ()
            page = answer.get("next")
        return {"plugin": plugin, "entries": entries}

    def get(self, plugin: str, key: str) -> bytes:
        """Byte for byte."""
        return self.admin.ask(_path(plugin, key), headers={"Accept": "application/octet-stream"})

    def set(self, plugin: str, key: str, value: bytes, *, only_new: bool, prepare: bool) -> dict[str, Any]:
        """One PUT."""
        headers = {"If-None-Match": "*"} if only_new else {}
        path = _path(plugin, key) + ("?prepare=true" if prepare else "")
        return self.admin.json(path, method="PUT", body=value, headers=headers)

    def delete(self, plugin: str, key: str) -> dict[str, Any]:
        """One DELETE."""
        return self.admin.json(_path(plugin, key), method="DELETE")


@dataclass(frozen=True, slots=True)
class PodKeys:
    """By ``kubectl exec``."""

    kubectl: Kubectl
    pod: str

    def plugins(self) -> dict[str, Any]:
        """All."""
        return self._json("list")

    def list(self, plugin: str, prefix: str) -> dict[str, Any]:
        """Those of one."""
        return self._json("list", f"--prefix={prefix}", "--", plugin)

    def get(self, plugin: str, key: str) -> bytes:
        """Byte for byte."""
        return self._run("get", "--", plugin, key)

    def set(self, plugin: str, key: str, value: bytes, *, only_new: bool, prepare: bool) -> dict[str, Any]:
        """The value goes by stdin, where no list of processes shows it."""
        flags = [*(["--only-new"] if only_new else []), *(["--prepare"] if prepare else [])]
        return self._json("put", *flags, "--", plugin, key, "-", data=value)

    def delete(self, plugin: str, key: str) -> dict[str, Any]:
        """It."""
        return self._json("delete", "--", plugin, key)

    def _json(self, verb: str, *arguments: str, data: bytes | None = None) -> dict[str, Any]:
        try:
            found = json.loads(self._run(verb, "--json", *arguments, data=data))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FetchError(f"the sidecar of pod '{self.pod}' did not answer with an object", transient=False)
        return found

    def _run(self, verb: str, *arguments: str, data: bytes | None = None) -> bytes:
        done = self.kubectl.inside(self.pod, "hookline-sidecar", "kv", verb, *arguments, data=data)
        if done.code == 0:
            return done.out
        lines = [line for line in done.err.splitlines() if line and not line.startswith("command terminated")]
        words = readable((lines or ["it gave no reason"])[-1].removeprefix("hookline-sidecar kv: "))
        sentence = f"pod '{self.pod}': {words}"
        raise RefusedError(sentence) if done.code in _REFUSED else FetchError(sentence, transient=False)


def _path(plugin: str, key: str | None = None) -> str:
    if not plugin or key == "":
        raise UsageError("PLUGIN and KEY must not be empty: a variable in the command line may not be set")
    path = f"{_ROOT}/{quote(os.fsencode(plugin), safe='')}"
    return path if key is None else f"{path}/{quote(os.fsencode(key), safe='/')}"
