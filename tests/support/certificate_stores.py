"""A store of Secrets and configurations, and what a client sees of the certificates in it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import random
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509

from hookline_operator.cluster.authority import (
    names_of,
)
from hookline_operator.cluster.kube import KubeError
from hookline_operator.webhooks.certificates import CertificateKeeper

NAMES = names_of("hookline-operator", "hookline-system")
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)

SECRET = "/api/v1/namespaces/hookline-system/secrets/hookline-operator-tls"


class Store:
    """An API server as the keeper sees it: resourceVersions, conflicts, JSON patches; other tasks run in between."""

    def __init__(self):
        self.objects = {}
        self.version = 0
        self.writes = []
        self.broken = None

    async def get(self, where):
        """An object or None."""
        await self._turn()
        return copy.deepcopy(self.objects.get(where))

    async def request(self, method, where, *, body=None, content_type="application/json"):
        """POST, PUT or PATCH."""
        await self._turn()
        if method == "POST":
            where = f"{where}/{body['metadata']['name']}"
            if where in self.objects:
                raise KubeError(409, "already exists")
            stored = copy.deepcopy(body)
        elif where not in self.objects:
            raise KubeError(404, "not found")
        elif method == "PUT":
            if body["metadata"]["resourceVersion"] != self.objects[where]["metadata"]["resourceVersion"]:
                raise KubeError(409, "the object has been modified")
            stored = copy.deepcopy(body)
        else:
            assert content_type == "application/json-patch+json"
            stored = copy.deepcopy(self.objects[where])
            for operation in body:
                *parents, last = operation["path"].removeprefix("/").split("/")
                target = stored
                for part in parents:
                    target = target[int(part) if isinstance(target, list) else part]
                if operation["op"] == "test" and target[last] != operation["value"]:
                    raise KubeError(422, "the test failed")
                target[last] = operation["value"]
        self.put(where, stored)
        self.writes.append(where)
        return copy.deepcopy(stored)

    def put(self, where, stored):
        """Store it, as the API server does."""
        self.version += 1
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[where] = stored

    async def _turn(self):
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if self.broken:
            raise self.broken


def keeper(store, *, now=lambda: NOW, **changes):
    """A replica's."""
    return CertificateKeeper(store, service="hookline-operator", namespace="hookline-system", now=now, **changes)


def entries(store):
    """The Secret's, decoded."""
    return {name: base64.b64decode(value).decode() for name, value in store.objects[SECRET]["data"].items()}


def client(bundle):
    """A client's context, as strict as Python knows."""
    context = ssl.create_default_context(cadata=bundle)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def shown(context, bundle, name=NAMES[2]):
    """The serial number of the certificate that a real handshake shows; ssl.SSLError where a client refuses it."""
    done = asyncio.Event()

    async def answer(_, writer):
        await done.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        try:
            address = server.sockets[0].getsockname()
            _, writer = await asyncio.open_connection(*address, ssl=client(bundle), server_hostname=name)
        finally:
            done.set()
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return x509.load_der_x509_certificate(found).serial_number
