"""Targets: where artifacts are put, a registry's repository or an OCI layout folder.

What is put somewhere is put there by its digest, so whatever is there already is left alone, and a push that was cut
off goes on where it stopped. A manifest that refers to another (``attach``) is listed by registries with the referrers
API; for others the list under the fallback tag is read, changed and written again.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push .
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from yarl import URL

from hookline_artifacts import patience
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.folder import LayoutFolder, read_file
from hookline_artifacts.limits import FetchLimits, parse_foreign
from hookline_artifacts.login.access import RegistryAccess, advice_without_login
from hookline_artifacts.login.keychain import Keychain
from hookline_artifacts.login.login import Login, Tokens
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.net.proxies import NO_PROXIES, Proxies
from hookline_artifacts.net.transport import OF_A_REGISTRY_BY_HAND, StatusError, Transport
from hookline_artifacts.net.urls import foreign, with_query
from hookline_artifacts.package.layouts import read_manifest
from hookline_artifacts.reference import LayoutReference, Reference
from hookline_artifacts.registry import RemoteRepository
from hookline_artifacts.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from multidict import CIMultiDictProxy

    from hookline_artifacts.registry import Repository

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
REF_NAME: Final = "org.opencontainers.image.ref.name"
EMPTY: Final = b"{}"
"""The blob of ``application/vnd.oci.empty.v1+json``."""
T = TypeVar("T")
_ROUNDS: Final = 3
"""Times that a list is written again which somebody else wrote meanwhile."""
_MAX_LISTED: Final = 1024


class Target(Protocol):
    """Where artifacts are put."""

    reader: Repository
    """What is there."""

    async def has(self, digest: str) -> bool:
        """Whether a blob is there."""

    async def put_blob(self, digest: str, cargo: Cargo) -> None:
        """Put a blob there, unless it is."""

    async def put_manifest(self, document: bytes, *, tag: str | None = None) -> None:
        """Put a manifest there, under its digest and a tag. What it names is there already."""

    async def attach(self, document: bytes, subject: str) -> None:
        """Put a manifest there that refers to ``subject``, and have it listed."""


def digest_of(data: bytes) -> str:
    """``sha256:…`` of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(document: bytes) -> dict[str, Any]:
    """A manifest, as an index lists it. Raises VerifyError where it is none."""
    read_manifest(document)
    data = parse_foreign(document)
    kind = data.get("mediaType")
    found: dict[str, Any] = {
        "mediaType": kind if isinstance(kind, str) else INDEX if "manifests" in data else MANIFEST,
        "digest": digest_of(document),
        "size": len(document),
    }
    config = data.get("config")
    artifact_type = data.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    if data.get("subject") is not None:
        found |= {"artifactType": artifact_type} if isinstance(artifact_type, str) else {}
        found |= {"annotations": data["annotations"]} if isinstance(data.get("annotations"), dict) else {}
    return found


