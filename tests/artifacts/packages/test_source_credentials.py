"""Values of Secrets that data sources, caches, egress and keys name: found, bounded, and told by their path alone."""

from __future__ import annotations

import pytest
import wasmtime

from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.bundle import BundlePlugin
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.entry import MAX_CREDENTIAL, MAX_CREDENTIALS, check_credentials
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.resolve import resolve
from hookline_artifacts.store import ArtifactStore
from hookline_sidecar.control.sources.manifests import Scan

_TYPES = {"i": "i32", "I": "i64"}
KEY = b"k" * 32


def ref(key, name="s"):
    """A key of a Secret."""
    return {"name": name, "key": key}


POSTGRES = {"host": "db.test", "database": "d", "user": "u"}
ALL = {
    "permissions": ["query.execute", "http.fetch"],
    "dataSources": [{"name": "grants", "postgres": POSTGRES | {
        "passwordFrom": ref("password"),
        "tls": {"caFrom": ref("ca"), "certificateFrom": ref("certificate"), "keyFrom": ref("key")},
    }}],
    "caches": [{"name": "hot", "valkey": {"urlFrom": ref("url"), "usernameFrom": ref("user")}}],
    "egress": [{"host": "api.test"}, {"host": "b.test", "credential": {"valueFrom": ref("token", "other")}}],
    "kv": {"scope": "Cluster", "valkey": {"url": "redis://kv.test", "passwordFrom": ref("password", "other")}},
}  # fmt: skip
PATHS = {
    "s/password": "dataSources.grants.postgres.passwordFrom", "s/ca": "dataSources.grants.postgres.tls.caFrom",
    "s/certificate": "dataSources.grants.postgres.tls.certificateFrom",
    "s/key": "dataSources.grants.postgres.tls.keyFrom", "s/url": "caches.hot.valkey.urlFrom",
    "s/user": "caches.hot.valkey.usernameFrom", "other/token": "egress[1].credential.valueFrom",
    "other/password": "kv.valkey.passwordFrom",
}  # fmt: skip


def module(*imports):
    """A module that imports these functions of ``hookline``."""
    parts = []
    for name in imports:
        function = HOST_FUNCTIONS["hookline", name]
        params = " ".join(_TYPES[each] for each in function.params)
        parts.append(f'(import "hookline" "{name}" (func (param {params}) (result {_TYPES[function.results]})))')
    rest = '(memory (export "memory") 2) (func (export "alloc") (param i32) (result i32) (i32.const 65536))'
    hook = '(func (export "route") (param i32 i32) (result i64) (i64.const 0))'
    return bytes(wasmtime.wat2wasm(f"(module {' '.join(parts)} {rest} {hook})"))


@pytest.fixture
async def resolved(tmp_path):
    """Resolves a plugin with this spec, where there are these Secrets."""
    fetcher = Fetcher(ArtifactStore(tmp_path / "store"))

    async def make(spec, secrets=None, *, content=None):
        (tmp_path / "p.wasm").write_bytes(module() if content is None else content)
        document = {"metadata": {"name": "p"}, "spec": {"source": {"file": {"path": "p.wasm"}}, **spec}}
        plugin = LocalWasmPlugin.model_validate(document)
        objects = Scan(manifests={}, problems=(), secrets=secrets or {}, config_maps={})
        return await resolve(plugin, fetcher=fetcher, objects=objects, base=tmp_path, key=KEY)

    yield make
    await fetcher.close()


def secrets(**changes):
    """All that ``ALL`` names, each value its own path's; a change of None takes one away."""
    found: dict[str, dict[str, bytes]] = {"s": {}, "other": {}}
    for each, path in PATHS.items():
        name, _, key = each.partition("/")
        found[name][key] = path.encode()
    for key, value in changes.items():
        found["s"] = {name: data for name, data in found["s"].items() if name != key}
        if value is not None:
            found["s"][key] = value
    return found


