"""The Kubernetes API as the operator uses it: JSON objects by path, and collections that keep themselves current.

Connection, certificates and tokens are the official client's; its thousand typed models are not used, because most
objects here are only looked at for three fields. A ``Reflector`` is what client-go calls one: list, then watch, and
list again when the watch can no longer be resumed; so a deletion that happened while nobody watched is seen too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sys
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from kubernetes.aio import client, config

from hookline_runtime.artifacts import network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""
T = TypeVar("T")

MANAGER: Final = "hookline-operator"
"""The field manager of everything that is applied."""
_TIMEOUT_S: Final = 30.0
_PAGE: Final = 500
_WATCH_S: Final = 300
_QUIET_S: Final = 120.0
"""A watch on which not even a bookmark comes (they do each minute) hangs."""
_PAUSE_LAST_S: Final = 15.0
_NOT_FOUND: Final = 404
_GONE: Final = 410
_MAX_LEVELS: Final = 12_000
"""Of calls, and so of objects in objects: the API server stores 10,000. A level of JSON takes 200 bytes of stack."""
_CHUNK: Final = 256 * 1024
_METADATA: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"

log = logging.getLogger("hookline.kube")


class KubeError(Exception):
    """The API server refused, or could not be reached (``status`` 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def path(api_version: str, plural: str, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
    """The URL path of a collection or an object: ``path("apps/v1", "deployments", "default")``."""
    parts = ["/apis" if "/" in api_version else "/api", api_version]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if sub:
        parts.append(sub)
    return "/".join(parts)


class Kube:
    """A connection to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = 100
        self._api = client.ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> Kube:
        """With a kubeconfig, else as the pod's service account. Raises KubeError."""
        # DANGER: one object of one tenant that cannot be parsed would keep all others' from us; also in kopf's watch.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _MAX_LEVELS))
        configuration = client.Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise KubeError(0, f"no way to the API server: {error}; outside of a pod give --kubeconfig") from error
        return cls(configuration)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def request(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """One request; the answer's JSON. Raises KubeError."""
        async with self._open(method, where, query, body, content_type, accept, total=_TIMEOUT_S) as response:
            try:
                answer: Object = _parsed(await response.read())
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise KubeError(0, f"the API server's answer broke off: {_why(error)}") from error
            return answer

    async def get(self, where: str) -> Object | None:
        """An object; None where there is none. Raises KubeError."""
        try:
            return await self.request("GET", where)
        except KubeError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def apply(self, where: str, body: Object) -> Object:
        """Server-side apply of exactly these fields, also against other managers of them. Raises KubeError."""
        return await self.request(
            "PATCH",
            where,
            query={"fieldManager": MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def list(
        self, where: str, *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> tuple[list[Object], str]:
        """All objects of a collection, and the version from which to watch. Raises KubeError."""
        items: list[Object] = []
        version = ""
        async for page, at in self.pages(where, selector=selector, fields=fields, metadata_only=metadata_only):
            items += page
            version = at
        return items, version

    async def pages(
        self, where: str, *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[Sequence[Object], str]]:
        """The same piece by piece, for whoever keeps little of each: twenty thousand pods are 500 MiB.

        Raises KubeError.
        """
        accept = _METADATA.format("List") if metadata_only else "application/json"
        query = {"limit": str(_PAGE)} | _selectors(selector, fields)
        while True:
            page = await self.request("GET", where, query=query, accept=accept)
            yield page.get("items") or [], page["metadata"].get("resourceVersion", "")
            if not (token := page["metadata"].get("continue")):
                return
            query["continue"] = token

    async def watch(
        self, where: str, version: str, *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes from a version on: ``ADDED``, ``MODIFIED``, ``DELETED``, ``BOOKMARK``. Raises KubeError."""
        seconds = _WATCH_S + random.randint(0, _WATCH_S // 10)  # noqa: S311 - so that not all end at once
        query = {"watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= _selectors(selector, fields)
        accept = _METADATA.format("") if metadata_only else "application/json"
        async with self._open("GET", where, query, None, "", accept, total=seconds + 30, quiet=_QUIET_S) as response:
            try:
                async for line in _lines(response.content):
                    event = _parsed(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise KubeError(int(status.get("code", 0)), str(status.get("message", "")))
                    yield event["type"], event["object"]
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise KubeError(0, f"the watch of {where} broke off: {_why(error)}") from error

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        accept: str,
        *,
        total: float,
        quiet: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": accept, "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], where, method, body)
        url = self._api.configuration.host + where + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._api.rest_client.request(
                method,
                url,
                headers=headers,
                body=body,
                _request_timeout=aiohttp.ClientTimeout(total=total, sock_connect=10, sock_read=quiet),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(0, f"the API server cannot be reached: {_why(error)}") from error
        response: aiohttp.ClientResponse = answer.response
        try:
            if response.status >= 400:  # noqa: PLR2004
                raise KubeError(response.status, await _reason(response))
            yield response
        finally:
            response.release()


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


def _parsed(text: bytes) -> Any:
    """JSON, as deep as the API server has it. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # orjson ends at 1,024 levels, and says nothing else of that kind


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own iteration breaks off at 4 MiB, and what is stored as 1.5 may be 9 here."""
    rest: list[bytes] = []
    async for chunk in content.iter_chunked(_CHUNK):
        *complete, last = chunk.split(b"\n")
        for line in complete:
            rest.append(line)
            yield b"".join(rest)
            rest.clear()
        rest.append(last)


def _why(error: Exception) -> str:
    return network.why(
        error,
        trust="check the authority in the kubeconfig, or the one that the cluster gives its pods",
        plain="check the address of the API server",
    )


async def _reason(response: aiohttp.ClientResponse) -> str:
    try:
        text = (await response.read())[:65_536]
        return str(orjson.loads(text).get("message") or response.reason)[:1000]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AttributeError):
        return str(response.reason)


class Reflector(Generic[T]):
    """A copy of one collection, as far as ``project`` keeps it; ``changed`` hears of each change.

    ``project`` gives None for objects that are not wanted. ``changed`` gets the key, and what is there now (None
    where it is gone); what is equal to what was there is no change.
    """

    def __init__(
        self,
        kube: Kube,
        where: str,
        *,
        project: Callable[[Object], T | None],
        changed: Callable[[Key, T | None, T | None], None],
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
        unknown: str = "",
    ) -> None:
        """``unknown`` says what is not there, and what to do, where the API server has no such collection."""
        self.items: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self.trouble = ""
        """Why the last try to list or watch it failed, in one sentence; empty while it is current."""
        self._kube = kube
        self._where = where
        self._project = project
        self._changed = changed
        self._selector = selector
        self._fields = fields
        self._metadata_only = metadata_only
        self._unknown = unknown

    async def run(self) -> None:
        """Keep the copy current, for ever."""
        version, attempts = "", 0
        while True:
            try:
                if not version:
                    version = await self._relist()
                    attempts, self.trouble = 0, ""
                async for kind, found in self._kube.watch(
                    self._where,
                    version,
                    selector=self._selector,
                    fields=self._fields,
                    metadata_only=self._metadata_only,
                ):
                    version, attempts, self.trouble = found["metadata"]["resourceVersion"], 0, ""
                    if kind != "BOOKMARK":
                        self._take(found, gone=kind == "DELETED")
            except KubeError as error:
                if error.status == _GONE:
                    version = ""
                    continue
                attempts += 1
                self.trouble = f"watching {self._where}: {error}"
                if error.status == _NOT_FOUND and self._unknown:
                    self.trouble = f"the API server does not know {self._unknown}"
                if attempts == 1:
                    log.warning("%s", self.trouble)
                if error.status:
                    version = ""
                pause = min(0.5 * 2 ** min(attempts, 8), _PAUSE_LAST_S)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _relist(self) -> str:
        there, version = set[Key](), ""
        async for page, at in self._kube.pages(
            self._where, selector=self._selector, fields=self._fields, metadata_only=self._metadata_only
        ):
            version = at
            for each in page:
                self._take(each, gone=False)
                if (key := key_of(each)) in self.items:
                    there.add(key)
        for key in self.items.keys() - there:
            self._changed(key, self.items.pop(key), None)
        self.synced.set()
        return version

    def _take(self, found: Object, *, gone: bool) -> None:
        key = key_of(found)
        new = None if gone else self._project(found)
        old = self.items.get(key)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        if new != old:
            self._changed(key, old, new)


def key_of(found: Object) -> Key:
    """Namespace and name of an object."""
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]