def listed(index: bytes | None, entry: dict[str, Any], *, same: Callable[[dict[str, Any]], bool]) -> bytes | None:
    """An index with one entry more, instead of the ``same``; None where it has just that already.

    Raises VerifyError where it is no index, or too long.
    """
    if index is not None:
        read_manifest(index)
    data = parse_foreign(index) if index is not None else {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    entries = data.get("manifests")
    if not isinstance(entries, list):
        raise VerifyError("where a list of manifests is expected there is something else; see to what wrote it")
    if entry in entries:
        return None
    kept = [each for each in entries if not same(each)]
    if len(kept) >= _MAX_LISTED:
        raise VerifyError(f"the list has {len(kept)} manifests, and {_MAX_LISTED} are allowed; remove old ones")
    return json.dumps({**data, "manifests": [*kept, entry]}).encode()


class RemoteTarget:
    """A repository in a registry."""

    def __init__(
        self,
        reference: Reference,
        *,
        insecure: bool,
        access: RegistryAccess,
        session: Session,
        reader: RemoteRepository,
    ) -> None:
        self.reader: Repository = reader
        self._reference = reference
        self._session = session
        self._base = URL(f"{'http' if insecure else 'https'}://{reference.host}/v2/{reference.repository}/")
        self._ca_pem = access.ca_pem
        refusal = f"{advice_without_login(access, reference)}; and see that it may push"
        self._advice: dict[int | str, str] = {
            **OF_A_REGISTRY_BY_HAND,
            401: refusal,
            403: refusal,
            404: "check the registry, and that it takes pushes",
            405: "it takes no pushes here: it may be a mirror, or read-only",
            413: "it, or a proxy before it, takes nothing of that size",
        }
        self._auth = Login(
            reference, self._base, access, session.keychain, session.transport, session.tokens, actions="pull,push"
        )

    async def has(self, digest: str) -> bool:
        """One HEAD."""
        try:
            await self._session.transport.request(
                "HEAD",
                self._base / "blobs" / digest,
                what=f"a blob of {self._reference}",
                auth=self._auth,
                ca_pem=self._ca_pem,
                advice=self._advice,
            )
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    async def put_blob(self, digest: str, cargo: Cargo) -> None:
        """Where it is not there: one request for a place, and one with all of its bytes."""
        if await self.has(digest):
            return

        async def upload() -> None:
            what = f"a blob of {self._reference}"
            uploads = self._base / "blobs" / "uploads" / ""
            location = (await self._send("POST", uploads, Cargo.of(b""), what)).get("Location", "")
            try:
                place = foreign(location, base=uploads)
            except ValueError:
                location = ""
            if not location:
                raise FetchError(f"{self._reference.registry} names no usable place for {what}")
            if self._base.scheme == "https" and place.scheme != "https":
                raise FetchError(
                    f"{self._reference.registry} wants {what} over plain HTTP, and was asked over TLS; see to it",
                    transient=False,
                )
            await self._send("PUT", with_query(place.with_user(None), {"digest": digest}), cargo, what)

        await self._again(upload)

    async def put_manifest(self, document: bytes, *, tag: str | None = None) -> None:
        """One PUT."""
        await self._put(document, tag or digest_of(document))

    async def attach(self, document: bytes, subject: str) -> None:
        """With the referrers API, or the fallback tag where that does not list it then."""
        answer = await self._put(document, digest_of(document))
        if "OCI-Subject" in answer:
            return
        entry, tag = described(document), subject.replace(":", "-")
        for _ in range(_ROUNDS):
            if any(each.digest == entry["digest"] for each in await self.reader.referrers(subject)):
                return
            changed = listed(await self.reader.tagged(tag), entry, same=lambda each: each["digest"] == entry["digest"])
            if changed is not None:
                await self._put(changed, tag)
        raise FetchError(f"{self._reference.registry} does not list what was attached to {self._reference}; try again")

    async def _put(self, document: bytes, name: str) -> CIMultiDictProxy[str]:
        cargo = Cargo.of(document, described(document)["mediaType"])

        async def put() -> CIMultiDictProxy[str]:
            return await self._send("PUT", self._base / "manifests" / name, cargo, f"a manifest of {self._reference}")

        return await self._again(put)

    async def _send(self, method: str, url: URL, cargo: Cargo, what: str) -> CIMultiDictProxy[str]:
        """One request. DANGER: a registry may name any place for its blobs; who we are is told to none but itself."""
        own = url.origin() == self._base.origin()
        return await self._session.transport.request(
            method,
            url,
            what=what,
            cargo=cargo,
            auth=self._auth if own else None,
            ca_pem=self._ca_pem,
            advice=self._advice,
        )

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        """What it gives, tried again as fetching is."""
        limits = self._session.limits
        for attempt in range(1, limits.attempts + 1):
            try:
                return await work()
            except FetchError as error:
                pause = patience.pause_within(limits, error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover


class LayoutTarget:
    """An OCI layout folder, made where it is not there. Files are complete or absent."""

    def __init__(self, root: Path, *, reader: LayoutFolder, names: str = "") -> None:
        self.reader: Repository = reader
        self._root = root
        self._names = names
        """What stands before each tag in its index: ``registry/repository:``, or nothing."""

    async def has(self, digest: str) -> bool:
        """Whether there is a file of that name; what it holds is checked by whoever reads it."""
        return await in_thread(self._path(digest).is_file)

    async def put_blob(self, digest: str, cargo: Cargo) -> None:
        """Copy it."""
        if not await self.has(digest):
            await in_thread(self._copy, digest, cargo)

    async def put_manifest(self, document: bytes, *, tag: str | None = None) -> None:
        """A blob, and with a tag an entry of the index."""
        await self.put_blob(digest_of(document), Cargo.of(document))
        if tag is not None:
            name = f"{self._names}{tag}"
            await in_thread(self._enter, {**described(document), "annotations": {REF_NAME: name}}, name)

    async def attach(self, document: bytes, subject: str) -> None:  # noqa: ARG002 - it is in the document
        """An entry of the index without a name: whoever looks for referrers looks into each."""
        await self.put_blob(digest_of(document), Cargo.of(document))
        await in_thread(self._enter, described(document), None)

    def _path(self, digest: str) -> Path:
        return self._root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _copy(self, digest: str, cargo: Cargo) -> None:
        with cargo.open() as source:
            hashed = hashlib.sha256()

            def chunks() -> Any:
                while chunk := source.read(1 << 18):
                    hashed.update(chunk)
                    if cargo.sent is not None:
                        cargo.sent(len(chunk))
                    yield chunk
                if f"sha256:{hashed.hexdigest()}" != digest:
                    raise VerifyError(f"a blob is not the {digest} that it is said to be")

            _write(self._path(digest), chunks())

    def _enter(self, entry: dict[str, Any], name: str | None) -> None:
        def same(each: dict[str, Any]) -> bool:
            found = (each.get("annotations") or {}).get(REF_NAME)
            return found == name if name is not None else found is None and each["digest"] == entry["digest"]

        path = self._root / "index.json"
        index = _read(path) if path.exists() else None
        changed = listed(index, entry, same=same)
        if changed is not None:
            _write(path, [changed])
        if index is None:
            _write(self._root / "oci-layout", [b'{"imageLayoutVersion": "1.0.0"}'])


def _read(path: Path) -> bytes:
    """An index that is there: somebody else may have made the folder. Raises FetchError."""
    buffer = io.BytesIO()
    read_file(path, Body(buffer, what="the index", cap=FetchLimits().manifest))
    return buffer.getvalue()


def _write(path: Path, chunks: Any) -> None:
    """A file, complete or absent. Raises FetchError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise FetchError(f"{path} cannot be written: {error.strerror}", transient=False) from None


@dataclass(frozen=True, kw_only=True)
class Session:
    """Connections and logins that targets share. Of one event loop; ``close`` it when done."""

    transport: Transport
    keychain: Keychain
    tokens: Tokens
    limits: FetchLimits

    @classmethod
    def new(cls, *, limits: FetchLimits, docker_config: Path | None, proxies: Proxies = NO_PROXIES) -> Session:
        """``docker_config`` is the machine's ``config.json``, by default where docker has it."""
        return cls(
            transport=Transport(limits, AddressPolicy(), proxies),
            keychain=Keychain(documents=(), docker_config=docker_config, helper_timeout=limits.helper),
            tokens=Tokens(),
            limits=limits,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.transport.close()

    def target(
        self, reference: Reference | LayoutReference, *, insecure: bool, access: RegistryAccess, base: Path
    ) -> Target:
        """Where a reference's artifact is, and others may be put; ``base`` is the folder of ``oci-layout:`` paths."""
        if isinstance(reference, LayoutReference):
            reader = LayoutFolder(reference, base=base, limits=self.limits)
            return LayoutTarget(base / reference.path, reader=reader)
        return RemoteTarget(
            reference,
            insecure=insecure,
            access=access,
            session=self,
            reader=RemoteRepository(
                reference,
                insecure=insecure,
                access=access,
                keychain=self.keychain,
                transport=self.transport,
                tokens=self.tokens,
                limits=self.limits,
            ),
        )