async def test_every_value_that_a_resource_names_is_in_its_entry(resolved):
    """By Secret and key, as text; the entry is sealed, and shows none of them where it is redacted."""
    entry = (await resolved(ALL, secrets())).entry
    assert entry.credentials == PATHS
    assert entry.seal is not None
    shown = entry.redacted().model_dump_json(by_alias=True)
    assert not [value for value in PATHS.values() if value in shown]
    assert not [value for value in PATHS.values() if value in repr(entry)]
    other = (await resolved(ALL, secrets(password=b"rotated"))).entry
    assert other.revision != entry.revision
    assert BundlePlugin.model_validate_json(entry.model_dump_json(by_alias=True)).revision == entry.revision


@pytest.mark.parametrize("gone", PATHS)
async def test_a_value_that_is_missing_is_told_by_the_field_that_names_it(resolved, gone):
    """The path, the Secret and the key: what a person has to mend."""
    name, _, key = gone.partition("/")
    found = secrets()
    del found[name][key]
    with pytest.raises(ConfigError) as caught:
        await resolved(ALL, found)
    missing = f"{PATHS[gone]}: there is no Secret '{name}' with the key '{key}'"
    assert str(caught.value).startswith(f"{missing}; that Secret " + ("has " if found[name] else "is empty"))
    assert all(value.decode() not in str(caught.value) for value in found[name].values())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"\xffsecret", "the key 'ca' of the Secret 's' is not text in UTF-8"),
        (b"x" * (MAX_CREDENTIAL + 1), "the key 'ca' of the Secret 's' has more than 65536 bytes"),
        ("é".encode() * (MAX_CREDENTIAL // 2 + 1), "the key 'ca' of the Secret 's' has more than 65536 bytes"),
    ],
    ids=["not text", "too long", "too many bytes"],
)
async def test_a_value_that_cannot_be_taken_is_told_without_it(resolved, value, says):
    """Which key of which Secret, and why."""
    with pytest.raises(ConfigError) as caught:
        await resolved(ALL, secrets(ca=value))
    assert says in str(caught.value)
    assert "secret" not in str(caught.value).replace("Secret", "")


def test_all_values_together_are_bounded():
    """At the bound and one byte above."""
    largest = {f"s/{each}": "x" * MAX_CREDENTIAL for each in range(MAX_CREDENTIALS // MAX_CREDENTIAL)}
    check_credentials(largest)
    with pytest.raises(ConfigError, match="more than 262144 bytes together"):
        check_credentials(largest | {"s/more": "x"})


@pytest.mark.parametrize(
    ("imports", "spec", "says"),
    [
        (["query_execute", "query_normalize"], {"permissions": ["query.execute"]},
         "the module imports hookline.query_execute, and spec.dataSources names no database: each query is refused"),
        (["http_post"], {"permissions": ["http.fetch"]},
         "the module imports hookline.http_post, and spec.egress allows no host: each request is refused"),
        ([], {"permissions": ["query.execute:orders"]},
         "spec.permissions: query.execute:orders is for no data source: spec.dataSources has no 'orders'"),
        (["query_execute"], {"permissions": ["query.execute:b"], "dataSources": [
            {"name": "a", "postgres": POSTGRES}, {"name": "b", "postgres": POSTGRES}]},
         "spec.dataSources.a: no permission is for it, and each query to it is denied; add query.execute:a"),
        (["query_get_tables"], {"permissions": ["query.execute"]}, None),
        (["query_execute"], {"permissions": ["query.execute:a"], "dataSources": [{"name": "a", "postgres": POSTGRES}]},
         None),
        (["http_fetch"], {"permissions": ["http.fetch"], "egress": [{"host": "api.test"}]}, None),
    ],
)  # fmt: skip
async def test_what_can_do_nothing_without_another_setting_is_a_note(resolved, imports, spec, says):
    """It is loaded; functions that need no database need none."""
    made = await resolved(spec, content=module(*imports))
    assert list(made.notes) == ([] if says is None else [says])
    assert made.ungranted == []
