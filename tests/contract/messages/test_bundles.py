"""A bundle is named by its content, is in order, and shows no secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_api.bundle import REDACTED, Bundle, BundlePlugin, LoadFailure

_ARTIFACT = {"digest": "sha256:1", "sha256": "a" * 64, "size": 1, "layout": "file", "reference": "p.wasm"}


def _plugin(name: str = "p", **fields: object) -> BundlePlugin:
    return BundlePlugin.model_validate({"name": name, "artifact": _ARTIFACT, **fields})


@pytest.mark.parametrize(
    "change",
    [
        {"hooks": ["route"]}, {"priority": 1}, {"match": {"databases": ["x"]}}, {"config": {"a": 2}},
        {"config": {"a": "1"}}, {"secretPaths": ["a"]}, {"permissions": ["crypto"]}, {"limits": {"timeout": "1s"}},
        {"limits": {"fuel": 5}}, {"isolation": {"mode": "Pooled"}}, {"failurePolicy": {"trap": "Open"}},
        {"mode": "Shadow"}, {"egress": ["http://x"]}, {"namespace": "n"},
        {"observers": {"overflow": "Wait"}}, {"auth": {"tellReason": True}},
        {"kv": {"initial": {"k": "v"}}}, {"kv": {"overwrite": "OnChange"}},
        {"artifact": {**_ARTIFACT, "sha256": "b" * 64}}, {"artifact": {**_ARTIFACT, "digest": "sha256:2"}},
    ],
)  # fmt: skip
def test_every_setting_and_the_artifact_change_the_revision(change):
    """And with it the bundle's version."""
    before, after = _plugin(config={"a": 1}), _plugin(**{"config": {"a": 1}, **change})
    assert before.revision != after.revision
    assert Bundle.of([before]).version != Bundle.of([after]).version


@pytest.mark.parametrize(
    "change",
    [{"generation": 7}, {"origin": "elsewhere.yaml"}, {"failure": {"cause": "fetch", "message": "later"}}],
)
def test_what_changes_nothing_does_not_change_the_revision(change):
    """Where the settings came from, and why they are not newer."""
    assert _plugin().revision == _plugin(**change).revision
    assert Bundle.of([_plugin()]).version == Bundle.of([_plugin(**change)]).version


def test_a_field_that_came_later_changes_no_revision_where_it_says_nothing():
    """Operator and sidecar compare revisions, and may be of two versions. The first version's is written out here."""
    plugin = {"name": "p", "hooks": ["route"], "limits": {"input": "1Ki"}, "observers": {}, "kv": {}, "auth": {}}
    assert BundlePlugin.model_validate(plugin).revision == "4e2034b47285"


def test_the_order_of_a_bundle_is_the_chains_order():
    """Priority descending, then name; whatever order it came in."""
    plugins = [_plugin("b"), _plugin("c", priority=1), _plugin("a"), _plugin("d", priority=-1)]
    assert [plugin.name for plugin in Bundle.of(plugins).plugins] == ["c", "a", "b", "d"]
    assert Bundle.of(plugins).version == Bundle.of(plugins[::-1]).version


def test_a_bundle_that_was_stored_is_the_same_bundle():
    """The state of a sidecar survives a restart, and with it the version."""
    bundle = Bundle.of([
        _plugin(config={"ü": ["x", 1.5, None, {"y": True}]}, limits={"timeout": "30s"}),
        _plugin("q", artifact=None, failure={"cause": "fetch", "message": "m"}, hooks=["route"]),
    ])  # fmt: skip
    for text in (bundle.model_dump_json(by_alias=True), bundle.model_dump_json()):
        again = Bundle.model_validate_json(text)
        assert again == bundle
        assert again.version == bundle.version
    assert len(bundle.version) == 12


def test_the_order_of_a_configs_keys_is_no_change():
    """A manifest that was sorted is the same."""
    assert _plugin(config={"a": 1, "b": 2}).revision == _plugin(config={"b": 2, "a": 1}).revision


@pytest.mark.parametrize(
    ("config", "paths", "shown"),
    [
        ({"a": "s3cret", "b": 1}, ["a"], {"a": REDACTED, "b": 1}),
        ({"a": {"b": {"c": "s3cret", "d": 2}}}, ["a.b.c"], {"a": {"b": {"c": REDACTED, "d": 2}}}),
        ({"a": {"b": 1}}, ["a.x", "y", "a.b.c"], {"a": {"b": 1}}),
        ({"a": "s3cret"}, ["a.b", "a"], {"a": REDACTED}),
        ({"a": "text with b"}, ["a.b"], {"a": "text with b"}),
        ({"a": ["b"]}, ["a.b", "a.0"], {"a": ["b"]}),
        ({"a": {"b": "s3cret"}}, ["a", "a.b"], {"a": REDACTED}),
        ({"a": {"b": "s3cret"}}, ["a.b", "a"], {"a": REDACTED}),
        ({"a": None}, ["a.b"], {"a": None}),
    ],
)
def test_values_of_secrets_are_shown_nowhere(config, paths, shown):
    """Whatever the paths say of a config that is not of that shape any more."""
    plugin = _plugin(config=config, secretPaths=paths)
    assert plugin.redacted().config == shown
    redacted = Bundle.of([plugin]).redacted()
    assert "s3cret" not in redacted.model_dump_json()
    assert plugin.config == config  # the plugin itself is left as it is


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    config=st.dictionaries(st.text(max_size=3), _JSON, max_size=4),
    paths=st.lists(st.text("ab.", max_size=5), max_size=3),
)
def test_any_config_has_a_revision_and_can_be_redacted(config, paths):
    """Any text, also such as no encoding has: half of a surrogate pair is what YAML can escape."""
    plugin = _plugin(config=config, secretPaths=paths)
    assert len(plugin.revision) == 12
    assert plugin.redacted().name == "p"


