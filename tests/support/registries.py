"""A real registry as tests push to it, and a small one that misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from yarl import URL

from hookline_api.resources import OCISource


def sha256(data):
    """A digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """A running docker-registry, and how a test pushes to it."""

    host: str
    scheme: str = "http"
    authorization: str | None = None
    ca_pem: str | None = None
    extra: SimpleNamespace = field(default_factory=SimpleNamespace)

    async def push(self, name, manifest, *blobs, media_type=None):
        """Put blobs and a manifest (bytes) under ``repository:tag`` or ``repository@digest``; its digest."""
        repository, _, reference = re.split(r"([:@])", name, maxsplit=1)
        tls = ssl.create_default_context(cadata=self.ca_pem) if self.ca_pem else True
        headers = {"Authorization": self.authorization} if self.authorization else {}
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
            base = f"{self.scheme}://{self.host}/v2/{repository}"
            for blob in (b"{}", *blobs):
                async with session.post(f"{base}/blobs/uploads/", ssl=tls) as started:
                    where = started.url.join(URL(started.headers["Location"], encoded=True))
                joint = "&" if where.raw_query_string else "?"
                async with session.put(URL(f"{where}{joint}digest={sha256(blob)}", encoded=True), data=blob, ssl=tls):
                    pass
            kind = media_type or json.loads(manifest)["mediaType"]
            async with session.put(
                f"{base}/manifests/{reference}", data=manifest, headers={"Content-Type": kind}, ssl=tls
            ):
                return sha256(manifest)

    def source(self, name):
        """A source for ``repository:tag``."""
        return OCISource(reference=f"{self.host}/{name}", insecure=self.scheme == "http")


class Server:
    """A small registry in the test's loop. ``on`` replaces the answer of one path; ``requests`` is what came."""

    def __init__(self):
        self.requests = []
        self._content = {}
        self._answers = {}
        self._otherwise = None
        self.host = ""
        self.scheme = "http"

    def on(self, path, answer):
        """Let ``answer(request)`` answer a path."""
        self._answers[path] = answer

    def otherwise(self, answer):
        """Let ``answer(request)`` answer every path that nothing else is at."""
        self._otherwise = answer

    def put(self, name, manifest, *blobs):
        """Store blobs and a manifest under ``repository:tag`` and by digest; the manifest's digest."""
        repository, _, tag = name.rpartition(":")
        for blob in blobs:
            self._content[f"/v2/{repository}/blobs/{sha256(blob)}"] = blob
        for reference in (tag, sha256(manifest)):
            self._content[f"/v2/{repository}/manifests/{reference}"] = manifest
        return sha256(manifest)

    def source(self, name):
        """A source for ``repository:tag``."""
        return OCISource(reference=f"{self.host}/{name}", insecure=self.scheme == "http")

    def paths(self):
        """Which paths were asked for, in order."""
        return [request.path for request in self.requests]

    async def handle(self, request):
        """Answer from what was put, by ranges too, unless ``on`` says otherwise."""
        self.requests.append(request)
        if answer := self._answers.get(request.path):
            return await answer(request)
        body = self._content.get(request.path)
        if body is None and self._otherwise is not None:
            return await self._otherwise(request)
        if body is None:
            return web.json_response({"errors": []}, status=404)
        headers = {"Docker-Content-Digest": sha256(body), "Content-Type": "application/octet-stream"}
        start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if start is None:
            return web.Response(body=body, headers=headers)
        first = int(start[1])
        headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        return web.Response(status=206, body=body[first:], headers=headers)
