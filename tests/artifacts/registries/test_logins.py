"""Which login a registry gets, and when: in order, none before it is needed, and none after it was refused."""

from __future__ import annotations

import base64
import json

import pytest
from aiohttp import web

from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.login.credentials import PullSecret

TAG = "/v2/plugin/manifests/v1"


@pytest.fixture
def gate(server, oci):
    """A registry with one plugin, of which a test says who may have it; ``seen`` is what it was asked with."""
    module = oci.module("plugin")
    manifest = oci.manifest(module)
    digest = server.put("plugin:v1", manifest, module)

    class Gate:
        source = server.source("plugin:v1")
        host = server.host
        seen: list = []  # noqa: RUF012 - one a test
        tokens: list = []  # noqa: RUF012 - with what the token server was asked
        challenge = f'Bearer realm="http://{server.host}/token",service="s"'
        refusal = 401
        says_how = True
        """Whether a refusal of something has a challenge beside it; one of nothing always has."""
        anonymous = "nobody"
        """The token that nobody's credentials give."""

        @staticmethod
        def good(_authorization):
            return False

    Gate.seen, Gate.tokens, Gate.digest = [], [], digest

    async def answer(request):
        sent = request.headers.get("Authorization")
        Gate.seen.append(sent)
        if Gate.good(sent):
            body = manifest if "manifests" in request.path else module
            return web.Response(body=body, headers={"Docker-Content-Digest": digest})
        headers = {"WWW-Authenticate": Gate.challenge} if sent is None or Gate.says_how else {}
        return web.Response(status=401 if sent is None else Gate.refusal, headers=headers)

    async def token(request):
        sent = request.headers.get("Authorization")
        Gate.tokens.append(sent)
        name = base64.b64decode(sent.removeprefix("Basic ")).decode().partition(":")[0] if sent else Gate.anonymous
        return web.json_response({"token": name, "expires_in": 3600})

    for path in (TAG, f"/v2/plugin/manifests/{digest}", f"/v2/plugin/blobs/{oci.sha256(module)}"):
        server.on(path, answer)
    server.on("/token", token)
    return Gate


def login(host, *users):
    """One pull secret for each user."""
    packed = [base64.b64encode(f"{user}:pw".encode()).decode() for user in users]
    return RegistryAccess(dockerconfigs=tuple({"auths": {host: {"auth": auth}}} for auth in packed))


@pytest.fixture
def broken_machine(tmp_path):
    """A machine's configuration whose helper is not there."""
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"credsStore": "desktop", "credHelpers": {"other.test": "gone"}}))
    return path


async def test_a_helper_that_is_not_there_stops_no_public_image(gate, make_fetcher, broken_machine):
    """Docker Desktop's configuration on a machine without Docker Desktop."""
    gate.good = lambda sent: sent == "Bearer nobody"
    found = await make_fetcher(docker_config=broken_machine).fetch_oci(gate.source)
    assert found.digest == gate.digest
    assert gate.tokens == [None]


async def test_a_helper_that_is_not_there_stops_no_right_pull_secret(gate, make_fetcher, broken_machine):
    """Which stands before it."""
    gate.good = lambda sent: sent == "Bearer right"
    fetcher = make_fetcher(docker_config=broken_machine)
    assert (await fetcher.fetch_oci(gate.source, access=login(gate.host, "wrong", "right"))).digest == gate.digest


async def test_what_could_not_be_used_is_told_where_nothing_else_was_good(gate, make_fetcher, broken_machine):
    """All of it, by name, beside what was refused; and no secret."""
    secrets = (
        PullSecret(name="gone", document=None),
        PullSecret(name="broken", document="hunter2"),
        {"auths": {gate.host: {"auth": "aHVudGVyMg"}}},
    )
    access = RegistryAccess(dockerconfigs=(*secrets, *login(gate.host, "wrong").dockerconfigs))
    with pytest.raises(FetchError) as caught:
        await make_fetcher(docker_config=broken_machine).fetch_oci(gate.source, access=access)
    told = str(caught.value)
    for words in ("Secret 'gone'", "Secret 'broken'", f"the entry '{gate.host}'", "docker-credential-desktop",
                  "the credentials that were found (1: pull secret 4)"):  # fmt: skip
        assert words in told
    assert "hunter2" not in told
    assert not caught.value.transient
    assert gate.tokens[-1] is None  # nobody's were tried too, at last


@pytest.mark.parametrize("entry", [{"auth": "***"}, {"username": "u"}, {"auth": 1}, [], {"identitytoken": 5}])
async def test_an_entry_that_cannot_be_read_is_told_and_not_called_missing(gate, fetcher, entry):
    """Whoever gave a pull secret is not told to give one."""
    access = RegistryAccess(dockerconfigs=({"auths": {gate.host: entry}},))
    with pytest.raises(FetchError, match="cannot be used") as caught:
        await fetcher.resolve(gate.source, access=access)
    assert "give a pull secret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["<html>Log in, please</html>", "", "{}", '{"token": ""}', 404, 405])
