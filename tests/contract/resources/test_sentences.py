"""What was found is said of wrong fields, and never of those that may hold what is nobody's business."""

import json

import pytest
from pydantic import ValidationError

from hookline_api.bundle import Bundle
from hookline_api.policies import PluginTrustPolicy
from hookline_api.resources import WasmPlugin
from hookline_api.sentences import first, found_in, problems, unknown_fields, without_values
from hookline_api.text import found

SOURCE = {"oci": {"reference": "r.test/a:1"}}


def said(spec):
    """Of each mistake in a spec: its field, and what is said of what was found."""
    document = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}}
    text = json.dumps({**document, "spec": {"source": SOURCE, **spec}})
    with pytest.raises(ValidationError) as caught:
        WasmPlugin.model_validate_json(text, strict=True, extra="forbid", by_alias=True, by_name=False)
    return {".".join(map(str, each["loc"])): found_in(each) for each in caught.value.errors(include_url=False)}


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"mode": "Off"}, "spec.mode", ', found "Off"'),
        ({"priority": "5"}, "spec.priority", ', found "5"'),
        ({"priority": {"a": "hunter2"}}, "spec.priority", ", found an object"),
        ({"priority": None}, "spec.priority", ", found null"),
        ({"mode": "x" * 1000}, "spec.mode", f', found "{"x" * 40}…"'),
        ({"limits": {"timeout": "2h"}}, "spec.limits.timeout", ""),
        ({"nothing": "hunter2"}, "spec.nothing", ""),
        ({"source": {"http": {"url": "hunter2", "sha256": "0" * 64}}}, "spec.source.http.url", ""),
        ({"config": "hunter2"}, "spec.config", ""),
        ({"kv": {"scope": "hunter2"}}, "spec.kv.scope", ""),
        ({"caches": [{"name": "c", "valkey": {"url": "redis://u:hunter2@h"}}]}, "spec.caches.0.valkey.url", ""),
        ({"caches": ["redis://u:hunter2@h"]}, "spec.caches.0", ", found text"),
        ({"dataSources": "postgres://u:hunter2@h"}, "spec.dataSources", ", found text"),
        (
            {"dataSources": [{"name": "d", "postgres": {"passwordFrom": "hunter2"}}]},
            "spec.dataSources.0.postgres.passwordFrom",
            "",
        ),
        (
            {"dataSources": [{"name": "d", "postgres": {"passwordFrom": {"name": "hunter2!", "key": "k"}}}]},
            "spec.dataSources.0.postgres.passwordFrom.name",
            "",
        ),
        (
            {"egress": [{"host": "h", "credential": {"prefix": "hunter2\r", "valueFrom": {"name": "s", "key": "k"}}}]},
            "spec.egress.0.credential.prefix",
            "",
        ),
        (
            {"configFrom": [{"secretRef": {"name": "s"}, "key": "k", "path": "a..b"}]},
            "spec.configFrom.0.path",
            ', found "a..b"',
        ),
    ],
)
def test_what_was_found_is_said_in_a_few_words(spec, field, says):
    """Its type where it is large, and nothing where the sentence has it already or nobody may know."""
    assert said(spec)[field] == says


def test_a_value_is_shown_on_one_line_and_short():
    """Whatever it is."""
    shown = [found(each) for each in (None, True, 5, 1.5, 10**400, "a\nb", "x" * 100, [1], {"a": 1})]
    assert shown == ["null", "true", "5", "1.5", "a huge number", '"a\\nb"', f'"{"x" * 60}…"', "a list", "an object"]


def caught(model, text):
    """The error of a document that is read as ``model``."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(text, strict=True, extra="forbid", by_alias=True, by_name=False)
    return caught.value


def test_a_problem_has_the_path_that_kubectl_shows():
    """Items of lists in brackets, and one wording for all that is wrong in the same way."""
    metadata = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}}
    spec = {"source": SOURCE, "permissions": ["root"], "nothing": 1, "sha256": "no"}
    error = caught(WasmPlugin, json.dumps({**metadata, "spec": spec}))
    found = {each.path: each.text for each in problems(error)}
    assert found["spec.permissions[0]"].startswith('"root" is not a permission; the permissions are kv.read, ')
    assert found["spec.nothing"] == "there is no such field"
    assert found["spec.sha256"].startswith("must be a SHA-256 of 64 hex digits")
    assert len(problems(error, most=2)) == 2
    assert unknown_fields(error) == ["spec.nothing"]
    assert first(error) == str(problems(error)[0])


@pytest.mark.parametrize(
    ("permission", "says"),
    [
        ("kv_read", '"kv_read" is not a permission (did you mean kv.read?); the permissions are kv.read, '),
        ("http-fetch", '"http-fetch" is not a permission (did you mean http.fetch?); '),
        ("kv.raed", "did you mean kv.read?"), ("Crypto", "did you mean crypto?"), (5, "5 is not a permission; "),
        ("root", '"root" is not a permission; the permissions are'),
        ("x" * 100_000, f'"{"x" * 60}…" is not a permission; '),
        ("kv.read\n\x1b[2J", r'"kv.read\n\x1b[2J" is not a permission'),
    ],
)  # fmt: skip
def test_a_wrong_permission_is_shown_with_the_one_that_was_meant(permission, says):
    """In a resource and in a policy alike; on one line, and bounded."""
    metadata = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}}
    error = caught(WasmPlugin, json.dumps({**metadata, "spec": {"source": SOURCE, "permissions": [permission]}}))
    assert says in first(error)
    assert first(error).startswith("spec.permissions[0]: ")
    assert first(error).isprintable()
    policy = {"apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy", "metadata": {"name": "p"}}
    error = caught(PluginTrustPolicy, json.dumps({**policy, "spec": {"permissions": [permission]}}))
    assert says in str(problems(error)[-1])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"egress": ["ftp://x"]}, "spec.egress[0]: must be a mapping with a host, or scheme://host:port with http or"),
        ({"egress": [{"host": "a b"}]}, "spec.egress[0].host: must be a name, an address, or *. and a domain"),
        ({"egress": [{"host": "a", "paths": ["b"]}]}, "spec.egress[0].paths[0]: must begin with /"),
        ({"caches": [{"name": "A", "memory": {}}]}, "spec.caches[0].name: must consist of at most 63 lower-case"),
        ({"caches": [{"name": "a", "valkey": {"url": "x"}}]}, "spec.caches[0].valkey.url: must be redis://HOST:PORT"),
        ({"dataSources": [{"name": "a", "postgres": {"host": "a/b", "database": "d", "user": "u"}}]},
         "spec.dataSources[0].postgres.host: must be the name or the address of a host"),
        ({"dataSources": [{"name": "a", "postgres": "x"}]}, "spec.dataSources[0].postgres: is not a mapping: write"),
    ],
)  # fmt: skip
def test_a_source_that_is_written_wrong_is_told_what_it_may_be(spec, says):
    """In the field's own words."""
    metadata = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}}
    text = json.dumps({**metadata, "spec": {"source": SOURCE, **spec}})
    assert any(str(each).startswith(says) for each in problems(caught(WasmPlugin, text)))


def test_what_may_hold_a_secret_is_never_quoted():
    """Of a message or a kept file, where it is wrong and how, and no more."""
    error = caught(Bundle, '{"plugins": [{"name": "p", "priority": "hunter2", "config": {}}]}')
    assert without_values(error).startswith("plugins[0].priority: ")
    assert "hunter2" not in without_values(error)
