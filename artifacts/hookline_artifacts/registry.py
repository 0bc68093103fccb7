"""Registries: manifests and blobs of one repository, over the OCI distribution API.

What a registry says about itself is not believed: a manifest is hashed here, and a blob is read through a ``Body``.
``login`` answers where it asks who we are.

Protocol: https://github.com/opencontainers/distribution-spec .
"""

from __future__ import annotations

import hashlib
import io
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from yarl import URL

from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import advice_without_login
from hookline_artifacts.login.login import Login
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.transport import OF_A_REGISTRY, OF_A_REGISTRY_BY_HAND, StatusError
from hookline_artifacts.net.urls import foreign
from hookline_artifacts.package.layouts import read_list, read_manifest
from hookline_artifacts.reference import DIGEST
from hookline_artifacts.threads import in_thread_if_large

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_artifacts.limits import FetchLimits
    from hookline_artifacts.login.access import RegistryAccess
    from hookline_artifacts.login.keychain import Keychain
    from hookline_artifacts.login.login import Tokens
    from hookline_artifacts.net.transport import Transport
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.reference import Reference

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_ACCEPT: Final = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
MAX_LISTED: Final = 4096
"""Referrers of one digest."""
_MAX_PAGES: Final = 32
_MAX_LISTS: Final = 8 << 20
"""Bytes of all pages: no more are asked for then."""
_MAX_LINK: Final = 4096
_NEXT: Final = re.compile(r'<([^<>]*)>[^,<]*;\s*rel="?next"?')
"""In a ``Link`` (RFC 8288), as registries write it. Linear: no part of it can take over what another has."""


class Repository(Protocol):
    """Where the manifests and blobs of one reference come from: a registry, or an OCI layout folder."""

    async def resolve(self) -> str:
        """The digest that the reference means now."""

    async def manifest(self, name: str, *, most: int | None = None) -> bytes:
        """The manifest of a digest, checked, or of a tag, of at most so many bytes."""

    async def tagged(self, tag: str, *, most: int | None = None) -> bytes | None:
        """The manifest of a tag that need not be there; None where it is not."""

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """What says of itself that it refers to this digest: at most ``MAX_LISTED``, and nothing of it is checked."""

    async def blob(self, digest: str, into: Body) -> None:
        """Put the blob into ``into``, which the caller verifies."""


