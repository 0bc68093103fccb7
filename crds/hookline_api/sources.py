"""What can be said of what a plugin asks outside its pod, from its settings alone: names, and what is idle or unsafe.

Operator, webhook, sidecar and metrics say it in these words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.outbound import CACHE, DATA_SOURCE, EGRESS_HOST, KEYS

if TYPE_CHECKING:
    from collections.abc import Collection

    from hookline_api.outbound import Outbound, PostgresTls, ValkeyServer

MAX_UNAVAILABLE: Final = 8
"""Of one plugin in a report: all of its data sources, or some of what it asks."""
_QUERY: Final = "query.execute"
_QUERY_ONE: Final = f"{_QUERY}:"
_PLAIN: Final = ("redis://", "valkey://")


def source_names(outbound: Outbound, kv: ValkeyServer | None) -> list[str]:
    """What a plugin asks outside its pod and its resource names, as people read it: no host behind a ``*``."""
    found = [DATA_SOURCE.format(each.name) for each in outbound.data_sources]
    found += [CACHE.format(each.name) for each in outbound.caches if each.valkey is not None]
    found += [KEYS] if kv is not None else []
    hosts = dict.fromkeys(rule.host.lower() for rule in outbound.egress if "*" not in rule.host)
    return found + [EGRESS_HOST.format(host) for host in hosts]


def idle_parts(outbound: Outbound, permissions: Collection[str]) -> list[str]:
    """What permissions and sources have no use without each other, one sentence each, with the field's path."""
    names = {each.name for each in outbound.data_sources}
    narrowed = sorted(each.partition(":")[2] for each in permissions if each.startswith(_QUERY_ONE))
    found = [
        f"permissions: {_QUERY_ONE}{name} is for no data source: spec.dataSources has no '{name}'"
        for name in narrowed
        if name not in names
    ]
    if _QUERY not in permissions and narrowed:
        found += [
            f"dataSources.{name}: no permission is for it, and each query to it is denied; add {_QUERY_ONE}{name}"
            for name in sorted(names.difference(narrowed))
        ]
    return found


def in_the_clear(outbound: Outbound, kv: ValkeyServer | None) -> list[str]:
    """What can be read or forged on the way to what the plugin reaches, one sentence each, with the field's path."""
    found = [
        f"dataSources.{each.name}.postgres.tls.mode: {_meaning(each.postgres.tls)}"
        for each in outbound.data_sources
        if each.postgres.tls.mode != "VerifyFull"
    ]
    servers = {f"caches.{each.name}.valkey": each.valkey for each in outbound.caches} | {"kv.valkey": kv}
    found += [
        f"{path}.url: without TLS, whoever is on the way reads the password; write rediss://"
        for path, server in servers.items()
        if server is not None and server.password_from is not None and (server.url or "").startswith(_PLAIN)
    ]
    return found + [
        f"egress[{number}].credential: with http, whoever is on the way reads it"
        for number, rule in enumerate(outbound.egress)
        if rule.scheme == "http" and rule.credential is not None
    ]


def _meaning(tls: PostgresTls) -> str:
    if tls.mode == "Disable":
        return "with Disable, whoever is on the way reads queries and rows, and can change them"
    if tls.ca_from is None:
        return "with Require, whoever answers is believed to be the server"
    return "with Require, whoever has a certificate of that authority is believed to be the server"
