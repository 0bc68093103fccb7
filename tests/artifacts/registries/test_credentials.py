"""Credentials are found where docker and Kubernetes keep them, and never shown."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_artifacts.login.credentials import Gap, PullSecret
from hookline_artifacts.login.docker_config import read_secret
from hookline_artifacts.login.keychain import Keychain
from hookline_artifacts.reference import parse
from keychains import REFERENCE, auth, keychain, only, packed, users

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)


async def gaps(found):
    """Why what could not be used could not be used."""
    return [each.why async for each in found if isinstance(each, Gap)]


@pytest.mark.parametrize(
    "key",
    ["registry.test:5000", "https://registry.test:5000", "http://registry.test:5000/v2/", "*.test:5000",
     "registry.test:5000/team", "registry.test:5000/team/guard", "registry.test:5000/", "registry.test:5000/v1/",
     "https://registry.test:5000/v2", "HTTPS://Registry.TEST:5000/v1", "//registry.test:5000", " registry.test:5000 ",
     "https://registry.test:5000/v2/team/", "registry.test:5000/team/guard/", "registry.*:5000", "reg?stry.test:5000"],
)  # fmt: skip
async def test_an_entry_matches_as_kubernetes_matches(key, tmp_path):
    """With a scheme, an API path, a star for one label, or a path of the repository."""
    assert await users(keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(REFERENCE)) == ["me"]


@pytest.mark.parametrize(
    "key",
    ["registry.test", "*.registry.test:5000", "*:5000", "registry.test:5000/te", "other.test:5000", "registry.*",
     "registry.test:443", "registry.test:5000/v2/te", "registry.test:5000.evil", "x" * 5000, "", "/", "[", "*" * 900],
)  # fmt: skip
async def test_an_entry_of_another_registry_is_not_used(key, tmp_path):
    """Neither another host or port, nor half a path."""
    assert await users(keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(REFERENCE)) == []


async def test_docker_hub_goes_by_the_name_that_docker_login_writes(tmp_path):
    """Its key is a URL of long ago."""
    for key in ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/",
                "Docker.io", "docker.io/library", "https://index.docker.io:443/v1"):  # fmt: skip
        found = keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(parse("guard"))
        assert await users(found) == ["me"], key


@pytest.mark.parametrize(
    ("registry", "key"),
    [("[::1]:5000", "[::1]:5000"), ("[::1]:5000", "https://[::1]:5000/v2/"), ("[fe::A]", "[FE::a]"),
     ("registry.test", "https://registry.test:443"), ("registry.test:443", "registry.test"),
     ("Registry.Test:5000", "registry.test:5000")],
)  # fmt: skip
async def test_a_registry_is_the_same_however_it_is_spelled(registry, key, tmp_path):
    """Addresses in brackets, HTTPS' own port, letters of either case."""
    found = keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(parse(f"{registry}/team/guard"))
    assert await users(found) == ["me"]


async def test_pull_secrets_come_in_order_and_before_the_machines(tmp_path):
    """Within one document the longest path is first."""
    first = json.dumps({"auths": {"registry.test:5000": auth("wide"), "registry.test:5000/team": auth("narrow")}})
    second = {"auths": {"registry.test:5000": {"username": "second", "password": "pw"}}}
    machine = {"auths": {"registry.test:5000": auth("machine")}}
    found = keychain(first, second, config=machine, tmp_path=tmp_path).find(REFERENCE)
    assert await users(found) == ["narrow", "wide", "second", "machine"]


async def test_a_helper_is_asked_for_the_registry(tmp_path, helper):
    """It gets the server on its standard input, and its answer is used."""
    helper("mine", f'cat > {tmp_path}/asked; echo \'{{"Username": "helped", "Secret": "s"}}\'')
    config = {"credHelpers": {"registry.test:5000": "mine"}, "credsStore": "absent"}
    assert await users(keychain(config=config, tmp_path=tmp_path).find(REFERENCE)) == ["helped"]
    assert (tmp_path / "asked").read_text() == "registry.test:5000"


async def test_a_helper_is_found_by_every_spelling_of_its_registry(tmp_path, helper):
    """As the entries of ``auths`` are."""
    helper("mine", 'cat > /dev/null; echo \'{"Username": "helped", "Secret": "s"}\'')
    for key in ("https://Registry.test:5000/v1/", "registry.test:5000/", "registry.test:5000"):
        found = keychain(config={"credHelpers": {key: "mine"}}, tmp_path=tmp_path).find(REFERENCE)
        assert await users(found) == ["helped"], key


async def test_a_helpers_identity_token_is_no_password(tmp_path, helper):
    """The user name <token> says that the secret is to be exchanged."""
    helper("mine", 'cat > /dev/null; echo \'{"Username": "<token>", "Secret": "refresh-me"}\'')
    found = await only(keychain(config={"credsStore": "mine"}, tmp_path=tmp_path).find(REFERENCE))
    assert (found.username, found.identity_token) == ("", "refresh-me")


