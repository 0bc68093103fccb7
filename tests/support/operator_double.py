"""An operator that does what it is told: it speaks the contract, and breaks it on demand.

The real one cannot be made to cut a blob in half or to send garbage. It runs on a thread of its own, so that tests
may wait for a sidecar without stopping it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import ipaddress
import ssl
import threading

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin, LoadFailure
from hookline_api.distribution import BLOBS_PATH, DISTRIBUTION_PATH, BundleMessage, Commit, Report
from waiting import PATIENCE_S

TOKEN = "the-token-of-this-pod"


class OperatorDouble:
    """One operator on a port of 127.0.0.1; ``ca`` and ``token`` are the files that a sidecar is given."""

    def __init__(self, root, port):
        self.ca, self.token = root / "ca.crt", root / "token"
        self.url = f"https://127.0.0.1:{port}"
        self.accepted = {TOKEN}
        self.refusal = None
        """A status, or a status and headers, that every request gets."""
        self.blobs = {}
        self.faults = {}
        """By sha256, what the next requests for a blob get: "cut", "wrong", "long", "short", "hang" or a status."""
        self.asked = []
        """Name of the blob (by ``names``) and range of each request for one."""
        self.tokens = []
        self.reports = []
        self.current = None
        self.hung = threading.Event()
        self._names = {}
        self._port = port
        self._root = root
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = None
        self._sockets = set()
        self._transports = set()
        self._unhang = None
        self.token.write_text(TOKEN + "\n")
        self.new_authority()
        self.trust_authority()

    # ── what a test does ──

    def start(self):
        """Listen."""
        self._do(self._start())
        return self

    def stop(self):
        """Be gone, all at once."""
        self._do(self._stop())

    def end(self):
        """Leave nothing behind."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def entry(self, name, module=None, **settings):
        """A bundle's entry; its module becomes a blob. The time-out is long, as that of ``sidecars.manifest``."""
        settings["limits"] = {"timeout": "900ms"} | settings.get("limits", {})
        artifact = None
        if module is not None:
            sha256 = hashlib.sha256(module).hexdigest()
            self.blobs[sha256], self._names[sha256] = module, name
            artifact = BundleArtifact(
                digest=f"sha256:{'0' * 64}", sha256=sha256, size=len(module), layout="raw", reference=f"r.test/{name}:1"
            )
            settings.setdefault("hooks", ["custom_hook"])
        return BundlePlugin(name=name, namespace="n", origin="uid-1", artifact=artifact, **settings)

    def placeholder(self, name, cause="fetch", *, hooks=("pre_query",), **settings):
        """An entry that the operator has no module for."""
        failure = LoadFailure(cause=cause, message=f"{name} is nowhere")
        return self.entry(name, failure=failure, hooks=list(hooks), **settings)

    def send(self, *entries, hold=False, deadline=600_000):
        """Make this the bundle of the pod, now and for who connects later; its version."""
        bundle = Bundle.of(list(entries))
        message = BundleMessage(version=bundle.version, bundle=bundle, hold=hold, deadline=deadline)
        self.current = message.model_dump_json(by_alias=True)
        self.say(self.current)
        return bundle.version

    def commit(self, version):
        """Let what is held run."""
        self.say(Commit(version=version).model_dump_json())

    def say(self, message):
        """Send a message, or bytes, to whoever is connected."""
        self._do(self._say(message))

    def drop(self, code=None):
        """End the connections: in order with a code, else like a cable that is pulled."""
        self._do(self._drop(code))

    def release(self):
        """Let requests that hang go on."""
        self._loop.call_soon_threadsafe(self._unhang.set)

    @property
    def connected(self):
        """How many sidecars are connected."""
        return len(self._sockets)

    @property
    def last(self):
        """The last report."""
        return self.reports[-1] if self.reports else Report()

    def new_authority(self, *, without=()):
        """Another CA and a certificate of it, for new connections; ``without`` names types of its extensions."""
        now = dt.datetime.now(dt.UTC)

        def certificate(name, key, issuer, issuer_key, *extensions):
            builder = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(issuer)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(hours=1))
                .not_valid_after(now + dt.timedelta(hours=1))
            )
            for extension in extensions:
                if type(extension) in without:
                    continue
                builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            return builder.sign(issuer_key, hashes.SHA256())

        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        ca = certificate(
            "ca", ca_key, ca_name, ca_key,
            x509.BasicConstraints(ca=True, path_length=0),
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage),
            x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()),
        )  # fmt: skip
        leaf = certificate(
            "operator", key, ca_name, ca_key,
            x509.BasicConstraints(ca=False, path_length=None),
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
        )  # fmt: skip
        pem = self._root / "server.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf.public_bytes(serialization.Encoding.PEM)
        )
        self._tls.load_cert_chain(pem)
        self._authority = ca.public_bytes(serialization.Encoding.PEM)

    def trust_authority(self):
        """Give the sidecar the CA that is used now."""
        self.ca.write_bytes(self._authority)

    # ── what it answers ──

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _start(self):
        self._unhang = asyncio.Event()
        app = web.Application(middlewares=[self._check])
        app.router.add_get(DISTRIBUTION_PATH, self._converse)
        app.router.add_get(BLOBS_PATH + "{sha256}", self._blob)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()

    async def _stop(self):
        await self._drop(None)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if handlers := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(handlers, timeout=PATIENCE_S)  # they end with their connections
        # A connection whose handshake is under way is known to nobody but the loop.
        for transport in list(self._loop._transports.values()):
            if transport._loop is not None:  # as of one that has ended
                transport.abort()
        await asyncio.sleep(0.05)  # transports end one round later

    @web.middleware
    async def _check(self, request, handler):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        self._transports.add(request.transport)
        if self.refusal is not None:
            status, headers = self.refusal if isinstance(self.refusal, tuple) else (self.refusal, {})
            return web.Response(status=status, headers=headers)
        if token not in self.accepted:
            return web.Response(status=401)
        return await handler(request)

    async def _converse(self, request):
        socket = web.WebSocketResponse(max_msg_size=2**20)
        await socket.prepare(request)
        first = True
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                self.reports.append(Report.model_validate_json(message.data, extra="forbid"))
                if first:  # the contract: the sidecar speaks first
                    first = False
                    self._sockets.add((socket, request.transport))
                    if self.current is not None:
                        await socket.send_str(self.current)
        finally:
            self._sockets.discard((socket, request.transport))
        return socket

    async def _blob(self, request):
        sha256 = request.match_info["sha256"]
        asked = request.headers.get("Range")
        self.asked.append((self._names.get(sha256), asked))
        data = self.blobs.get(sha256)
        if data is None:
            return web.Response(status=404)
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        fault = self.faults[sha256].pop(0) if self.faults.get(sha256) else None
        if isinstance(fault, int):
            return web.Response(status=fault)
        if fault == "hang":
            self.hung.set()
            await self._unhang.wait()
        if fault == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        response = web.StreamResponse(status=206 if asked else 200)
        if asked:
            response.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        part = data[begin:]
        if fault == "cut":
            response.content_length = len(part)
            await response.prepare(request)
            await response.write(part[: len(part) // 2])
            request.transport.close()
            return response
        await response.prepare(request)
        await response.write({"long": part + b"x" * 10, "short": part[:-10]}.get(fault, part))
        return response

    async def _say(self, message):
        for socket, _ in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))

    async def _drop(self, code):
        sockets = [socket for socket, _ in self._sockets]
        self._sockets.clear()
        if code is not None:
            for socket in sockets:
                await socket.close(code=code)
            return
        for transport in self._transports:
            transport.abort()  # without the goodbye of TLS, for which the other side would be waited
        self._transports.clear()