class RemoteRepository:
    """A repository in a registry."""

    def __init__(
        self,
        reference: Reference,
        *,
        insecure: bool,
        access: RegistryAccess,
        keychain: Keychain,
        transport: Transport,
        tokens: Tokens,
        limits: FetchLimits,
    ) -> None:
        self._reference = reference
        self._base = URL(f"{'http' if insecure else 'https'}://{reference.host}/v2/{reference.repository}/")
        self._ca_pem = access.ca_pem
        self._transport = transport
        self._limits = limits
        refusal = advice_without_login(access, reference)
        usual = OF_A_REGISTRY_BY_HAND if access.by_hand else OF_A_REGISTRY
        self._advice: dict[int | str, str] = {**usual, 401: refusal, 403: refusal}
        self._auth = Login(reference, self._base, access, keychain, transport, tokens)

    async def resolve(self) -> str:
        """The digest of the reference's tag: one HEAD where the registry does it right, else a GET."""
        if self._reference.digest is not None:
            return self._reference.digest
        tag = self._reference.tag or "latest"
        try:
            headers = await self._transport.request(
                "HEAD",
                self._base / "manifests" / tag,
                what=str(self._reference),
                auth=self._auth,
                ca_pem=self._ca_pem,
                advice=self._advice,
                headers={"Accept": _ACCEPT},
            )
        except StatusError as error:
            if error.transient or error.status in {401, 403}:
                raise
        else:
            digest = headers.get("Docker-Content-Digest", "")
            if DIGEST.fullmatch(digest):
                return digest
        found = await self.manifest(tag)
        # A page that is none has no digest that anybody could compare with another's.
        await in_thread_if_large(read_manifest, found)
        return f"sha256:{hashlib.sha256(found).hexdigest()}"

    async def manifest(self, name: str, *, most: int | None = None) -> bytes:
        """The manifest of a digest, checked, or of a tag, of at most so many bytes."""
        buffer = io.BytesIO()
        # A digest that the reference does not have is that of an answer, and no sentence shows it (``Body``).
        is_named = name in {self._reference.digest, self._reference.tag, "latest"}
        what = f"the manifest {name} of {self._reference}" if is_named else f"a manifest of {self._reference}"
        body = Body(buffer, what=what, cap=min(most or self._limits.manifest, self._limits.manifest))
        headers = await self._transport.request(
            "GET",
            self._base / "manifests" / name,
            what=body.what,
            into=body,
            auth=self._auth,
            ca_pem=self._ca_pem,
            advice=self._advice,
            headers={"Accept": _ACCEPT},
        )
        if headers.get("Content-Type", "").startswith("text/html"):
            raise FetchError(
                f"{self._reference.host} answered with a web page where {body.what} was asked for; "
                "check that this is a registry and that no proxy is in the way",
                transient=False,
            )
        if DIGEST.fullmatch(name):
            body.verify(name, is_named=is_named)
        return buffer.getvalue()

    async def tagged(self, tag: str, *, most: int | None = None) -> bytes | None:
        """The manifest of a tag that need not be there."""
        try:
            return await self.manifest(tag, most=most)
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Those that the referrers API names, and where it names none or is none, those under the fallback tag.

        A registry that got the API later has the older ones under the tag alone. Where a registry has no API, one
        answers 404, another 400, 405 or 501, and a third a web page.
        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
        """
        found: list[Descriptor] = []
        page: URL | None = self._base / "referrers" / digest
        size = 0
        for _ in range(_MAX_PAGES):
            if page is None or len(found) >= MAX_LISTED or size > _MAX_LISTS:
                break
            listed, page, length = await self._listed(page)
            found += listed
            size += length
        if not found:
            document = await self.tagged(digest.replace(":", "-"))
            found = [] if document is None else await in_thread_if_large(read_list, document)
        return found[:MAX_LISTED]

    async def _listed(self, page: URL) -> tuple[Sequence[Descriptor], URL | None, int]:
        """One page of what the referrers API names, the address of the next, and its bytes."""
        buffer = io.BytesIO()
        body = Body(buffer, what=f"the list of what refers to {self._reference}", cap=self._limits.manifest)
        try:
            headers = await self._transport.request(
                "GET",
                page,
                what=body.what,
                into=body,
                auth=self._auth,
                ca_pem=self._ca_pem,
                advice=self._advice,
                headers={"Accept": _INDEX},
            )
        except StatusError as error:
            if error.transient or error.status in {401, 403}:
                raise
            return (), None, 0
        listed = await in_thread_if_large(read_list, buffer.getvalue())
        following = _next_page(page, headers.get("Link", "")) if listed else None
        return listed, following, body.length

    async def blob(self, digest: str, into: Body) -> None:
        """Download a blob."""
        await self._transport.request(
            "GET",
            self._base / "blobs" / digest,
            what=into.what,
            into=into,
            auth=self._auth,
            ca_pem=self._ca_pem,
            advice=self._advice,
        )


def _next_page(page: URL, link: str) -> URL | None:
    """Where a list goes on. DANGER: credentials go there, so it is a page of the same list, at the same server."""
    found = _NEXT.search(link) if len(link) <= _MAX_LINK else None
    if found is None:
        return None
    try:
        there = foreign(found[1], base=page)
    except ValueError:
        return None
    same = there.origin() == page.origin() and _list_of(there) == _list_of(page)
    return there if same and there != page else None


def _list_of(page: URL) -> str:
    return unquote(page.raw_path.partition("?")[0])
