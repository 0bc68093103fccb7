"""``http_fetch`` and ``http_post``: what ``spec.egress`` allows, asked by the host on the guest's behalf.

A response is JSON, and so is what went wrong (``http_message``); both are counted. aiohttp is loaded where a plugin has
the permission and a rule, and nowhere else: all that a plugin without a rule asks is denied by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.permissions import grants
from hookline_runtime.host.arguments import U32, read
from hookline_runtime.host.http_message import (
    MAX_BODY,
    MAX_REQUEST,
    MAX_URL,
    HttpError,
    Request,
    Response,
    checked_headers,
    checked_url,
    read_request,
    write_error,
    write_response,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.host.http_client import HttpClient

_MAX_TYPE: Final = 256
"""Bytes of a content type."""


class HttpFunctions:
    """The requests of one plugin."""

    def __init__(self, plugin: BundlePlugin, *, unavailable: dict[str, str], refused: MutableMapping[str, int]) -> None:
        """``refused`` counts, by function, what came to no response. Raises ConfigError."""
        self._refused = refused
        self._client: HttpClient | None = None
        if plugin.egress and grants(plugin.permissions, HOST_FUNCTIONS["hookline", "http_fetch"].permission or ""):
            from hookline_runtime.host.backends.http import HttpBackend  # noqa: PLC0415 - it loads aiohttp
            from hookline_runtime.host.http_client import HttpClient  # noqa: PLC0415 - most plugins ask nobody

            self._client = HttpClient(plugin, unavailable, HttpBackend)

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """By name of the import."""
        return {"http_fetch": self._http_fetch, "http_post": self._http_post}

    def close(self) -> None:
        """End what is on its way, and every connection."""
        if self._client is not None:
            self._client.close()

    async def _http_fetch(self, memory: GuestMemory, request: int, length: int) -> bytes:
        try:
            asked = read_request(_read(memory, request, length, MAX_REQUEST, "the request"))
            return write_response(await self._fetch(asked))
        except HttpError as error:
            return self._told("http_fetch", error)

    async def _http_post(
        self, memory: GuestMemory, url: int, url_len: int, kind: int, kind_len: int, body: int, body_len: int
    ) -> bytes:
        try:
            kind_given = _text(_read(memory, kind, kind_len, _MAX_TYPE, "the content type"))
            asked = Request(
                method="POST",
                url=checked_url(_text(_read(memory, url, url_len, MAX_URL, "the url"))),
                headers=checked_headers({"content-type": kind_given} if kind_given else None),
                body=_read(memory, body, body_len, MAX_BODY, "the request's body"),
            )
            return write_response(await self._fetch(asked))
        except HttpError as error:
            return self._told("http_post", error)

    def _fetch(self, request: Request) -> Awaitable[Response]:
        if self._client is None:
            raise HttpError("denied", "spec.egress has no rule, so nothing may be asked")
        return self._client.fetch(request)

    def _told(self, name: str, error: HttpError) -> bytes:
        self._refused[name] = self._refused.get(name, 0) + 1
        return write_error(error)


def _read(memory: GuestMemory, pointer: int, length: int, most: int, what: str) -> bytes:
    if length & U32 > most:
        raise HttpError("limit", f"{what} is larger than {most} bytes")
    return read(memory, pointer, length)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HttpError("failed", "the url and the content type are UTF-8") from None
