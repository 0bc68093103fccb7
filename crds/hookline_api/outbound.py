"""What a plugin may reach outside its pod, as its resource says: data sources, caches, stores, and HTTP.

Credentials are never in the resource: each is named as a key of a Secret (``SecretKeyRef``), and whoever makes a bundle
puts its value beside the settings (``BundlePlugin.credentials``), so that it reaches exactly the pods that run the
plugin. No guest sees one.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from hookline_api.base import Name, Resource
from hookline_api.quantities import Duration, Size, bounded, format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SOURCES: Final = 8
MAX_CACHES: Final = 8
"""Each has a size in it, and the API server takes no rule about a size in a list that may be twice as long."""
MAX_EGRESS: Final = 64
LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

Label = Annotated[str, Field(pattern=LABEL_PATTERN, max_length=63)]
"""A name that a guest uses: of a data source, or of a cache."""
DATA_SOURCE: Final = "data source '{}'"
CACHE: Final = "cache '{}'"
KEYS: Final = "kv"
EGRESS_HOST: Final = "egress host '{}'"
"""How people read of what a plugin asks: in statuses, metrics and logs."""
_HOST: Final = r"[A-Za-z0-9_:]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9_:])?"
Host = Annotated[str, Field(pattern=f"^{_HOST}$", max_length=253)]
"""A host name, or an IPv4 or IPv6 address without brackets."""
HostPattern = Annotated[str, Field(pattern=rf"^(\*|(\*\.)?{_HOST})$", max_length=253)]
"""The same, ``*.`` and a domain for all names below it, or ``*`` for all."""
Port = Annotated[int, Field(ge=1, le=65_535)]
VALKEY_PATTERN: Final = (
    r"^(redis|valkey)s?://([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]{0,4})?$"
)
"""A server's URL without credentials: their place is a Secret, and no other part of a URL can hold any here."""


class SecretKeyRef(Resource):
    """One key of a Secret of the plugin's own namespace."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253)]

    @property
    def id(self) -> str:
        """By what its value is found in ``BundlePlugin.credentials``."""
        return f"{self.name}/{self.key}"


class ClientTls(Resource):
    """With which certificates a server is asked, and by which it is known."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.certificateFrom) == has(self.keyFrom)",
                    "message": "certificateFrom and keyFrom belong together",
                }
            ]
        }
    )

    ca_from: SecretKeyRef | None = None
    """The authority that signed the server's certificate, PEM. Default: the system's."""
    certificate_from: SecretKeyRef | None = None
    """Our own certificate, PEM, where the server asks for one."""
    key_from: SecretKeyRef | None = None
    """Its key, PEM."""

    @model_validator(mode="after")
    def _both(self) -> ClientTls:
        if (self.certificate_from is None) != (self.key_from is None):
            raise ValueError("certificateFrom and keyFrom belong together")
        return self


class PostgresTls(ClientTls):
    """How the connection to PostgreSQL is protected."""

    mode: Literal["VerifyFull", "Require", "Disable"] = "VerifyFull"
    """VerifyFull: encrypted, and the server's certificate is checked, with its name. Require: encrypted; whoever
    answers is believed or, with ``caFrom``, whoever that authority has certified. Disable: in the clear. Default
    VerifyFull."""


class PostgresSource(Resource):
    """A PostgreSQL database."""

    host: Host
    port: Port = 5432
    database: Annotated[str, Field(min_length=1, max_length=63)]
    user: Annotated[str, Field(min_length=1, max_length=63)]
    password_from: SecretKeyRef | None = None
    tls: PostgresTls = PostgresTls()
    pool_size: Annotated[int, Field(ge=1, le=64)] = 4
    """Connections of one pod at the most, however many workers it has. Default 4."""
    statement_timeout: Annotated[Duration, bounded(1, 60_000, format_duration)] = 500
    """After which a statement ends with the cause ``timeout``, 1ms to 60s. Default 500ms."""
    access: Literal["ReadOnly", "ReadWrite"] = "ReadOnly"
    """ReadOnly: each statement runs in a read-only transaction. Default ReadOnly."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Rows of one result; more of them is an error with the cause ``limit``. Default 1000."""
    max_bytes: Annotated[Size, bounded(1024, 16 * 2**20, format_size)] = Field(default=2**20, validate_default=True)
    """Bytes of one result as JSON, 1Ki to 16Mi; more is an error with the cause ``limit``. Default 1Mi."""


