"""Credentials are read as people write them; a file that cannot be read is named and not shown."""

from __future__ import annotations

import base64
import json
import os

import pytest

from hookline_artifacts.login.credentials import PullSecret
from hookline_artifacts.login.keychain import Keychain
from keychains import REFERENCE, auth, keychain, only, packed, users


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_text("{"), "not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe{\0}\0"), "not JSON"),
        (lambda path: path.write_text("[" * 100_000), "more than 65536 values"),
        (lambda path: path.write_text("[" * 60_000), "not JSON"),
        (lambda path: path.write_text('"hunter2"'), "a JSON object with the key auths"),
        (lambda path: path.write_bytes(bytes(2 << 20)), "more than 1048576 bytes"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.write_text('{"auths": ["hunter2"]}'), "auths in"),
    ],
)
async def test_a_docker_configuration_that_cannot_be_used_is_told_by_its_path(tmp_path, make, words):
    """And the pull secrets before it are found."""
    make(tmp_path / "config.json")
    found = [each async for each in keychain({"auths": {"registry.test:5000": auth("me")}}, tmp_path=tmp_path)
             .find(REFERENCE)]  # fmt: skip
    assert found[0].username == "me"
    assert words in found[1].why
    assert str(tmp_path / "config.json") in found[1].why
    assert "hunter2" not in found[1].why


async def test_a_docker_config_that_names_a_file_is_told(tmp_path, monkeypatch):
    """It is the folder that DOCKER_CONFIG names."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config.json"))
    found = await only(Keychain(documents=()).find(REFERENCE))
    assert "config.json/config.json cannot be read: Not a directory" in found.why


async def test_a_configuration_that_powershell_wrote_is_read(tmp_path):
    """With a byte order mark."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.test:5000": auth("me")}}), "utf-8-sig")
    assert await users(keychain(tmp_path=tmp_path).find(REFERENCE)) == ["me"]


async def test_a_pull_secret_never_runs_a_helper(tmp_path, helper):
    """A Secret is somebody else's text."""
    helper("mine", f"touch {tmp_path}/ran")
    secret = {"credsStore": "mine", "credHelpers": {"registry.test:5000": "mine"}}
    assert await users(keychain(secret, tmp_path=tmp_path).find(REFERENCE)) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("document", ["", "[]", "{", '"hunter2"', "{}", '{"auths": 7}', "[" * 100_000, "1" * 5000])
async def test_a_broken_pull_secret_is_named_and_not_shown(tmp_path, document):
    """Which one it is; and the one after it counts."""
    good = {"auths": {"registry.test:5000": auth("good")}}
    for broken, name in ((document, "pull secret 1"), (PullSecret(name="pull", document=document), "Secret 'pull'")):
        found = [each async for each in keychain(broken, good, tmp_path=tmp_path).find(REFERENCE)]
        assert name in found[0].why
        assert "hunter2" not in found[0].why
        assert found[1].username == "good"


async def test_a_pull_secret_that_is_packed_twice_is_told_so(tmp_path):
    """``base64`` by hand, and then ``kubectl create secret``; nobody may read it as a password."""
    document = base64.b64encode(json.dumps({"auths": {"registry.test:5000": auth("u")}}).encode())
    for bare in (False, True):
        secret = PullSecret(name="pull", document=document, bare=bare)
        (found,) = [each async for each in keychain(secret, tmp_path=tmp_path).find(REFERENCE)]
        assert "the Secret 'pull' is in base64 once too often" in found.why
        assert document.decode() not in found.why


async def test_a_secret_of_the_old_type_is_read(tmp_path):
    """``kubernetes.io/dockercfg`` has no ``auths`` around the entries; some wrap them all the same."""
    entries = {"registry.test:5000": auth("old"), "other.test": {"auth": "***"}}
    for document in (entries, {"auths": entries}):
        secret = PullSecret(name="pull", document=json.dumps(document).encode(), bare=True)
        assert (await only(keychain(secret, tmp_path=tmp_path).find(REFERENCE))).username == "old"