@pytest.mark.parametrize(
    "script",
    ["cat > /dev/null; echo credentials not found in native keychain; exit 1",
     'cat > /dev/null; echo \'{"Username": "", "Secret": ""}\''],
)  # fmt: skip
async def test_a_helper_that_knows_nothing_gives_nothing(tmp_path, helper, script):
    """That it knows nothing of this registry is not a failure."""
    helper("mine", script)
    assert [each async for each in keychain(config={"credsStore": "mine"}, tmp_path=tmp_path).find(REFERENCE)] == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 1", "failed with 1"),
        ("kill -9 $$", "failed with -9"),
        ("cat > /dev/null; echo hunter2", "something else than a Username and a Secret"),
        ("cat > /dev/null; echo '{}'", "something else than a Username and a Secret"),
        ('cat > /dev/null; echo \'{"Username": 1, "Secret": ["hunter2"]}\'', "something else"),
        ("exec cat /dev/zero", "something else than a Username and a Secret"),
        ("echo hunter2 >&2; echo hunter2; exit 3", "failed with 3"),
    ],
)
async def test_a_helper_that_fails_stops_nothing_and_is_told(tmp_path, helper, script, words):
    """What comes after it is found; what it said is not repeated, since that may be a secret."""
    helper("mine", script)
    config = {"credHelpers": {"registry.test:5000": "mine"}, "auths": {"registry.test:5000": auth("after")}}
    found = [each async for each in keychain(config=config, tmp_path=tmp_path).find(REFERENCE)]
    assert words in found[0].why
    assert "docker-credential-mine" in found[0].why
    assert "hunter2" not in found[0].why
    assert found[1].username == "after"


@pytest.mark.parametrize("script", ["exec cat /dev/zero > /dev/null", "cat /dev/zero > /dev/null", "sleep 1000 & exit"])
async def test_a_helper_that_hangs_is_ended(tmp_path, helper, script):
    """Its time is bounded, also where a child of it keeps the pipe; and it may be asked again later."""
    helper("mine", script)
    found = await only(keychain(config={"credsStore": "mine"}, tmp_path=tmp_path, helper_timeout=0.05).find(REFERENCE))
    assert "did not answer within 0.05 s" in found.why
    assert found.transient


@pytest.mark.parametrize("name", ["absent-helper", "../../bin/sh", 7, {"secret": "hunter2"}, "folder", "text"])
async def test_a_helper_that_cannot_be_run_is_named(tmp_path, name, helper):
    """Not installed, no name of a helper at all, not a program."""
    program = helper("text", "")
    program.chmod(0o644)
    (program.parent / "docker-credential-folder").mkdir()
    found = await only(keychain(config={"credsStore": name}, tmp_path=tmp_path).find(REFERENCE))
    assert "docker configuration" in found.why
    assert "hunter2" not in found.why


async def test_no_source_is_read_before_the_one_ahead_of_it_was_refused(tmp_path, helper):
    """A pull secret that is good leaves the machine's helper alone."""
    helper("mine", f"touch {tmp_path}/ran")
    found = keychain({"auths": {"registry.test:5000": auth("me")}}, config={"credsStore": "mine"}, tmp_path=tmp_path)
    candidates = found.find(REFERENCE)
    assert (await anext(candidates)).username == "me"
    await candidates.aclose()
    assert not (tmp_path / "ran").exists()


async def test_without_a_home_there_is_no_docker_configuration(monkeypatch):
    """Neither HOME nor an entry in passwd, as for a pod's user."""
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    found = Keychain(documents=({"auths": {"registry.test:5000": auth("me")}},)).find(REFERENCE)
    assert [each.username async for each in found] == ["me"]


async def test_credentials_do_not_show_themselves(tmp_path):
    """Neither in a repr nor in a traceback's variables."""
    found = await only(
        keychain({"auths": {"registry.test:5000": auth("me", "hunter2")}}, tmp_path=tmp_path).find(REFERENCE)
    )
    assert "hunter2" not in repr(found)
    assert "hunter2" not in repr(PullSecret(name="x", document="hunter2"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.binary(max_size=12).map(packed),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
entries = st.dictionaries(
    st.sampled_from(["auth", "username", "password", "identitytoken", "registrytoken"]), json_values, max_size=5
)
keys = st.sampled_from(["registry.test:5000", "https://Registry.test:5000/v2/", "*.test:5000"]) | st.text(max_size=40)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=60)
    | st.text(max_size=60)
    | st.fixed_dictionaries({"auths": st.dictionaries(keys, entries | json_values, max_size=4) | json_values})
    | st.dictionaries(keys, entries | json_values, max_size=4),
    st.booleans(),
)
def test_any_pull_secret_is_credentials_and_gaps(document, bare):
    """Nothing in one is an error, what is found can be sent, and what is told is one line."""
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    for given_document in (PullSecret(name="pull", document=text, bare=bare), document):
        if isinstance(given_document, bytes):
            continue
        for found in read_secret(given_document, 1, REFERENCE):
            if isinstance(found, Gap):
                assert found.why.isprintable()
                assert len(found.why) < 400
            else:
                assert found.identity_token or found.registry_token or found.basic.startswith("Basic ")
                assert "\n" not in found.basic


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1), st.text(), st.integers(0, 2), st.booleans())
def test_any_user_and_password_come_out_as_they_went_in(username, password, padding, urlsafe):
    """Whatever the base64 looks like."""
    user, secret = username.replace(":", "") or "u", password.strip("\0").rstrip("\r\n")
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    text = encode(f"{user}:{secret}".encode()).decode().rstrip("=") + "=" * padding
    (found,) = read_secret({"auths": {"registry.test:5000": {"auth": text}}}, 1, REFERENCE)
    assert (found.username, found.password) == (user, secret)


async def test_who_has_more_pull_secrets_than_are_read_is_told_what_to_do(tmp_path):
    """A service account may have one for each of twenty registries, and the one that counts be the last."""
    others = [{"auths": {f"r{number}.test": auth("other")}} for number in range(20)]
    found = keychain(*others, {"auths": {"registry.test:5000": auth("right")}}, tmp_path=tmp_path).find(REFERENCE)
    told = await gaps(found)
    assert any("only the first 16" in why and "spec.source.oci.pullSecrets" in why for why in told)
