"""What a resource says of its sources is checked by the API server, and by the models in the same words."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import ValidationError

from cluster.errors import ClusterError
from hookline_api.resources import WasmPlugin
from hookline_api.sentences import first

SECRET = {"name": "db", "key": "password"}
POSTGRES = {"host": "db.shop.svc", "database": "shop", "user": "hookline"}
VALKEY = {"url": "rediss://cache.shop.svc:6379/0"}


def plugin(**spec):
    """A resource that names a module."""
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"},
        "spec": {"source": {"oci": {"reference": "registry.example.com/guard:1"}}, **spec},
    }  # fmt: skip


def source(name="grants", **postgres):
    """A spec with one database."""
    return {
        "permissions": ["query.execute"], "dataSources": [{"name": name, "postgres": POSTGRES | postgres}],
    }  # fmt: skip


def cache(**fields):
    """A spec with one cache."""
    return {"caches": [{"name": "hot", **fields}]}


def egress(**rule):
    """A spec with one rule."""
    return {"permissions": ["http.fetch"], "egress": [{"host": "api.example.com", **rule}]}


BOTH = [
    ({"dataSources": [{"name": "grants", "postgres": POSTGRES}]}, "dataSources need the permission query.execute"),
    ({"egress": [{"host": "api.example.com"}]}, "egress needs the permission http.fetch"),
    (source(tls={"certificateFrom": SECRET}), "certificateFrom and keyFrom belong together"),
    (cache(valkey=VALKEY | {"tls": {"keyFrom": SECRET}}), "certificateFrom and keyFrom belong together"),
    (cache(), "give exactly one of memory, valkey"),
    (cache(memory={}, valkey=VALKEY), "give exactly one of memory, valkey"),
    (cache(valkey={}), "give exactly one of url, urlFrom"),
    (cache(valkey=VALKEY | {"urlFrom": SECRET}), "give exactly one of url, urlFrom"),
    ({"kv": {"scope": "Cluster"}}, "scope: Cluster needs kv.valkey, and nothing else takes it"),
    ({"kv": {"valkey": VALKEY}}, "scope: Cluster needs kv.valkey, and nothing else takes it"),
    (egress(credential={"header": "Host", "valueFrom": SECRET}), "is a header by which HTTP itself works"),
    (egress(credential={"header": "transfer-Encoding", "valueFrom": SECRET}), "is a header by which HTTP itself works"),
    (egress(scheme="http", caFrom=SECRET), "caFrom is for https alone"),
    (source(statementTimeout="2m"), "2m is not between 1ms and 1m"),
    (source(maxBytes="1Gi"), "is not between 1Ki and 16Mi"),
    (source(maxBytes=1), "is not between 1Ki and 16Mi"),
    (cache(memory={"size": "1Ki"}), "is not between 64Ki and 1Gi"),
    (cache(memory={}, ttl="9999h"), "is not between 1ms and 720h"),
]


NEITHER = [
    source(name="Grants"), source(host="*.shop.svc"), source(host="db:5432/x"), source(port=0), source(access="All"),
    source(tls={"mode": "Maybe"}), source(passwordFrom="hunter2"), source(poolSize=0),
    {"permissions": ["query.execute"], "dataSources": [{"name": "a", "postgres": POSTGRES}] * 2},
    cache(valkey={"url": "redis://user:hunter2@cache:6379"}), cache(valkey={"url": "redis://cache?password=x"}),
    cache(valkey={"url": "http://cache"}), egress(host="api.example.com/v1"), egress(paths=["v1"]),
    egress(methods=["TRACE"]), egress(credential={"header": "a b", "valueFrom": SECRET}),
    egress(credential={"prefix": "a\r\nb", "valueFrom": SECRET}), egress(addresses=["10.0.0.0/x"]),
]  # fmt: skip


RIGHT = [
    source(), source(host="::1"), source(host="192.0.2.1", port=1, maxBytes=1024, statementTimeout="1m"),
    source(passwordFrom=SECRET, maxBytes="16Mi",
       tls={"mode": "VerifyFull", "caFrom": SECRET, "certificateFrom": SECRET, "keyFrom": SECRET}),
    source() | {"permissions": ["query.execute:grants"]},
    cache(memory={}), cache(memory={"size": "64Ki"}, ttl="1ms"), cache(valkey=VALKEY), cache(memory={"size": 2**30}),
    cache(valkey={"url": "valkey://[::1]:6379"}), cache(valkey={"urlFrom": SECRET, "passwordFrom": SECRET}),
    {"kv": {"scope": "Cluster", "valkey": VALKEY}, "failurePolicy": {"store": "PodLocal"}},
    egress(), egress(host="*.example.com", port=8443, methods=["POST"], paths=["/v1"], addresses=["10.0.0.0/8"]),
    egress(host="*"), egress(caFrom=SECRET), egress(credential={"header": "X-Api-Key", "valueFrom": SECRET}),
    {"limits": {"wait": "60s"}},
    {"permissions": ["query.execute"], "caches": [{"name": f"c{each}", "memory": {}} for each in range(8)],
     "dataSources": [{"name": f"d{each}", "postgres": POSTGRES} for each in range(8)]},
]  # fmt: skip


MANY = {
    "permissions": ["query.execute"], "dataSources": [{"name": f"d{each}", "postgres": POSTGRES} for each in range(9)],
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(control_plane, crd):
    """What the API server says of a spec that it does not take; None where it does. All are asked about at once."""
    specs = [spec for spec, _ in BOTH] + NEITHER + RIGHT + [MANY]
    objects = [plugin(**spec) | {"metadata": {"name": f"case-{number}"}} for number, spec in enumerate(specs)]
    flags = ("--dry-run=server", "--validate=false", "--namespace=default", "--filename=-")
    with pytest.raises(ClusterError) as caught:
        control_plane.kubectl("create", *flags, input=yaml.safe_dump_all(objects))
    parts = re.split(r"\"case-(\d+)\" is invalid", str(caught.value))
    said = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    return lambda spec: said.get(specs.index(spec))


@pytest.mark.parametrize(("spec", "says"), BOTH)
def test_what_is_wrong_is_refused_in_the_same_words_by_the_api_server_and_by_a_folder(refused, spec, says):
    """By rules of the definition, without a webhook."""
    assert says in (refused(spec) or "")
    with pytest.raises(ValidationError) as caught:
        WasmPlugin.model_validate(plugin(**spec))
    assert says in first(caught.value) or says.startswith("is not between")


@pytest.mark.parametrize("spec", NEITHER, ids=repr)
def test_what_means_nothing_is_refused_by_both(refused, spec):
    """Names, hosts, URLs with a password, and methods that no rule can allow."""
    assert refused(spec) is not None
    with pytest.raises(ValidationError):
        WasmPlugin.model_validate(plugin(**spec))


@pytest.mark.parametrize("spec", RIGHT, ids=repr)
def test_what_a_page_shows_is_taken_by_both(refused, spec):
    """At both ends of what is allowed, and as many as are."""
    assert refused(spec) is None
    WasmPlugin.model_validate(plugin(**spec))


def test_more_sources_than_are_allowed_are_refused(refused):
    """The API server would not take the definition with more: each has a rule about its size."""
    assert "spec.dataSources: Too many: 9: must have at most 8 items" in refused(MANY)