class DataSource(Resource):
    """A database that the plugin may ask by name."""

    name: Label
    postgres: PostgresSource


class ValkeyServer(Resource):
    """A Valkey or Redis server."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.url) != has(self.urlFrom)", "message": "give exactly one of url, urlFrom"}
            ]
        }
    )

    url: Annotated[str, Field(pattern=VALKEY_PATTERN, max_length=512)] | None = None
    """``redis://host:6379/0``, or ``rediss://`` for TLS. Without credentials: they have fields of their own."""
    url_from: SecretKeyRef | None = None
    """The same from a Secret; there it may hold user and password."""
    username_from: SecretKeyRef | None = None
    password_from: SecretKeyRef | None = None
    tls: ClientTls = ClientTls()
    """For ``rediss://``; the server's certificate is always checked."""
    timeout: Annotated[Duration, bounded(1, 10_000, format_duration)] = 100
    """After which one command counts as not answered, 1ms to 10s. Default 100ms."""

    @model_validator(mode="after")
    def _one(self) -> ValkeyServer:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("give exactly one of url, urlFrom")
        return self


class MemoryCache(Resource):
    """A cache in the pod, which its workers share."""

    size: Annotated[Size, bounded(65_536, 2**30, format_size)] = Field(default=16 * 2**20, validate_default=True)
    """Bytes of keys and values at the most, 64Ki to 1Gi; the least recently used go first. Default 16Mi."""


class Cache(Resource):
    """A cache that the plugin may use by name: in memory, or on a server."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.memory) != has(self.valkey)", "message": "give exactly one of memory, valkey"}
            ]
        }
    )

    name: Label
    memory: MemoryCache | None = None
    valkey: ValkeyServer | None = None
    ttl: Annotated[Duration, bounded(1, 30 * 86_400_000, format_duration)] = 300_000
    """How long an entry lives that the plugin gives no time of its own, 1ms to 720h. Default 5m."""

    @model_validator(mode="after")
    def _one(self) -> Cache:
        if (self.memory is None) == (self.valkey is None):
            raise ValueError("give exactly one of memory, valkey")
        return self


DEFAULT_CACHE: Final = Cache(name="default", memory=MemoryCache())
"""What a plugin has that names no cache."""


_OF_HTTP: Final = (
    "connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade",
)  # fmt: skip
_OF_HTTP_TEXT: Final = "is a header by which HTTP itself works: a credential has another one"


class EgressCredential(Resource):
    """A header that the host adds to each request that a rule allows. The guest does not see it."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.header) || !(self.header.lowerAscii() in ["
                    + ", ".join(f"'{name}'" for name in _OF_HTTP)
                    + "])",
                    "message": _OF_HTTP_TEXT,
                }
            ]
        }
    )

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=64)] = "Authorization"
    prefix: Annotated[str, Field(pattern=r"^[!-~ ]*$", max_length=64)] = ""
    """In front of the value, such as ``Bearer ``. Default: nothing."""
    value_from: SecretKeyRef

    @field_validator("header")
    @classmethod
    def _is_free(cls, given: str) -> str:
        if given.lower() in _OF_HTTP:
            raise ValueError(_OF_HTTP_TEXT)
        return given


_LABEL: Final = 63
_OLD_FORM: Final = re.compile(r"(https?)://([A-Za-z0-9.*-]{1,253})(?::([0-9]{1,5}))?")


_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def _wrong_host(host: str) -> str | None:
    """Why no URL can name a rule's host; None where one can. Odd spellings of addresses are never asked."""
    numeric = _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
    if not numeric and ":" not in host:
        labels = host.removeprefix("*.").split(".")
        return (
            None if all(1 <= len(each) <= _LABEL for each in labels) else "a part of a host's name has 1 to 63 letters"
        )
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "it is neither a name nor an address such as 192.0.2.1 or 2001:db8::1"
    return None


