"""Credentials are found where docker and Kubernetes keep them, and never shown."""

from __future__ import annotations

import base64
import json

import pytest

from hookline_runtime.artifacts import parse
from hookline_runtime.artifacts.credentials import Keychain
from hookline_runtime.errors import FetchError

REFERENCE = parse("registry.test:5000/team/guard:v1")


def auth(user, password="pw"):
    """An entry of ``auths``."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def keychain(*documents, config=None, tmp_path, **more):
    """A keychain with pull secrets and, perhaps, a docker configuration."""
    path = tmp_path / "config.json"
    if config is not None:
        path.write_text(json.dumps(config))
    return Keychain(documents=documents, docker_config=path, **more)


async def users(found):
    """The user names of all candidates."""
    return [credentials.username for credentials in await found]


@pytest.mark.parametrize(
    "key",
    ["registry.test:5000", "https://registry.test:5000", "http://registry.test:5000/v2/", "*.test:5000",
     "registry.test:5000/team", "registry.test:5000/team/guard"],
)  # fmt: skip
async def test_an_entry_matches_as_kubernetes_matches(key, tmp_path):
    """With a scheme, an API path, a star for one label, or a path of the repository."""
    assert await users(keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(REFERENCE)) == ["me"]


@pytest.mark.parametrize(
    "key", ["registry.test", "*.registry.test:5000", "*:5000", "registry.test:5000/te", "other.test:5000"]
)
async def test_an_entry_of_another_registry_is_not_used(key, tmp_path):
    """Neither another host or port, nor half a path."""
    assert await users(keychain({"auths": {key: auth("me")}}, tmp_path=tmp_path).find(REFERENCE)) == []


async def test_docker_hub_goes_by_the_name_that_docker_login_writes(tmp_path):
    """Its key is a URL of long ago."""
    found = keychain({"auths": {"https://index.docker.io/v1/": auth("me")}}, tmp_path=tmp_path).find(parse("guard"))
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


async def test_a_helpers_identity_token_is_no_password(tmp_path, helper):
    """The user name <token> says that the secret is to be exchanged."""
    helper("mine", 'cat > /dev/null; echo \'{"Username": "<token>", "Secret": "refresh-me"}\'')
    (found,) = await keychain(config={"credsStore": "mine"}, tmp_path=tmp_path).find(REFERENCE)
    assert (found.username, found.identity_token) == ("", "refresh-me")


@pytest.mark.parametrize("script", ["exit 1", "cat > /dev/null; echo nonsense", "cat > /dev/null; echo '{}'"])
async def test_a_helper_that_knows_nothing_gives_nothing(tmp_path, helper, script):
    """A failure, no JSON and an empty answer are no credentials, and no error."""
    helper("mine", script)
    assert await keychain(config={"credsStore": "mine"}, tmp_path=tmp_path).find(REFERENCE) == []


async def test_a_helper_that_hangs_is_ended(tmp_path, helper):
    """Its time is bounded, and no process stays behind."""
    helper("mine", "exec cat /dev/zero > /dev/null")
    with pytest.raises(FetchError, match=r"did not answer within 0\.05 s"):
        await keychain(config={"credsStore": "mine"}, tmp_path=tmp_path, helper_timeout=0.05).find(REFERENCE)


@pytest.mark.parametrize("name", ["absent-helper", "../../bin/sh"])
async def test_a_helper_that_cannot_be_run_is_named(tmp_path, name):
    """Not installed, or no name of a helper at all."""
    with pytest.raises(FetchError, match="docker configuration") as caught:
        await keychain(config={"credsStore": name}, tmp_path=tmp_path).find(REFERENCE)
    assert not caught.value.transient


async def test_a_pull_secret_never_runs_a_helper(tmp_path, helper):
    """A Secret is somebody else's text."""
    helper("mine", f"touch {tmp_path}/ran")
    secret = {"credsStore": "mine", "credHelpers": {"registry.test:5000": "mine"}}
    assert await keychain(secret, tmp_path=tmp_path).find(REFERENCE) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("document", ["", "[]", "{", '"hunter2"'])
async def test_a_broken_pull_secret_is_named_and_not_shown(tmp_path, document):
    """Which one it is, and what was expected."""
    with pytest.raises(FetchError, match="pull secret 1 is no docker config") as caught:
        await keychain(document, tmp_path=tmp_path).find(REFERENCE)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", [None, 1, {}, {"auth": 7}, {"auth": "***"}, {"auth": "/w=="}, {"username": "u"}, {"identitytoken": 1}]
)
async def test_an_entry_that_makes_no_sense_is_passed_over(tmp_path, entry):
    """The next one still counts."""
    config = {"auths": {"registry.test:5000": entry, "registry.test:5000/team": auth("good")}}
    assert await users(keychain(config, tmp_path=tmp_path).find(REFERENCE)) == ["good"]


async def test_credentials_do_not_show_themselves(tmp_path):
    """Neither in a repr nor in a traceback's variables."""
    (found,) = await keychain({"auths": {"registry.test:5000": auth("me", "hunter2")}}, tmp_path=tmp_path).find(
        REFERENCE
    )
    assert "hunter2" not in repr(found)
