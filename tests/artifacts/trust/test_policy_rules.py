"""Every rule of a policy: what it lets pass, and what it forbids, with the path of the field."""

from __future__ import annotations

import itertools

import pytest

from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.resources import WasmPlugin
from hookline_artifacts.trust.policy import Policy, asked_by, forbidden

OCI = {"source": {"oci": {"reference": "r.example/acme/p:1.4"}}}
HTTP = {"source": {"http": {"url": "https://r.example/p.wasm", "sha256": "0" * 64}}}
OF_MAP = {"source": {"configMap": {"name": "p"}}}


def asks(**spec):
    """What a resource asks for."""
    return asked_by(WasmPlugin.model_validate({"metadata": {"name": "guard"}, "spec": {**OCI, **spec}}))


def egress(*rules):
    """Rules of a resource."""
    return {"permissions": ["http.fetch"], "egress": [{"host": host, **more} for host, more in rules]}


def store(url):
    """A cache on a server, and keys on it."""
    return {"kv": {"scope": "Cluster", "valkey": url if isinstance(url, dict) else {"url": url}}}


def database(host):
    """A data source."""
    return {
        "permissions": ["query.execute"],
        "dataSources": [{"name": "db", "postgres": {"host": host, "database": "d", "user": "u"}}],
    }


ANYWHERE = {"egress": [{"hosts": ["*"]}]}
BELOW = {"egress": [{"hosts": ["*.example.com"]}]}
PORTS = {"egress": [{"hosts": ["a.example.com"], "schemes": ["http", "https"], "ports": [80, 8443]}]}
SECRET = {"urlFrom": {"name": "s", "key": "url"}}

