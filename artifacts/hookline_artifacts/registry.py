"""Registries: manifests and blobs of one repository, over the OCI distribution API.

What a registry says about itself is not believed: a manifest is hashed here, and a blob is read through a ``Body``.
``login`` answers where it asks who we are.

Protocol: https://github.com/opencontainers/distribution-spec .
"""

from __future__ import annotations

import hashlib
import io
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from yarl import URL

from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import advice_without_login
from hookline_artifacts.login.login import Login
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.transport import OF_A_REGISTRY, OF_A_REGISTRY_BY_HAND, StatusError
from hookline_artifacts.package.layouts import read_manifest
from hookline_artifacts.reference import DIGEST

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


class Repository(Protocol):
    """Where the manifests and blobs of one reference come from: a registry, or an OCI layout folder."""

    async def resolve(self) -> str:
        """The digest that the reference means now."""

    async def manifest(self, name: str) -> bytes:
        """The manifest of a digest, checked, or of a tag."""

    async def tagged(self, tag: str) -> bytes | None:
        """The manifest of a tag that need not be there; None where it is not."""

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """What says of itself that it refers to this digest. Nothing of it is checked."""

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
        read_manifest(found)  # a page that is none has no digest that anybody could compare with another's
        return f"sha256:{hashlib.sha256(found).hexdigest()}"

    async def manifest(self, name: str) -> bytes:
        """The manifest of a digest, checked, or of a tag."""
        buffer = io.BytesIO()
        # A digest that the reference does not have is that of an answer, and no sentence shows it (``Body``).
        is_named = name in {self._reference.digest, self._reference.tag, "latest"}
        what = f"the manifest {name} of {self._reference}" if is_named else f"a manifest of {self._reference}"
        body = Body(buffer, what=what, cap=self._limits.manifest)
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

    async def tagged(self, tag: str) -> bytes | None:
        """The manifest of a tag that need not be there."""
        try:
            return await self.manifest(tag)
        except StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Those that the referrers API names, or where the registry has none, those under the fallback tag.

        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
        """
        buffer = io.BytesIO()
        body = Body(buffer, what=f"the list of what refers to {self._reference}", cap=self._limits.manifest)
        try:
            await self._transport.request(
                "GET",
                self._base / "referrers" / digest,
                what=body.what,
                into=body,
                auth=self._auth,
                ca_pem=self._ca_pem,
                advice=self._advice,
                headers={"Accept": _INDEX},
            )
            document: bytes | None = buffer.getvalue()
        except StatusError as error:
            if error.transient or error.status in {401, 403}:
                raise
            document = await self.tagged(digest.replace(":", "-"))
        return () if document is None else read_manifest(document).entries or ()

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
