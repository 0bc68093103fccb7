"""What runs in a sidecar, and the modules themselves: by its admin surface, or by ``hookline-sidecar get`` in a pod."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hookline_api.text import readable
from hookline_artifacts.errors import FetchError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_cli.inquiry.admin import Admin
    from hookline_cli.inquiry.kubectl import Kubectl

_MAX_LISTED: Final = 20
_UNKNOWN: Final = "there is nothing at "
_OUTDATED: Final = "the sidecar is older than this program, and hands out no modules: inspect the reference instead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A plugin that runs."""

    name: str
    wasm: bytes
    digest: str
    layout: str
    reference: str
    granted: tuple[str, ...]
    verified: tuple[str, ...]
    """Whose signatures the sidecar verified: a line each."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One that is asked."""

    where: str
    """For sentences."""
    get: Callable[[str], bytes]
    """What it answers at a path. Raises FetchError."""

    def running(self, plugin: str | None) -> list[Running]:
        """All that runs, by name, or this one. Raises FetchError, and VerifyError for bytes that are others."""
        bundle = self._object("/v1/bundle")
        told = {each.get("name"): each for each in self._list(self._object("/v1/plugins"))}
        entries = {str(each.get("name")): each for each in self._list(bundle) if each.get("artifact")}
        if plugin is None:
            return [self._one(entries[name], told.get(name, {})) for name in sorted(entries)]
        if plugin not in entries:
            names = ", ".join(sorted(entries)[:_MAX_LISTED]) or "nothing"
            held = f"'hookline why {plugin}' says why" if plugin in told else f"it runs {names}"
            raise FetchError(f"{self.where} runs nothing of a plugin {plugin!r:.80}: {held}", transient=False)
        return [self._one(entries[plugin], told.get(plugin, {}))]

    def _one(self, entry: dict[str, Any], told: dict[str, Any]) -> Running:
        name, artifact = str(entry["name"]), entry["artifact"]
        try:
            wasm = self.get(f"/v1/modules/{quote(name, safe='')}")
        except FetchError as error:
            raise (FetchError(_OUTDATED, transient=False) if _UNKNOWN in str(error) else error) from None
        if hashlib.sha256(wasm).hexdigest() != artifact.get("sha256"):
            raise VerifyError(f"{self.where} sent other bytes than those of its plugin {name!r:.80}; ask it again")
        signers = told.get("verified")
        return Running(
            name=name,
            wasm=wasm,
            digest=str(artifact.get("digest")),
            layout=str(artifact.get("layout")),
            reference=str(artifact.get("reference")),
            granted=tuple(map(str, entry.get("permissions") or ())),
            verified=tuple(readable(_signer(each), 300) for each in signers if isinstance(each, dict))
            if isinstance(signers, list) else (),
        )  # fmt: skip

    def _object(self, path: str) -> dict[str, Any]:
        try:
            found = json.loads(self.get(path))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FetchError(f"what answers at {self.where} is no sidecar of Hookline's", transient=False)
        return found

    def _list(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        plugins = found.get("plugins")
        return [each for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []


def _signer(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items() if isinstance(value, str | int) and value)


def of_admin(admin: Admin) -> Sidecar:
    """By its admin surface."""
    return Sidecar(f"the sidecar at {admin.where}", admin.ask)


def of_pod(kubectl: Kubectl, pod: str) -> Sidecar:
    """By ``kubectl exec``."""

    def get(path: str) -> bytes:
        done = kubectl.inside(pod, "hookline-sidecar", "get", path)
        if done.code == 0:
            return done.out
        lines = [line for line in done.err.splitlines() if line and not line.startswith("command terminated")]
        words = readable((lines or ["it gave no reason"])[-1].removeprefix("hookline-sidecar get: "))
        raise FetchError(f"pod '{pod}': {words}", transient=False)

    return Sidecar(f"pod '{pod}'", get)
