"""The Kubernetes API as the operator uses it: JSON objects by path.

The official client makes the connection, with its certificates and tokens. Its typed models are not used, because the
operator reads three fields of most objects.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from kubernetes.aio import client, config

from hookline_artifacts.net import failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

Object = dict[str, Any]
Page = list[Object]
Key = tuple[str, str]
"""Namespace and name."""

MANAGER: Final = "hookline-operator"
"""The field manager of everything that is applied."""
_TIMEOUT_S: Final = 30.0
_PAGE: Final = 500
_HANGS_S: Final = 10.0
"""A watch that ends so much later than was asked for hangs."""
_MAX_RETRY_AFTER_S: Final = 60.0
_NOT_FOUND: Final = 404
_MAX_LEVELS: Final = 12_000
"""Levels of objects in objects, and so of calls. The API server stores 10,000. A level of JSON takes 200 bytes of
stack."""
_CHUNK: Final = 256 * 1024
_METADATA: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"


class KubeError(Exception):
    """The API server refused, or could not be reached (``status`` 0). ``retry_after`` is in seconds."""

    def __init__(self, status: int, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


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
                # The proxy of the environment is for registries. The API server is in the cluster, and not behind it.
                configuration.client_session_kwargs = {"trust_env": False}
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
        """Send one request, and return the answer's JSON. Raises KubeError."""
        async with self._open(method, where, query, body, content_type, accept, total=_TIMEOUT_S) as response:
            try:
                answer: Object = _parsed(await response.read())
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise KubeError(0, f"the API server's answer was cut off: {_why(error)}") from error
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
        """Server-side apply of exactly these fields, forced over other managers. Raises KubeError."""
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
        async for page, version in self.pages(  # noqa: B007 - the last one counts
            where, selector=selector, fields=fields, metadata_only=metadata_only
        ):
            items += page
        return items, version

    async def pages(
        self, where: str, *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[Page, str]]:
        """The objects of ``list`` page by page, for callers that keep little of each: 20,000 pods are 500 MiB.

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

    async def find(self, where: str, name: str, *, metadata_only: bool = False) -> Object | None:
        """An object by listing its collection, for which the right to list is enough; None where there is none.

        Raises KubeError.
        """
        query = {"fieldSelector": f"metadata.name={name}"}
        accept = _METADATA.format("List") if metadata_only else "application/json"
        page = await self.request("GET", where, query=query, accept=accept)
        return next((each for each in page.get("items") or [] if each["metadata"]["name"] == name), None)

    async def version(self, where: str) -> str:
        """The collection's present version, read with a list of one object's name. Raises KubeError."""
        page = await self.request("GET", where, query={"limit": "1"}, accept=_METADATA.format("List"))
        return str(page["metadata"].get("resourceVersion", ""))

    async def watch(
        self,
        where: str,
        version: str,
        *,
        seconds: int,
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes from a version on: ``ADDED``, ``MODIFIED``, ``DELETED``, ``BOOKMARK``; ends after so many seconds.

        Raises KubeError.
        """
        query = {"watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= _selectors(selector, fields)
        accept = _METADATA.format("") if metadata_only else "application/json"
        async with self._open("GET", where, query, None, "", accept, total=seconds + _HANGS_S) as response:
            try:
                async for line in _lines(response.content):
                    event = _parsed(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise KubeError(int(status.get("code", 0)), str(status.get("message", "")))
                    yield event["type"], event["object"]
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise KubeError(0, f"the watch of {where} was cut off: {_why(error)}") from error

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
                _request_timeout=aiohttp.ClientTimeout(total=total, sock_connect=10),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(0, f"the API server cannot be reached: {_why(error)}") from error
        response: aiohttp.ClientResponse = answer.response
        try:
            if response.status >= 400:  # noqa: PLR2004
                raise KubeError(response.status, await _reason(response), retry_after=_retry_after(response))
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
    return failures.why(
        error,
        trust="check the authority in the kubeconfig, or the one that the cluster gives its pods",
        plain="check the address of the API server",
    )


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that the API server asks for; it never sends a date."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


async def _reason(response: aiohttp.ClientResponse) -> str:
    try:
        text = (await response.read())[:65_536]
        return str(orjson.loads(text).get("message") or response.reason)[:1000]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AttributeError):
        return str(response.reason)


def key_of(found: Object) -> Key:
    """Namespace and name of an object."""
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]