class EgressRule(Resource):
    """Which requests a plugin may make. A request is made where one rule allows all of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.caFrom) || !has(self.scheme) || self.scheme == 'https'",
                    "message": "caFrom is for https alone",
                }
            ]
        }
    )

    scheme: Literal["https", "http"] = "https"
    host: HostPattern
    """A name, an address, ``*.`` and a domain for all names below it, or ``*`` for every name."""
    port: Port | None = None
    """Default: 443 for https, 80 for http."""
    methods: Annotated[
        list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]], Field(max_length=7)
    ] = []
    """Default: GET and HEAD."""
    paths: Annotated[list[Annotated[str, Field(pattern="^/", max_length=1024)]], Field(max_length=32)] = []
    """What a path may begin with, by whole segments: ``/v1`` allows ``/v1`` and ``/v1/keys``. Default: any."""
    addresses: Annotated[
        list[Annotated[str, Field(pattern="^[0-9a-fA-F.:]+(/[0-9]{1,3})?$")]], Field(max_length=16)
    ] = []
    """Private addresses and networks (CIDR) that the host may have. Without them, only public addresses are asked;
    an address as ``host`` names itself."""
    ca_from: SecretKeyRef | None = None
    """The authority that signed the server's certificate, PEM. Default: the system's."""
    credential: EgressCredential | None = None

    @property
    def old_form(self) -> str | None:
        """``scheme://host:port``, where that says all of it."""
        if self.methods or self.paths or self.addresses or self.credential is not None or self.ca_from is not None:
            return None
        text = f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port is not None else "")
        return text if _OLD_FORM.fullmatch(text) else None

    @field_validator("host")
    @classmethod
    def _can_be_asked(cls, given: str) -> str:
        wrong = _wrong_host(given)
        if wrong is not None:
            raise ValueError(wrong)
        return given

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, given: list[str]) -> list[str]:
        for each in given:
            try:
                ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r:.60} is not a network such as 10.1.2.0/24 or fd00::/64") from None
        return given

    @model_validator(mode="after")
    def _encrypted(self) -> EgressRule:
        if self.ca_from is not None and self.scheme == "http":
            raise ValueError("caFrom is for https alone")
        return self

    @model_validator(mode="before")
    @classmethod
    def _from_old_form(cls, given: Any) -> Any:
        """``scheme://host:port``, as it was written while nothing could be fetched."""
        found = _OLD_FORM.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            return given
        scheme, host, port = found.groups()
        return {"scheme": scheme, "host": host} | ({} if port is None else {"port": int(port)})


def _unique(things: list[Any], what: str) -> None:
    names = [each.name for each in things]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"there are two {what} named {', '.join(twice)}")


class Outbound(Resource):
    """The part of a spec that says what the plugin may reach."""

    data_sources: Annotated[
        list[DataSource],
        Field(
            max_length=MAX_SOURCES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Databases that ``query_execute`` may ask, by name."""
    caches: Annotated[
        list[Cache],
        Field(
            max_length=MAX_CACHES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Caches that ``cache_get`` and its kind use, by name; the first where the plugin names none. Default: one of 16Mi
    in memory, named ``default``."""
    egress: Annotated[list[EgressRule], Field(max_length=MAX_EGRESS)] = []
    """What ``http_fetch`` may reach. Default: nothing."""

    @field_validator("data_sources")
    @classmethod
    def _sources_differ(cls, given: list[DataSource]) -> list[DataSource]:
        _unique(given, "dataSources")
        return given

    @field_validator("caches")
    @classmethod
    def _caches_differ(cls, given: list[Cache]) -> list[Cache]:
        _unique(given, "caches")
        return given


def references(*parts: Resource) -> Iterator[tuple[str, SecretKeyRef]]:
    """Every ``SecretKeyRef`` in these settings, with its path in them: ``dataSources.grants.postgres.passwordFrom``."""
    for part in parts:
        yield from _references(part, "")


def _references(value: Any, path: str) -> Iterator[tuple[str, SecretKeyRef]]:
    if isinstance(value, SecretKeyRef):
        yield path, value
    elif isinstance(value, list):
        for number, each in enumerate(value):
            name = getattr(each, "name", None)
            yield from _references(each, f"{path}[{number}]" if name is None else f"{path}.{name}")
    elif isinstance(value, Resource):
        for name, field in type(value).model_fields.items():
            yield from _references(getattr(value, name), f"{path}.{field.alias or name}".lstrip("."))