async def test_a_token_server_that_gives_one_login_nothing_is_asked_with_the_next(gate, server, fetcher, answer):
    """A page to log in at is not a token, and says nothing of the other pull secrets; with none left it is reported."""
    gate.good = lambda sent: sent == "Bearer good"

    async def token(request):
        sent = request.headers.get("Authorization", "")
        if base64.b64decode(sent.removeprefix("Basic ")).startswith(b"right:"):
            return web.json_response({"access_token": "good"})
        return web.Response(status=answer) if isinstance(answer, int) else web.Response(text=answer)

    server.on("/token", token)
    assert (await fetcher.fetch_oci(gate.source, access=login(gate.host, "wrong", "right"))).digest == gate.digest
    told = f"/token answered {answer}" if isinstance(answer, int) else "/token holds no token"
    with pytest.raises(FetchError, match=rf"{told}.*token server"):
        await fetcher.resolve(gate.source, access=login(gate.host, "wrong", "bad"))


@pytest.mark.parametrize(
    "challenge",
    ["Bearer, Basic", 'Basic realm="r", Bearer realm="ftp://x"', 'bearer realm="", BASIC realm="a, b"'],
)
async def test_a_registry_that_takes_passwords_too_gets_one_where_its_token_server_is_none(gate, fetcher, challenge):
    """Of the ways in that it names, one that can be gone."""
    gate.challenge = challenge
    gate.good = lambda sent: sent == "Basic " + base64.b64encode(b"right:pw").decode()
    assert (await fetcher.fetch_oci(gate.source, access=login(gate.host, "right"))).digest == gate.digest


def named(host, *names):
    """Pull secrets of a namespace, each with a login for the registry."""
    document = json.dumps({"auths": {host: {"auth": base64.b64encode(b"u:hunter2").decode()}}})
    # Each with another password, since one that was refused is not tried again.
    return RegistryAccess(
        dockerconfigs=tuple(
            PullSecret(
                name=name,
                namespace="shop",
                document=document.replace('auth": "', f'username": "{name}", "password": "hunter2", "x": "'),
            )
            for name in names
        )
    )


async def test_the_secrets_that_were_refused_are_named(gate, fetcher):
    """By namespace and name, some of many, and nothing of what is in them."""
    with pytest.raises(FetchError) as caught:
        await fetcher.resolve(gate.source, access=named(gate.host, "a", "b"))
    told = str(caught.value)
    assert "the credentials that were found (2: the Secret 'shop/a', the Secret 'shop/b')" in told
    assert "hunter2" not in told
    with pytest.raises(FetchError, match=r"\(6: the Secret 'shop/0', .* and 2 more\)"):
        await fetcher.resolve(gate.source, access=named(gate.host, *"012345"))


async def test_secrets_without_an_entry_for_the_registry_are_named(gate, fetcher):
    """They were read, and had nothing for it."""
    with pytest.raises(FetchError, match=rf"the Secret 'shop/a' gave it nothing .* entry for {gate.host}"):
        await fetcher.resolve(gate.source, access=named("other.test", "a"))


async def test_without_any_secret_it_is_said_where_one_goes(gate, fetcher):
    """Nobody gave one."""
    with pytest.raises(FetchError, match=r"no pull secret was configured: name one in spec\.source\.oci\.pullSecrets"):
        await fetcher.resolve(gate.source, access=RegistryAccess())


async def test_a_pull_secret_for_another_registry_is_not_told_to_be_missing(gate, fetcher):
    """What is missing is an entry for this one."""
    with pytest.raises(FetchError, match=f"without credentials; .* needs an entry for {gate.host}"):
        await fetcher.resolve(gate.source, access=login("other.test", "u"))


async def test_a_helper_that_hangs_is_told_and_may_be_asked_again(gate, make_fetcher, helper, tmp_path):
    """Once for each fetch, not once for each attempt."""
    helper("slow", "exec cat /dev/zero > /dev/null")
    (tmp_path / "slow.json").write_text('{"credsStore": "slow"}')
    with pytest.raises(FetchError, match="did not answer") as caught:
        await make_fetcher(docker_config=tmp_path / "slow.json", helper=0.2).resolve(gate.source)
    assert caught.value.transient
    assert gate.seen == [None, "Bearer nobody"]


