"""What a pod without credentials can do: connections, and JSON that is dear to read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Final, Literal

from exhaustion import connections, payloads
from exhaustion.catalogue import Where, attack, begun, opener, plain, ran
from exhaustion.resources import plugin_of, review_of

_HEADS: Final = 400
_LINES: Final = 120
"""Of 8 KB each, which is about what aiohttp takes by default: 1 MB for one head."""


def _heads(port: str, entry: int, program: Literal["sidecar", "operator"], what: str, path: str = "/healthz") -> None:
    @attack(f"{program}-heads-{port}", entry, program, f"{_HEADS} connections to {what} with heads that never end")
    def run(where: Where, seconds: float) -> dict[str, int]:
        begun()
        return ran(
            connections.unfinished_heads(opener(where, port), count=_HEADS, lines=_LINES, seconds=seconds, path=path)
        )


_heads("public", 1, "sidecar", "the port of health and metrics")
_heads("hooks", 1, "sidecar", "the hook port", "/v1/hooks/custom_hook")
_heads("https", 1, "operator", "the operator's HTTPS port")
_heads("health", 1, "operator", "the operator's port of health and metrics")


def _others(port: str, program: Literal["sidecar", "operator"], what: str, body_path: str) -> None:
    @attack(f"{program}-drips-{port}", 1, program, f"300 heads and 100 bodies to {what}, a byte each fifth of a second")
    def drips(where: Where, seconds: float) -> dict[str, int]:
        async def both() -> Counter[str]:
            opened = opener(where, port)
            heads, rest = await asyncio.gather(
                connections.dripping_heads(opened, count=300, seconds=seconds),
                connections.dripping_bodies(opened, count=100, seconds=seconds, path=body_path),
            )
            return heads + rest

        begun()
        return ran(both())

    @attack(f"{program}-flood-{port}", 1, program, f"2,000 connections to {what} that say nothing")
    def flood(where: Where, seconds: float) -> dict[str, int]:
        begun()
        return ran(connections.idle_connections(plain(where, port), count=2000, seconds=seconds))

    @attack(f"{program}-crowd-{port}", 1, program, f"1,000 connections to {what} that say nothing, from 250 addresses")
    def crowd(where: Where, seconds: float) -> dict[str, int]:
        begun()
        return ran(connections.idle_connections(plain(where, port, sources=250), count=1000, seconds=seconds))


_others("public", "sidecar", "the port of health and metrics", "/metrics")
_others("hooks", "sidecar", "the hook port", "/v1/hooks/custom_hook")
_others("https", "operator", "the operator's HTTPS port", "/webhooks/validate")
_others("health", "operator", "the operator's port of health and metrics", "/metrics")


@attack("sidecar-readers-public", 1, "sidecar", "200 connections that ask for metrics 200 times and read nothing")
def _readers_public(where: Where, seconds: float) -> dict[str, int]:
    request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    begun()
    opened = opener(where, "public")
    return ran(connections.slow_readers(opened, count=200, requests=200, seconds=seconds, request=request))


@attack(
    "sidecar-readers-hooks", 1, "sidecar", "100 connections with 200 hook calls of 64 KiB each, and nothing is read"
)
def _readers_hooks(where: Where, seconds: float) -> dict[str, int]:
    body = b'"' + b"a" * 2**16 + b'"'
    head = (
        "POST /v1/hooks/custom_hook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    begun()
    return ran(
        connections.slow_readers(
            opener(where, "hooks"), count=100, requests=200, seconds=seconds, request=head.encode() + body
        )
    )


@attack("operator-readers-health", 1, "operator", "200 connections that ask for metrics 200 times and read nothing")
def _readers_health(where: Where, seconds: float) -> dict[str, int]:
    request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    begun()
    opened = opener(where, "health")
    return ran(connections.slow_readers(opened, count=200, requests=200, seconds=seconds, request=request))


# ── JSON ──


@attack("sidecar-json-hook", 2, "sidecar", "hook calls of 16 MiB of `{},{},…`, two at a time")
def _json_hook(where: Where, seconds: float) -> dict[str, int]:
    body = payloads.commas(16 * 2**20 - 1024)
    begun()
    return ran(
        connections.bodies(opener(where, "hooks"), count=2, seconds=seconds, path="/v1/hooks/custom_hook", body=body)
    )


@attack(
    "operator-json-webhook", 2, "operator", "reviews of 8 MiB of `{},{},…` to the validating webhook, two at a time"
)
def _json_webhook(where: Where, seconds: float) -> dict[str, int]:
    resource = plugin_of("x", {"configMap": {"name": "x"}}, config={"list": "HERE"})
    outer = json.dumps(review_of(resource)).encode()
    body = outer.replace(b'"HERE"', payloads.commas(8 * 2**20 - 2048))
    begun()
    return ran(
        connections.bodies(opener(where, "https"), count=2, seconds=seconds, path="/webhooks/validate", body=body)
    )
