"""What example plugins reach, real: an issuer of tokens with a certificate of an own authority, PostgreSQL, Redis.

A case of ``cases.json`` says what is there (examples/README.md, "cases.json"); ``Reached`` makes it so, and says with
which settings and Secrets a plugin finds it.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import postgres
from example_plugins import written_out

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from http_guests import Site
    from valkey import RedisServer

SECRET = "reached"
KEYS_PATH = "/.well-known/jwks.json"
_GRANTS = Path(__file__).parents[2] / "examples" / "plugins" / "grants" / "src" / "lib.rs"

_ROUND_S = 2 * 86_400

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def coded(data: bytes) -> str:
    """As tokens and keys have bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _of_number(number: int) -> str:
    return coded(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def new_key(algorithm: str) -> Private:
    """A key for ``RS256``, ``ES256`` or ``EdDSA``; ``RS256-1024`` is one that is too short."""
    if algorithm.startswith("RS256"):
        return rsa.generate_private_key(65_537, 1024 if algorithm.endswith("1024") else 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public(key: Private) -> dict[str, str]:
    """The public part, RFC 7518 section 6 and RFC 8037."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": _of_number(numbers.n), "e": _of_number(numbers.e)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": coded(point.x.to_bytes(32)), "y": coded(point.y.to_bytes(32))}
    return {"kty": "OKP", "crv": "Ed25519", "x": coded(key.public_key().public_bytes_raw())}


def signature(key: Private, data: bytes) -> bytes:
    """As tokens have it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)
    return key.sign(data)


def clock() -> int:
    """Seconds since 1970, as guests are told."""
    return time.time_ns() // 10**9


@dataclass
class Issuer:
    """Publishes keys on a site, and signs tokens."""

    site: Site
    keys: dict[str, Private] = field(default_factory=dict)
    """By kid and algorithm."""

    def key(self, kid: str, algorithm: str) -> Private:
        """The key of this name, made when it is first named."""
        return self.keys.setdefault(f"{kid}/{algorithm}", new_key(algorithm))

    def publish(self, keys: list[dict[str, Any]] | str) -> None:
        """Answer these keys, of which ``signs`` says the algorithm; or a text as it is, and the empty one with 503."""
        if isinstance(keys, str):
            self.site.page(KEYS_PATH, keys, status=200 if keys else 503)
            return
        made = []
        for each in keys:
            fields = {name: value for name, value in each.items() if name != "signs"}
            made.append(public(self.key(each["kid"], each["signs"])) | fields)
        self.site.page(KEYS_PATH, json.dumps({"keys": made}), cache_control="max-age=3600")

    def token(self, wanted: dict[str, Any]) -> str:
        """As ``$jwt`` describes it.

        ``kid, signs, claims``; ``in`` are claims that are so many seconds from now, ``header`` has more members of it,
        ``signature`` another text in its place.
        """
        signs = wanted.get("signs", "ES256")
        header = {"alg": signs.partition("-")[0], "typ": "JWT", "kid": wanted["kid"]} | wanted.get("header", {})
        header = {name: value for name, value in header.items() if value is not None}
        moments = {name: clock() + seconds for name, seconds in wanted.get("in", {"exp": 3600}).items()}
        parts = [coded(json.dumps(each).encode()) for each in (header, wanted.get("claims", {}) | moments)]
        signed = ".".join(parts)
        made = wanted.get("signature", coded(signature(self.key(wanted["kid"], signs), signed.encode())))
        return f"{signed}.{made}"


@dataclass
class Reached:
    """The real parts of one test. Each is there only where a plugin needs it."""

    folder: Path
    """For Secrets, as a manifest folder has them."""
    monkeypatch: pytest.MonkeyPatch
    issuer: Callable[[], Issuer]
    authority: Callable[[], str]
    database: Callable[[], postgres.Server]
    redis: Callable[[], RedisServer]

    def settings(self, plugin: str, case: dict[str, Any]) -> dict[str, Any]:
        """What this plugin's spec has to say in order to reach them, after they were made as the case has them."""
        make = {"jwt-auth": self._issuer, "grants": self._database, "tenant-rate": self._redis}.get(plugin)
        return {} if make is None else make(case)

    def step(self, step: dict[str, Any]) -> None:
        """What changes before a step of a case."""
        if "issuer" in step:
            self.issuer().publish(step["issuer"])
        if "later" in step:
            self.later(step["later"])
        if "at" in step:
            self.at(step["at"])
        if "grants" in step:
            self.grant(step["grants"])

    def later(self, seconds: float) -> None:
        """Guests are told that so much more time has passed."""
        real, ahead = time.time_ns, round(seconds * 10**9)
        self.monkeypatch.setattr(time, "time_ns", lambda: real() + ahead)

    def at(self, seconds: float) -> None:
        """Guests are told this time, which stands: so long after a moment at which windows of any length begin."""
        begin = clock() // _ROUND_S * _ROUND_S
        moment = begin * 10**9 + round(seconds * 10**9)
        self.monkeypatch.setattr(time, "time_ns", lambda: moment)

    def written(self, value: dict[str, Any]) -> str | None:
        """A text that only these parts can write: a token."""
        return self.issuer().token(written_out(value["$jwt"])) if "$jwt" in value else None

    def grant(self, rows: list[list[str | None]]) -> None:
        """Have these rows alone in the table."""
        document = json.dumps([dict(zip(("principal", "tenant", "action", "resource", "effect"), row, strict=True))
                               for row in rows])  # fmt: skip
        source = f"jsonb_populate_recordset(null::grants, $json${document}$json$)"
        self.database().psql(f"truncate grants; insert into grants select * from {source}")

    def _secret(self, **values: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": values}
        (self.folder / "secret.yaml").write_text(yaml.safe_dump(secret))

    def _issuer(self, case: dict[str, Any]) -> dict[str, Any]:
        issuer = self.issuer()
        issuer.publish(case.get("issuer", ""))
        self._secret(ca=self.authority())
        rule = issuer.site.rule(methods=["GET"], paths=[KEYS_PATH], caFrom={"name": SECRET, "key": "ca"})
        return {"egress": [rule], "config": case["config"] | {"jwks_url": issuer.site.url(KEYS_PATH)}}

    def _database(self, case: dict[str, Any]) -> dict[str, Any]:
        server = self.database()
        # The table is as the plugin's own page has it.
        page = _GRANTS.read_text().partition("//! ```sql")[2].partition("//! ```")[0]
        table = "\n".join(line.removeprefix("//!") for line in page.splitlines())
        server.psql(f"drop table if exists grants; {table}; grant select on grants to {postgres.USER}")
        self.grant(case.get("grants", []))
        self._secret(password=postgres.PASSWORD, ca=server.authority.pem)
        source = {
            "host": server.host, "port": server.port, "database": postgres.DATABASE, "user": postgres.USER,
            "passwordFrom": {"name": SECRET, "key": "password"}, "tls": {"caFrom": {"name": SECRET, "key": "ca"}},
            "statementTimeout": "10s",
        }  # fmt: skip
        return {"dataSources": [{"name": "grants", "postgres": source}]}

    def _redis(self, _: dict[str, Any]) -> dict[str, Any]:
        server = self.redis()
        server.ask("FLUSHALL")
        return {"kv": {"scope": "Cluster", "valkey": {"url": f"redis://127.0.0.1:{server.port}", "timeout": "10s"}}}