async def test_the_same_login_from_two_sources_is_tried_once(gate, fetcher):
    """Registries count wrong passwords."""
    with pytest.raises(FetchError, match=r"\(1: pull secret 1\)"):
        await fetcher.resolve(gate.source, access=login(gate.host, "wrong", "wrong"))
    assert len(gate.tokens) == 2


async def test_a_registry_token_is_sent_as_it_is(gate, fetcher):
    """No token server is asked."""
    gate.good = lambda sent: sent == "Bearer direct"
    access = RegistryAccess(dockerconfigs=({"auths": {gate.host: {"registrytoken": "direct"}}},))
    assert await fetcher.resolve(gate.source, access=access) == gate.digest
    assert gate.tokens == []


@pytest.mark.parametrize("says_how", [True, False])
@pytest.mark.parametrize("refusal", [400, 401, 403])
@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
async def test_a_kept_login_that_is_refused_is_forgotten_and_the_request_made_without_it(
    gate, fetcher, refusal, says_how, challenge
):
    """Whatever the refusal looks like: once without it, and the image is public by now."""
    if challenge == "Basic":
        gate.challenge = 'Basic realm="r"'
    access = login(gate.host, "me")
    gate.good = lambda sent: sent is not None
    await fetcher.resolve(gate.source, access=access)
    (kept,) = gate.seen[1:]
    gate.seen.clear()
    gate.refusal, gate.says_how = refusal, says_how
    gate.good = lambda sent: sent is None

    assert await fetcher.resolve(gate.source, access=access) == gate.digest
    assert gate.seen == [kept, None]
    assert await fetcher.resolve(gate.source, access=access) == gate.digest
    assert gate.seen == [kept, None, None]


@pytest.mark.parametrize("refusal", [400, 401, 403])
async def test_a_kept_login_that_has_ended_is_made_anew(gate, fetcher, refusal):
    """Without it the registry says how to log in, and the same credentials are good again."""
    access = login(gate.host, "me")
    gate.good = lambda sent: sent is not None
    await fetcher.resolve(gate.source, access=access)
    gate.seen.clear()
    gate.refusal, gate.says_how = refusal, False
    refused = iter([False])
    gate.good = lambda sent: sent is not None and next(refused, True)

    assert await fetcher.resolve(gate.source, access=access) == gate.digest
    assert gate.seen == ["Bearer me", None, "Bearer me"]


@pytest.mark.parametrize("refusal", [400, 403])
async def test_a_login_that_ends_between_two_requests_of_one_pull_is_made_anew(gate, fetcher, refusal):
    """It was good for the manifest: its owner is not struck out."""
    access = login(gate.host, "me")
    gate.refusal, gate.says_how = refusal, False
    answers = iter([True, True, False, True])  # HEAD, manifest, blob, blob
    gate.good = lambda sent: sent is not None and next(answers)
    assert (await fetcher.fetch_oci(gate.source, access=access)).digest == gate.digest
    assert gate.seen == [None, *["Bearer me"] * 3, None, "Bearer me"]


@pytest.mark.parametrize("refusal", [400, 401, 403])
async def test_a_new_login_that_is_refused_gives_way_to_the_next(gate, fetcher, refusal):
    """With or without a challenge."""
    gate.refusal, gate.says_how = refusal, False
    gate.good = lambda sent: sent == "Bearer right"
    assert await fetcher.resolve(gate.source, access=login(gate.host, "wrong", "right")) == gate.digest
    assert gate.seen == [None, "Bearer wrong", "Bearer right"]


async def test_a_refusal_of_nothing_is_told_as_it_is(gate, fetcher, server):
    """A 400 or a 403 without any login has nothing to forget: one request, one error."""
    for status in (400, 403):
        server.requests.clear()

        async def refuse(_request, status=status):
            return web.Response(status=status)

        server.on(f"/v2/plugin/manifests/{gate.digest}", refuse)
        with pytest.raises(FetchError, match=str(status)):
            await fetcher.fetch_oci(gate.source, digest=gate.digest)
        assert len(server.requests) == 1


async def test_a_login_that_a_redirect_does_not_want_is_left_out_there(gate, server, fetcher, oci):
    """A store behind the registry's own address: what is signed in its URL is the login, and two are one too many."""
    module = oci.module("plugin")
    asked = []

    async def store(request):
        asked.append(request.headers.get("Authorization"))
        return web.Response(status=400) if asked[-1] else web.Response(body=module)

    async def away(_request):
        return web.Response(status=307, headers={"Location": "/store?X-Signature=a%2Fb"})

    server.on("/store", store)
    server.on(f"/v2/plugin/blobs/{oci.sha256(module)}", away)
    gate.good = lambda sent: sent is not None
    assert (await fetcher.fetch_oci(gate.source, access=login(gate.host, "me"))).digest == gate.digest
    assert asked == ["Bearer me", None]