@pytest.mark.parametrize(
    ("entry", "username", "password"),
    [
        ({"auth": "bWU6cHc"}, "me", "pw"),
        ({"auth": "bWU6cHc=="}, "me", "pw"),
        ({"auth": " bWU6\r\ncHc=\n"}, "me", "pw"),
        ({"auth": packed("me:a?>~\xff")}, "me", "a?>~\xff"),
        ({"auth": base64.urlsafe_b64encode("me:a?>~\xff".encode()).decode().rstrip("=")}, "me", "a?>~\xff"),
        ({"auth": packed("me:p:w:")}, "me", "p:w:"),
        ({"auth": packed("me:pw\0\0")}, "me", "pw"),
        ({"auth": packed("me:pw\n")}, "me", "pw"),
        ({"auth": packed("me:")}, "me", ""),
        ({"auth": "***", "username": "me", "password": "pw"}, "me", "pw"),
        ({"auth": "", "username": "me", "password": "pw", "email": None}, "me", "pw"),
        ({"auth": packed("me:pw"), "username": 7, "identitytoken": ""}, "me", "pw"),
    ],
)
async def test_an_entry_is_read_as_people_write_it(tmp_path, entry, username, password):
    """Without padding, in the other alphabet, folded, with what ``echo`` leaves behind."""
    found = await only(keychain({"auths": {"registry.test:5000": entry}}, tmp_path=tmp_path).find(REFERENCE))
    assert (found.username, found.password) == (username, password)


async def test_a_password_goes_out_in_the_bytes_that_it_came_in(tmp_path):
    """Whatever encoding they are of."""
    entry = {"auth": packed(b"m\xe9:p\xff")}
    found = await only(keychain({"auths": {"registry.test:5000": entry}}, tmp_path=tmp_path).find(REFERENCE))
    assert found.basic == "Basic " + entry["auth"]


@pytest.mark.parametrize(("key", "field"), [("identitytoken", "identity_token"), ("registrytoken", "registry_token")])
async def test_a_token_in_an_entry_is_taken(tmp_path, key, field):
    """What a registry's own login leaves behind."""
    entry = {key: "tok.en", "auth": packed("me:pw")}
    found = await only(keychain({"auths": {"registry.test:5000": entry}}, tmp_path=tmp_path).find(REFERENCE))
    assert getattr(found, field) == "tok.en"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "not a JSON object"), (1, "not a JSON object"), (["hunter2"], "not a JSON object"),
        ({}, "it is empty"), ({"auth": "", "email": "x"}, "it is empty"), ({"auth": None}, "it is empty"),
        ({"auth": 7}, "auth is not text"), ({"auth": {"hunter2": 1}}, "auth is not text"),
        ({"auth": "***"}, "not base64"), ({"auth": "bWU6c"}, "not base64"), ({"auth": "bWU6cHc!"}, "not base64"),
        ({"auth": "/w=="}, "no colon"), ({"auth": "aHVudGVyMg=="}, "no colon"), ({"auth": "Og=="}, "neither a user"),
        ({"username": "u"}, "no password"), ({"password": "hunter2"}, "no username"),
        ({"username": "u", "password": 1}, "password is not text"), ({"username": ["hunter2"]}, "username is not text"),
        ({"identitytoken": 1}, "identitytoken is not a token"), ({"registrytoken": "a b"}, "registrytoken is not a"),
        ({"username": "\ud800", "password": "x"}, "is not text"),
    ],
)  # fmt: skip
async def test_an_entry_for_this_registry_that_cannot_be_read_is_told(tmp_path, entry, words):
    """By its key and its document, without its value; the next one still counts."""
    config = {"auths": {"https://registry.test:5000/v2/": entry, "registry.test:5000/team": auth("good")}}
    found = [each async for each in keychain(config, tmp_path=tmp_path).find(REFERENCE)]
    assert found[0].username == "good"
    assert words in found[1].why
    assert "'https://registry.test:5000/v2/' of pull secret 1" in found[1].why
    assert "hunter2" not in found[1].why
    assert "aHVudGVyMg" not in found[1].why


async def test_an_entry_for_another_registry_is_not_told(tmp_path):
    """It is none of this one's business."""
    config = {"auths": {"other.test": {"auth": "***"}}}
    assert [each async for each in keychain(config, tmp_path=tmp_path).find(REFERENCE)] == []


@pytest.mark.parametrize("entry", [{}, {"auth": ""}, {"email": "me@home.test"}])
async def test_an_empty_entry_beside_a_helper_is_what_docker_login_leaves(tmp_path, helper, entry):
    """The password is with the helper, and there is nothing to tell."""
    helper("mine", 'cat > /dev/null; echo \'{"Username": "helped", "Secret": "s"}\'')
    config = {"auths": {"registry.test:5000": entry}, "credsStore": "mine"}
    assert (await only(keychain(config=config, tmp_path=tmp_path).find(REFERENCE))).username == "helped"
