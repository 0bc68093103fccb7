"""Signatures beside a source that is not a registry: files whose names are the source's own with an ending.

``.sig`` is a detached Ed25519 signature, ``.sigstore.json`` a bundle as ``cosign sign-blob --bundle`` writes it. Beside
a file, ``plugin.sig`` belongs to ``plugin.wasm`` too, as HeliosDB has it. At a URL the ending is put to its path, in a
ConfigMap to the key. Nobody is asked for what nobody wants, and nothing of what comes is believed.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

from hookline_api.resources import LocalSource
from hookline_artifacts.errors import FetchError
from hookline_artifacts.folder import read_file
from hookline_artifacts.net.body import Body
from hookline_artifacts.package.search import MAX_SIGNATURE, signature_names_beside
from hookline_artifacts.threads import in_thread
from hookline_artifacts.trust.detached import kept
from hookline_artifacts.trust.evidence import Signature

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_api.resources import Source
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.objects import Objects

_SIGNATURE: Final = ".sig"
_BUNDLE: Final = ".sigstore.json"
_MAX_BUNDLE: Final = 256 * 1024
"""Bytes of a bundle; one with a certificate and a log entry has 8 KiB."""


async def signatures_beside(
    source: Source,
    kinds: frozenset[str],
    *,
    fetcher: Fetcher,
    objects: Objects,
    namespace: str | None,
    base: Path | None,
) -> list[Signature]:
    """What may be signatures by these kinds of signers (``Authority.kind``). Raises FetchError."""
    endings = [_SIGNATURE] if "ed25519" in kinds else []
    if kinds & {"key", "keyless"}:
        endings.append(_BUNDLE)
    if source.http is not None:
        files = [(each, await fetcher.beside(source.http, each, most=_most(each))) for each in endings]
        return [_signature(ending, data) for ending, data in files if data is not None]
    if source.config_map is not None:
        keys = await objects.config_map(namespace, source.config_map.name) or {}
        files = [(each, keys.get(f"{source.config_map.key}{each}")) for each in endings]
        return [_signature(ending, data) for ending, data in files if data is not None]
    if isinstance(source, LocalSource) and source.file is not None and base is not None:
        paths = [path for path in paths_beside(base / source.file.path) if path.name.endswith(tuple(endings))]
        return [each for path in paths if (each := await in_thread(_read, path)) is not None]
    return []


def paths_beside(module: Path) -> list[Path]:
    """The files that may hold signatures of this one."""
    names = (*signature_names_beside(module.name), f"{module.name}{_BUNDLE}")
    return [module.with_name(name) for name in names]


def _read(path: Path) -> Signature | None:
    """What such a file holds; None where it is not there. Raises FetchError."""
    if not os.path.lexists(path):
        return None
    ending = _BUNDLE if path.name.endswith(_BUNDLE) else _SIGNATURE
    buffer = io.BytesIO()
    read_file(path, Body(buffer, what=f"the signature {path.name}", cap=_most(ending)))
    return _signature(ending, buffer.getvalue())


def _signature(ending: str, data: bytes) -> Signature:
    if len(data) > _most(ending):
        raise FetchError(
            f"the signature under the key with {ending} is too large, and only {_most(ending)} bytes are allowed",
            transient=False,
        )
    return kept(data) if ending == _SIGNATURE else Signature(form="bundle", payload=data)


def _most(ending: str) -> int:
    return MAX_SIGNATURE if ending == _SIGNATURE else _MAX_BUNDLE