RULES = [
    # source
    ({"sources": ["oci"]}, OCI, ""),
    ({"sources": ["oci"]}, HTTP, "spec.source.http: sources may be oci"),
    ({"sources": ["http"]}, OF_MAP, "spec.source.configMap: sources may be http"),
    ({"sources": []}, OCI, "spec.source.oci: sources may be none"),
    ({"repositories": ["r.example/acme/*"]}, OCI, ""),
    ({"repositories": ["r.example/acme"]}, OCI, "spec.source: r.example/acme/p is not among"),
    ({"repositories": ["r.example/*"]}, OCI, "spec.source: r.example/acme/p is not among"),
    ({"repositories": ["**"]}, HTTP, "spec.source: a source that is no registry"),
    ({"repositories": []}, OCI, "spec.source: r.example/acme/p is not among"),
    ({"references": "Digest"}, OCI, "spec.source.oci.reference: must have a digest"),
    ({"references": "Tag"}, OCI, ""),
    ({"references": "Tag"}, {"source": {"oci": {"reference": f"r.example/p@sha256:{'0' * 64}"}}}, "must have a tag"),
    ({"tags": ["1.*"]}, OCI, ""),
    ({"tags": ["v*", "2.*"]}, OCI, "spec.source.oci.reference: tags may be v*, 2.*"),
    ({"tags": ["latest"]}, {"source": {"oci": {"reference": "r.example/acme/p"}}}, ""),
    # permissions
    ({"permissions": ["metrics"]}, {"permissions": ["metrics"]}, ""),
    ({"permissions": ["metrics"]}, {"permissions": ["metrics", "kv.read"]}, "spec.permissions: kv.read may not"),
    ({"permissions": ["query.execute"]}, {"permissions": ["query.execute:orders"]}, ""),
    ({"permissions": ["query.execute:orders"]}, {"permissions": ["query.execute"]}, "spec.permissions: query.execute"),
    ({"permissions": ["query.execute:orders"]}, {"permissions": ["query.execute:stock"]}, "query.execute:stock may"),
    ({"permissions": []}, {"permissions": ["metrics"]}, "it may be none"),
    ({"permissionsPolicies": ["Strict"]}, {"permissionsPolicy": "FollowArtifact"}, "spec.permissionsPolicy: may be"),
    ({"permissionsPolicies": ["Strict"]}, {}, ""),
    # where it may ask
    ({"egress": []}, {}, ""),
    ({"egress": []}, egress(("a.example.com", {})), "spec.egress[0]: https://a.example.com is not among"),
    (ANYWHERE, egress(("*", {}), ("10.0.0.1", {})), ""),
    (ANYWHERE, egress(("a.example.com", {"scheme": "http"})), "spec.egress[0]: http://a.example.com"),
    (BELOW, egress(("a.example.com", {}), ("A.b.Example.com", {}), ("*.b.example.com", {}), ("*.example.com", {})), ""),
    (BELOW, egress(("a.example.com", {}), ("example.com", {})), "spec.egress[1]: https://example.com"),
    (BELOW, egress(("*", {})), "spec.egress[0]: https://*"),
    (BELOW, egress(("*.com", {})), "spec.egress[0]: https://*.com"),
    (BELOW, egress(("evilexample.com", {})), "spec.egress[0]"),
    (BELOW, egress(("a.example.com.evil.com", {})), "spec.egress[0]"),
    (PORTS, egress(("a.example.com", {"scheme": "http"}), ("a.example.com", {"port": 8443})), ""),
    (PORTS, egress(("a.example.com", {})), "spec.egress[0]: https://a.example.com is not"),
    (PORTS, egress(("*.example.com", {"port": 80})), "spec.egress[0]: https://*.example.com:80"),
    ({"dataSources": ["*.db.example"]}, database("a.db.example"), ""),
    ({"dataSources": ["*.db.example"]}, database("db.example"), "spec.dataSources.db: the host db.example"),
    ({"dataSources": []}, database("a.db.example"), "spec.dataSources.db: the host a.db.example"),
    ({"stores": ["cache.example"]}, store("rediss://cache.example:6380/1"), ""),
    ({"stores": ["cache.example"]}, store("redis://CACHE.example"), ""),
    ({"stores": ["cache.example"]}, store("redis://other.example"), "spec.kv.valkey.url: the host other.example"),
    ({"stores": ["fd00::1"]}, store("redis://[fd00::1]:6379"), ""),
    ({"stores": ["*"]}, store(SECRET), "spec.kv.valkey.urlFrom: a URL from a Secret"),
    ({"stores": ["*"]}, store("redis://[::::]:6379"), "spec.kv.valkey.url: names no host"),
    ({"stores": ["*"]}, store("redis://[1.2.3.4]:6379"), "spec.kv.valkey.url: names no host"),
    ({"stores": []}, {}, ""),
    # failures, limits, cases
    ({"failurePolicies": ["Closed", "LastGood"]}, {"failurePolicy": {"fetch": "LastGood"}}, ""),
    ({"failurePolicies": ["Closed"]}, {"failurePolicy": {"fetch": "Open"}}, "spec.failurePolicy.fetch: Open"),
    ({"limits": {"memory": "64Mi"}}, {"limits": {"memory": "64Mi"}}, ""),
    ({"limits": {"memory": "64Mi"}}, {"limits": {"memory": "65Mi"}}, "spec.limits.memory: is 65Mi"),
    ({"limits": {"timeout": "10ms"}}, {"limits": {"timeout": "1s"}}, "spec.limits.timeout: is 1s, and may be 10ms"),
    ({"limits": {"fuel": 1000}}, {}, "spec.limits.fuel: is not given"),
    ({"limits": {"concurrency": 4}}, {"limits": {"concurrency": 5}}, "spec.limits.concurrency: is 5"),
    ({"selfTests": ["Required"]}, {"selfTest": "Required"}, ""),
    ({"selfTests": ["Required"]}, {}, "spec.selfTest: "),
    # and nothing
    ({}, {**HTTP, **egress(("*", {})), "failurePolicy": {"fetch": "Open"}}, ""),
]


def policy(rules):
    """One with its rules compiled."""
    return Policy(name="p", spec=PluginTrustPolicySpec.model_validate(rules, by_alias=True, by_name=False))


@pytest.mark.parametrize(("rules", "spec", "says"), RULES, ids=map(str, range(len(RULES))))
def test_a_rule_forbids_what_it_says_and_nothing_else(rules, spec, says):
    """Asked of a policy that judges thousands, and of its settings alone."""
    made, asked = policy(rules), asks(**spec)
    found = made.forbidden(asked)
    assert found == made.forbidden(asked) == forbidden(made.spec, asked)
    if says:
        assert any(says in each for each in found), found
    else:
        assert found == []


def test_every_rule_is_in_the_table():
    """Whoever adds one to the contract has to judge it."""
    elsewhere = {"mode", "namespaceSelector", "pluginSelector", "signatures", "minimumVersions"}
    fields = {each.alias for each in PluginTrustPolicySpec.model_fields.values()}
    assert set(itertools.chain.from_iterable(rules for rules, _, _ in RULES)) == fields - elsewhere


def test_all_that_is_forbidden_is_told_in_the_order_of_the_resource():
    """Not only the first."""
    rules = {"sources": [], "permissions": [], "egress": [], "limits": {"memory": "1Mi"}}
    found = policy(rules).forbidden(asks(**egress(("a.example", {}))))
    assert [each.partition(":")[0] for each in found] == [
        "spec.source.oci", "spec.permissions", "spec.egress[0]", "spec.limits.memory",
    ]  # fmt: skip