def test_half_a_surrogate_pair_in_a_setting_does_not_break_the_revision():
    """YAML and JSON can escape one."""
    assert len(_plugin(config={"a": "\ud800"}).revision) == 12


def test_nobody_guesses_a_secret_by_its_revision():
    """Whoever knows all but the value, and the revision that is shown, cannot tell a right guess from a wrong one."""
    key = b"k" * 32
    sealed = _plugin(config={"pin": "1234", "own": 1}, secretPaths=["pin"]).sealed(key)
    shown = {**sealed.redacted().model_dump(mode="json", by_alias=True), "config": {"own": 1}}
    guesses = {f"{number:04}": {"pin": f"{number:04}", "own": 1} for number in range(1000, 2000)}
    for guess in guesses.values():
        plain = BundlePlugin.model_validate({**shown, "config": guess})
        assert sealed.revision not in {plain.revision, plain.sealed(b"").revision, plain.sealed(b"x" * 32).revision}
    assert "1234" not in sealed.redacted().model_dump_json()
    assert sealed.seal not in sealed.redacted().model_dump_json()


SOURCES = {
    "dataSources": [{"name": "db", "postgres": {
        "host": "db.test", "database": "d", "user": "u", "passwordFrom": {"name": "s", "key": "password"}}}],
    "permissions": ["query.execute"],
}  # fmt: skip


def test_values_that_sources_name_are_sealed_and_shown_nowhere():
    """As those in ``config`` are: nobody tries values until a revision fits, and another value is another revision."""
    key = b"k" * 32
    one, two = (_plugin(**SOURCES, credentials={"s/password": value}).sealed(key) for value in ("1234", "1235"))
    assert one.has_secrets
    assert one.secrets() == ["1234"]
    assert one.revision != two.revision
    assert one.redacted().credentials == {"s/password": REDACTED}
    assert one.redacted().revision == two.redacted().revision
    for shown in (one.redacted().model_dump_json(by_alias=True), repr(one), str(one)):
        assert "1234" not in shown
    plain = _plugin(**SOURCES, credentials={"s/password": "1234"})
    assert one.revision not in {plain.revision, plain.sealed(b"x" * 32).revision}
    assert one.sealed(key) == one


def test_what_came_later_changes_no_revision_where_it_says_nothing():
    """Operator and sidecar of two versions compare revisions: what the older one does not know must not count."""
    plain = _plugin(permissions=["http.fetch"])
    for nothing in ({"dataSources": []}, {"caches": []}, {"credentials": {}}, {"egressRules": []}, {"kv": {}},
                    {"limits": {"wait": "1s"}}, {"failurePolicy": {"store": None}}):  # fmt: skip
        assert _plugin(permissions=["http.fetch"], **nothing).revision == plain.revision
    # As it was written while nothing could be fetched.
    told = {"egress": ["https://api.example.com:8443"]}
    rule = {"egressRules": [{"host": "api.example.com", "port": 8443}]}
    assert _plugin(**told).revision == _plugin(**rule).revision != plain.revision


def test_rules_of_egress_have_a_name_that_no_older_sidecar_reads():
    """It reads texts under ``egress``, and would ignore the whole bundle for one rule of one plugin."""
    written = _plugin(egressRules=[{"host": "api.example.com", "methods": ["POST"]}]).model_dump(by_alias=True)
    assert "egress" not in written
    assert written["egressRules"][0]["methods"] == ["POST"]


@pytest.mark.parametrize(
    "change",
    [{"config": {"pin": "other"}}, {"config": {"pin": "1", "own": 2}}, {"name": "q"}, {"namespace": "n"},
     {"secretPaths": ["own"]}, {"config": {"own": "1"}}, {"priority": 1}],
)  # fmt: skip
def test_a_sealed_plugin_has_another_revision_for_each_change(change):
    """As one that is not: also where a value of a Secret changed, or is that of another plugin."""
    before = {"config": {"pin": "1", "own": 1}, "secretPaths": ["pin"]}
    key = b"k" * 32
    assert _plugin(**before).sealed(key).revision == _plugin(**before).sealed(key).sealed(key).revision
    assert _plugin(**before).sealed(key).revision != _plugin(**(before | change)).sealed(key).revision
    assert _plugin(**before).sealed(key).revision != _plugin(**before).sealed(b"another").revision


def test_what_has_no_secret_keeps_its_revision():
    """No plugin is loaded again for a key that it has nothing to do with; and what is sealed survives being stored."""
    plain = _plugin(config={"a": 1})
    assert plain.sealed(b"k" * 32) == plain
    sealed = _plugin(config={"a": "1"}, secretPaths=["a"]).sealed(b"k" * 32)
    assert BundlePlugin.model_validate_json(sealed.model_dump_json(by_alias=True)).revision == sealed.revision


def test_an_error_about_a_bundle_quotes_no_value():
    """Wherever it is logged."""
    with pytest.raises(ValueError, match="1 validation error") as caught:
        _plugin(config="s3cret")
    assert "s3cret" not in str(caught.value)


def test_bundles_whose_names_are_the_same_are_told_apart(monkeypatch):
    """Who chooses settings finds two with the same twelve digits in minutes; here all names are the same."""
    monkeypatch.setattr("hookline_api.bundle._REVISION", 0)
    one, other = (Bundle(plugins=[BundlePlugin(name="guard", priority=number)]) for number in (1, 2))
    assert one.version == other.version
    assert one.full_version != other.full_version
    failed = one.plugins[0].model_copy(update={"failure": LoadFailure(cause="fetch", message="it is away")})
    assert Bundle(plugins=[failed]).full_version == one.full_version
