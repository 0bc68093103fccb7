"""One namespace for all tests of this folder: proxies whose plugins ask PostgreSQL, Valkey and a server of keys."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from installation import HOOKS, ROOT, Installation, Load, Proxy, Tenant, answer, until
from outside import AUTHORITY, Outside, new_password
from tokens import SigningKey, published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from local_registry import LocalRegistry

PLUGINS: Final = ("jwt-auth", "grants", "tenant-rate")
USER: Final = "hookline"
"""Who logs in to both stores."""
ISSUER: Final = "https://login.example.com/"
TABLE: Final = f"""
create schema access;
grant usage on schema access to {USER};
create table access.grants (
  principal text not null, tenant text, action text not null, resource text not null,
  effect text not null default 'allow'
);
insert into access.grants values
  ('role:staff', null, '*', '/', 'allow'),
  ('user:ann', null, '*', '/secrets', 'deny'),
  ('user:bob', 'acme', 'GET', '/reports', 'allow');
grant select on access.grants to {USER};
"""
# A machine that has much else to do is slow, and that is no failure: whatever is asked may take its time.
_SETTINGS: Final = HOOKS | {"proxy_read_timeout 2s": "proxy_read_timeout 60s", "timeout 250ms": "timeout 30s"}
_LIMITS: Final = {"timeout": "5s", "wait": "30s", "memory": "64Mi"}
WORKERS: Final = 2
DAY_MS: Final = 86_400_000
QUERIES: Final = 30
"""What a tenant may ask in a day."""


class Scene:
    """The namespace, as it is before each test."""

    def __init__(self, tenant: Tenant, registry: LocalRegistry, folder: Path) -> None:
        self.tenant = tenant
        self.key = SigningKey(name="first")
        self.outside = Outside(tenant, folder)
        self.postgres = self.outside.postgres(sql=TABLE, **{USER: new_password()})
        self.valkey = self.outside.valkey(**{USER: new_password()})
        self.keys = self.outside.key_server(published(self.key))
        tenant.secret("valkey-user", user=USER)
        self._specs = {name: _example(name, registry) for name in PLUGINS}
        self.pods: list[Proxy] = []
        self.numbers = itertools.count()

    def complete(self) -> None:
        """Apply all plugins and start three proxies, with two workers each; back when all is ready."""
        for name in PLUGINS:
            self.apply(name)
        self.pods = self.tenant.proxies(3, workers=WORKERS, settings=_SETTINGS)
        for server in (self.postgres, self.valkey, self.keys):
            server.ready()
        for name in PLUGINS:
            self.tenant.ready(name)

    def apply(self, name: str, **changes: Any) -> None:
        """Apply a plugin of the examples, as this scene needs it."""
        ours: Mapping[str, Any] = getattr(self, f"_{name.replace('-', '_')}")()
        spec = {**self._specs[name], "limits": _LIMITS, **ours, **changes}
        resource = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name}}
        self.tenant.apply(resource | {"spec": spec})

    def _jwt_auth(self) -> dict[str, Any]:
        # Keys are looked for each two seconds, so that a test need not wait longer for those that are gone.
        rule = {
            "host": self.keys.host,
            "port": self.keys.port,
            "addresses": [self.keys.address],
            "paths": ["/keys.json"],
            "caFrom": {"name": AUTHORITY, "key": "ca.crt"},
        }
        config = {
            "issuer": ISSUER, "audiences": ["orders"], "algorithms": ["ES256"], "keys_seconds": 2,
            "refetch_seconds": 1, "fetch_ms": 10_000, "jwks_url": f"https://{self.keys.host}:{self.keys.port}/keys.json",
        }  # fmt: skip
        return {"config": config, "egress": [rule], "caches": [{"name": "keys", "valkey": self._server()}]}

    def _grants(self) -> dict[str, Any]:
        postgres = {
            "host": self.postgres.host,
            "database": "postgres",
            "user": USER,
            "passwordFrom": {"name": "postgres-passwords", "key": USER},
            "tls": {"caFrom": {"name": AUTHORITY, "key": "ca.crt"}},
            "poolSize": WORKERS,  # one for each
            "statementTimeout": "20s",
        }
        # Nothing is remembered: each request is a query.
        config = {"table": "access.grants", "cache_ms": 0}
        return {"config": config, "dataSources": [{"name": "grants", "postgres": postgres}]}

    def _tenant_rate(self) -> dict[str, Any]:
        config = {"queries": QUERIES, "window_ms": DAY_MS}
        return {"config": config, "kv": {"scope": "Cluster", "valkey": self._server()}}

    def _server(self) -> dict[str, Any]:
        return {
            "url": f"rediss://{self.valkey.host}:{self.valkey.port}/0",
            "usernameFrom": {"name": "valkey-user", "key": "user"},
            "passwordFrom": {"name": "valkey-passwords", "key": USER},
            "tls": {"caFrom": {"name": AUTHORITY, "key": "ca.crt"}},
            "timeout": "5s",
        }

    # ── what clients do ──

    def bearer(self, user: str, *, key: SigningKey | None = None, **claims: Any) -> dict[str, str]:
        """The headers of a user's request."""
        claims = {"iss": ISSUER, "aud": "orders", "sub": user, **claims}
        return {"authorization": f"Bearer {(key or self.key).token(claims)}"}

    def asks(self, path: str, headers: Mapping[str, str]) -> list[tuple[int, str]]:
        """What each pod answers to this request: 200 and its text, or a status without one."""
        found = [answer(pod.url + path, headers) for pod in self.pods]
        return [(status, text if status == 200 else "") for status, text in found]

    def load(self, headers: Mapping[str, str]) -> Load:
        """Clients of all pods, each of whose requests is for another path."""
        number = itertools.count()
        return Load(self.pods, rate=20, headers=headers, path=lambda: f"orders/{next(number)}")

    def query(self, pod: Proxy, tenant: str) -> str:
        """What a query of this tenant gets: ``continue`` or ``block``."""
        context = {"attributes": {"tenant_id": tenant}}
        return str(pod.hook("pre_query", {"query": "select 1", "hook_context": context})["action"])

    def warm(self, headers: Mapping[str, str]) -> None:
        """Back when each worker of each pod has a connection to the database."""
        wanted = {pod.address: WORKERS for pod in self.pods}

        def connected() -> bool:
            with ThreadPoolExecutor(8) as pool:  # so many at once are more than one worker gets
                list(pool.map(lambda number: self.asks(f"warm/{number}", headers), range(8)))
            return Counter(self.sessions().values()) == wanted

        until(connected, "a connection of each worker")

    # ── what the database knows ──

    def sessions(self) -> dict[str, str]:
        """By its process number, from which address each connection of ours is."""
        sql = f"select pid, client_addr from pg_stat_activity where usename = '{USER}'"
        rows = self.postgres.runs("psql", "--tuples-only", "--no-align", "--command", sql).split()
        return dict(row.split("|") for row in rows)

    def alter_password(self, password: str) -> None:
        """Another password for our user, in the database alone."""
        quoted = password.replace("'", "''")
        self.postgres.runs("psql", "--quiet", "--command", f"alter role {USER} password '{quoted}'")


@pytest.fixture(scope="module")
def scene(
    installation: Installation, registry: LocalRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """All of it, ready."""
    installation.load("postgres", "valkey")
    out = tmp_path_factory.mktemp("plugins")
    build = [sys.executable, ROOT / "examples" / "build.py", "--out", out, "--only", ",".join(PLUGINS)]
    subprocess.run(build, check=True, capture_output=True)
    for name in PLUGINS:
        registry.push(f"plugins/{name}:1.0.0", (out / f"{name}.wasm").read_bytes())
    with installation.cluster.namespace("host-functions") as namespace:
        tenant = Tenant(installation.cluster, namespace).prepare()
        made = Scene(tenant, registry, tmp_path_factory.mktemp("authority"))
        made.complete()
        yield made


def _example(name: str, registry: LocalRegistry) -> dict[str, Any]:
    """The spec that the example comes with, but from our registry."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "plugins" / name / "wasmplugin.yaml").read_text())[
        "spec"
    ]
    spec["source"] = {"oci": {"reference": f"{registry.host}/plugins/{name}:1.0.0", "insecure": True}}
    return spec
