"""Keeps the operator's certificate where it is needed, and its authority where it has to be trusted.

Everything is in one Secret, which all replicas share. The first replica to see that something is due
(``authority.renew``) writes it; one that meets a conflict reads what the other wrote. From there it goes to the
server's SSL context, to a ConfigMap for people and sidecars, and to the ``caBundle`` of the webhook configurations.
Beside it stands the path of an entry whose answers are for the API server alone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import random
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hookline_operator.cluster.authority import OVERLAP, KeyPair, Material, fingerprints, lacks_of, names_of, renew
from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.cluster.sight import Sight, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from hookline_operator.cluster.sealing import Api

Json = dict[str, Any]

_MAX_ENTRY: Final = 65_536
_ATTEMPTS: Final = 10
_PERIOD_S: Final = 24.0
_PAUSE_FIRST_S: Final = 0.5
_PAUSE_LAST_S: Final = 30.0
_CONFLICTS: Final = frozenset({404, 409, 422})
"""Somebody else was quicker: it has gone, it is there already or has changed, or a patch's ``test`` failed."""

log = logging.getLogger("hookline.certificates")


class CertificateKeeper:
    """Keeps the certificate, the server's context and the published authorities up to date.

    ``context`` is for the HTTPS server. It stays the same object, and shows the newest certificate to each new
    connection. All replicas run a keeper.
    """

    def __init__(
        self,
        api: Api,
        *,
        service: str,
        namespace: str,
        secret: str = "hookline-operator-tls",  # noqa: S107 - the name of an object
        config_map: str = "hookline-ca",
        webhooks: str = "",
        paths: Callable[[], Mapping[str, str]] = dict,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        overlap: timedelta = OVERLAP,
        sight: Sight | None = None,
    ) -> None:
        """``webhooks`` names both webhook configurations; empty: there are none.

        ``paths`` are those of entries for which the chart names none, by their names.
        """
        self._api = api
        self.sight = sight or Sight("certificates")
        self._service, self._namespace = service, namespace
        self._secret, self._config_map, self._webhooks = secret, config_map, webhooks
        self._paths = paths
        self._now, self._overlap = now, overlap
        self._material: Material | None = None
        self._synced = False
        self._missing: set[str] = set()
        self.changed: list[Callable[[], None]] = []
        """Hear of another bundle: an authority that is new, or gone."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])

    @property
    def bundle(self) -> str:
        """The authorities, PEM, for the pods that are injected. Raises RuntimeError before the first ``sync``."""
        if self._material is None:
            raise RuntimeError("the certificate has not been made yet")
        return self._material.bundle

    @property
    def signer(self) -> str:
        """The fingerprint of the authority that signs now. Raises RuntimeError as ``bundle``."""
        if self._material is None:
            raise RuntimeError("the certificate has not been made yet")
        (found,) = fingerprints(self._material.authority.certificate_pem)
        return found

    def client_context(self) -> ssl.SSLContext:
        """For requests to other replicas, with ``server_hostname=peer_name(…)``. Raises RuntimeError as ``bundle``."""
        return ssl.create_default_context(cadata=self.bundle)

    def not_ready(self) -> list[str]:
        """Why webhooks cannot be served yet, in sentences. An API server that goes away later changes nothing."""
        if self._material is None:
            return ["there is no serving certificate yet"]
        if not self._synced:
            return ["the certificate authority is not published yet"]
        if self._now() >= self._material.serving.certificate.not_valid_after_utc:
            return ["the serving certificate has expired, and no new one could be stored"]
        return []

    async def first_sync(self) -> None:
        """``sync`` until it succeeds, or until there is a certificate at least.

        Then sidecars can be served, also where the webhooks are not introduced yet: ``not_ready`` says so.
        """
        pause = _PAUSE_FIRST_S
        while True:
            try:
                await self.sync()
                self.sight.answered()
                return
            except KubeError as error:
                self.sight.failed(reason_of(error), f"the certificate cannot be made yet: {error}")
            if self._material is not None:
                return
            pause = min(pause * 2, _PAUSE_LAST_S)
            await asyncio.sleep(pause)

    async def run(self) -> NoReturn:
        """``sync`` forever, twice a minute, with a growing pause while the API server refuses or is away."""
        pause = 1.0
        while True:
            try:
                await self.sync()
                self.sight.answered()
                pause = _PERIOD_S
            except KubeError as error:
                self.sight.failed(reason_of(error), f"certificates cannot be checked: {error}")
                pause = min(pause * 2, _PERIOD_S)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def sync(self) -> None:
        """Look at everything once, and put right what is wrong. Raises KubeError."""
        material = await self._settle()
        if self._material is None or self._material.serving.certificate != material.serving.certificate:
            _load(self.context, material.serving)
            if lacks := lacks_of(material.authority.certificate):
                log.warning(
                    "the certificate authority in the Secret %s/%s lacks %s: clients on Python 3.13 and newer refuse "
                    "it. Delete the Secret, and a new one is made; restart the sidecars that know the old one alone",
                    *(self._namespace, self._secret, lacks),
                )
        before, self._material = self._material, material
        if before is not None and before.bundle != material.bundle:
            for hear in self.changed:
                hear()
        await self._publish(material.bundle)
        if self._webhooks:
            for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
                await self._introduce(path("admissionregistration.k8s.io/v1", plural, None, self._webhooks), material)
        self._synced = True

    async def _settle(self) -> Material:
        """What all replicas agree on: the first who writes wins, and whoever lost reads it."""
        names = names_of(self._service, self._namespace)
        for _ in range(_ATTEMPTS):
            found = await self._api.get(path("v1", "secrets", self._namespace, self._secret))
            entries = _decoded(found)
            material, notes = renew(entries, names=names, now=self._now(), overlap=self._overlap)
            wanted = material.entries()
            if found is not None and entries == wanted:
                return material
            data = {name: base64.b64encode(text.encode()).decode() for name, text in wanted.items()}
            if await self._write("secrets", self._secret, found, {"type": "kubernetes.io/tls"}, {"data": data}):
                for note in notes:
                    log.info("%s (Secret %s/%s)", note, self._namespace, self._secret)
                return material
        raise KubeError(409, f"the Secret {self._namespace}/{self._secret} changes faster than it can be written")

    async def _publish(self, bundle: str) -> None:
        for _ in range(_ATTEMPTS):
            found = await self._api.get(path("v1", "configmaps", self._namespace, self._config_map))
            data = (found or {}).get("data") or {}
            wanted = {"data": {**data, "ca.crt": bundle}}
            if data.get("ca.crt") == bundle or await self._write("configmaps", self._config_map, found, {}, wanted):
                return
        raise KubeError(
            409, f"the ConfigMap {self._namespace}/{self._config_map} changes faster than it can be written"
        )

    async def _write(self, plural: str, name: str, found: Json | None, initial: Json, wanted: Json) -> bool:
        """Write it; False where somebody was quicker."""
        try:
            if found is None:
                metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "hookline-operator"}}
                body = {"metadata": metadata, **initial, **wanted}
                await self._api.request("POST", path("v1", plural, self._namespace), body=body)
            else:
                await self._api.request("PUT", path("v1", plural, self._namespace, name), body={**found, **wanted})
        except KubeError as error:
            # A namespace that is missing is a 404 as well: only what was there can have gone.
            if error.status == 409 or (error.status == 404 and found is not None):  # noqa: PLR2004
                return False
            raise
        return True

    async def _introduce(self, where: str, material: Material) -> None:
        """Make the API server trust this server: the ``caBundle`` of each entry that calls our Service."""
        bundle = base64.b64encode(material.bundle.encode()).decode()
        paths = self._paths()
        for _ in range(_ATTEMPTS):
            found = await self._api.get(where)
            if found is None:
                if where not in self._missing:
                    log.warning("there is no %s: pods get no sidecar, or resources are not checked", where)
                self._missing.add(where)
                return
            self._missing.discard(where)
            wrong = [
                (f"/webhooks/{index}/clientConfig/{name}", value)
                for index, entry in enumerate(found.get("webhooks") or [])
                if self._is_ours(entry)
                for name, value, is_so in _wanted(entry, bundle, paths)
                if not is_so
            ]
            if not wrong:
                return
            version = found["metadata"]["resourceVersion"]  # an index means something in this version only
            operations = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
            operations += [{"op": "add", "path": at, "value": value} for at, value in wrong]
            try:
                await self._api.request("PATCH", where, body=operations, content_type="application/json-patch+json")
            except KubeError as error:
                if error.status not in _CONFLICTS:
                    raise
        raise KubeError(409, f"{where} changes faster than it can be written")

    def _is_ours(self, entry: Json) -> bool:
        service = (entry.get("clientConfig") or {}).get("service") or {}
        return service.get("name") == self._service and service.get("namespace") == self._namespace


def _wanted(entry: Json, bundle: str, paths: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """What a webhook's ``clientConfig`` should say, field by field, and whether it does."""
    config = entry["clientConfig"]
    found = [("caBundle", bundle, config.get("caBundle") == bundle)]
    where = paths.get(entry.get("name", ""))
    if where is not None:
        found.append(("service/path", where, config["service"].get("path") == where))
    return found


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    # OpenSSL takes keys from files only. This one is in memory, of this process alone, and gone with its descriptor.
    descriptor = os.memfd_create("hookline-tls", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", closefd=False, encoding="ascii") as file:
            file.write(pair.certificate_pem + pair.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _decoded(secret: Json | None) -> dict[str, str]:
    """The Secret's entries as text; one that cannot be read is empty."""
    entries = {}
    for name, value in ((secret or {}).get("data") or {}).items():
        try:
            text = base64.b64decode(value, validate=True).decode("ascii")
        except (binascii.Error, ValueError, TypeError):
            text = ""
        entries[name] = text if len(text) <= _MAX_ENTRY else ""
    return entries
