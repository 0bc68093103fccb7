"""Pushing: what is there stays, what fails is tried anew, and a registry's answers lead credentials nowhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import pytest
from aiohttp import web

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.net.proxies import from_environment
from hookline_artifacts.reference import parse
from hookline_artifacts.targets import Session, digest_of, listed

BLOB = b"a blob"
UPLOADS = "/v2/plugin/blobs/uploads/"


@pytest.fixture
async def make_target(tmp_path):
    """Makes targets that see the logins of ``tmp_path / "config.json"``, and do not wait between attempts."""
    async with contextlib.AsyncExitStack() as stack:

        def make(server, *, repository="plugin", **limits):
            session = Session.new(
                limits=FetchLimits(**{"backoff": 0.001, **limits}), docker_config=tmp_path / "config.json"
            )
            stack.push_async_callback(session.close)
            return session.target(
                parse(f"{server.host}/{repository}:1"),
                insecure=server.scheme == "http",
                access=RegistryAccess(by_hand=True, ca_pem=getattr(server, "ca_pem", None)),
                base=tmp_path,
            )

        yield make


def log_in(tmp_path: Path, host: str, user="pusher", password="s3cret"):
    """Write a docker configuration with a login."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def uploading(server, answers, *, location=f"{UPLOADS}1"):
    """Let a server take uploads at ``location``; each PUT is answered with the next status, the last for ever."""
    taken = []

    async def begin(_):
        return web.Response(status=202, headers={"Location": location} if location is not None else {})

    async def take(request):
        taken.append((request.query.get("digest"), await request.read()))
        return web.Response(status=answers.pop(0) if len(answers) > 1 else answers[0])

    server.on(UPLOADS, begin)
    server.on(f"{UPLOADS}1", take)
    return taken


async def test_a_blob_is_sent_once(server, make_target):
    """With its digest and its length. What is there is not sent at all."""
    taken = uploading(server, [201])
    await make_target(server).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert taken == [(digest_of(BLOB), BLOB)]
    assert [request.method for request in server.requests] == ["HEAD", "POST", "PUT"]
    assert server.requests[-1].headers["Content-Length"] == str(len(BLOB))

    server._content[f"/v2/plugin/blobs/{digest_of(BLOB)}"] = BLOB
    await make_target(server).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert len(taken) == 1


async def test_an_upload_that_fails_is_begun_anew(server, make_target):
    """A place that lost bytes is not used again."""
    taken = uploading(server, [503, 500, 201])
    await make_target(server).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert len(taken) == 3
    assert [request.method for request in server.requests].count("POST") == 3


@pytest.mark.parametrize(("status", "said"), [(413, "of that size"), (405, "takes no pushes"), (404, "takes pushes")])
async def test_a_refusal_is_told(server, make_target, status, said):
    """As of what was pushed, with what to do."""
    uploading(server, [status])
    with pytest.raises(FetchError, match=rf"cannot be pushed.*{status}.*{said}") as caught:
        await make_target(server).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert not caught.value.transient


async def test_credentials_do_not_follow_the_place_of_a_blob(serve, make_target, tmp_path):
    """A registry may keep its blobs anywhere; who we are is told to itself alone."""
    registry, store = await serve(), await serve()
    log_in(tmp_path, registry.host)
    taken = uploading(store, [201])

    async def begin(request):
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.Response(status=202, headers={"Location": f"http://{store.host}{UPLOADS}1?signed=yes"})

    registry.on(UPLOADS, begin)
    await make_target(registry).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert taken == [(digest_of(BLOB), BLOB)]
    (put,) = store.requests
    assert "Authorization" not in put.headers
    assert put.query["signed"] == "yes"


async def test_what_is_pushed_over_tls_stays_there(serve, make_target, authority):
    """A place without it is refused before a byte is sent."""
    registry, store = await serve(authority=authority), await serve()
    registry.ca_pem = authority.pem
    uploading(registry, [201], location=f"http://{store.host}{UPLOADS}1")
    with pytest.raises(FetchError, match="over plain HTTP"):
        await make_target(registry).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert store.requests == []


@pytest.mark.parametrize("location", [None, "", "http://", "ftp://host/x", "http://[::1"])
async def test_a_place_that_is_none_is_told(server, make_target, location):
    """After some attempts."""
    uploading(server, [201], location=location)
    with pytest.raises(FetchError, match="names no usable place"):
        await make_target(server, attempts=2).put_blob(digest_of(BLOB), Cargo.of(BLOB))


async def test_a_push_is_not_redirected(serve, make_target):
    """Where to is for the registry's answer to a POST to say."""
    registry, other = await serve(), await serve()

    async def redirect(_):
        return web.Response(status=307, headers={"Location": f"http://{other.host}{UPLOADS}"})

    registry.on(UPLOADS, redirect)
    with pytest.raises(FetchError, match="answered 307"):
        await make_target(registry).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert other.requests == []


async def test_who_takes_no_bytes_is_given_up(server, make_target):
    """A server that does not read keeps nobody waiting for ever."""
    waiting = asyncio.Event()
    uploading(server, [201])

    async def reads_nothing(_):
        await waiting.wait()
        return web.Response(status=201)

    server.on(f"{UPLOADS}1", reads_nothing)
    large = bytes(32 << 20)
    try:
        with pytest.raises(FetchError, match=r"cannot be pushed.*longer than"):
            await make_target(server, stall=0.5, attempts=1).put_blob(digest_of(large), Cargo.of(large))
    finally:
        waiting.set()


async def test_a_push_goes_through_a_proxy(server, tmp_path):
    """As everything else does; the registry's name is the proxy's to look up."""
    proxies = from_environment({"HTTP_PROXY": f"http://{server.host}"})
    session = Session.new(limits=FetchLimits(), docker_config=tmp_path / "config.json", proxies=proxies)
    reference = parse("registry.example.com/plugin:1")
    target = session.target(reference, insecure=True, access=RegistryAccess(), base=tmp_path)
    taken = uploading(server, [201])
    try:
        await target.put_blob(digest_of(BLOB), Cargo.of(BLOB))
    finally:
        await session.close()
    assert taken == [(digest_of(BLOB), BLOB)]
    assert {request.host for request in server.requests} == {"registry.example.com"}


async def test_a_token_is_asked_for_with_the_right_to_push(serve, make_target, tmp_path):
    """One for pulling, which was kept, does not do."""
    registry = await serve()
    log_in(tmp_path, registry.host)
    scopes = []

    async def token(request):
        scopes.append(request.query["scope"])
        return web.json_response({"token": scopes[-1].rpartition(":")[2].replace(",", "-")})

    async def manifest(request):
        wanted = "Bearer pull-push" if request.method == "PUT" else "Bearer pull"
        if request.headers.get("Authorization") != wanted:
            challenge = f'Bearer realm="http://{registry.host}/token",service="x"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.Response(status=201) if request.method == "PUT" else web.json_response({"layers": []})

    registry.on("/token", token)
    registry.on("/v2/plugin/manifests/1", manifest)
    target = make_target(registry)
    await target.reader.manifest("1")
    await target.put_manifest(b'{"layers": []}', tag="1")
    assert scopes == ["repository:plugin:pull", "repository:plugin:pull,push"]


async def test_a_real_registry_with_a_password_takes_a_push(password_registry, make_target, tmp_path, oci):
    """With docker's login; without one, what to do is said in the words of a command line."""
    document = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    with pytest.raises(FetchError, match=r"docker login.*--docker-config"):
        await make_target(password_registry).put_blob(digest_of(BLOB), Cargo.of(BLOB))
    log_in(tmp_path, password_registry.host, oci.user, oci.password)
    target = make_target(password_registry)
    await target.put_blob(digest_of(BLOB), Cargo.of(BLOB))
    assert await target.has(digest_of(BLOB))
    await target.put_manifest(document, tag="1")
    assert await target.reader.manifest("1") == document


async def test_what_is_attached_and_never_listed_is_told(server, make_target):
    """A registry that takes a list and forgets it."""
    subject = "sha256:" + "a" * 64

    async def takes(request):
        return web.Response(status=201 if request.method == "PUT" else 404)

    server.otherwise(takes)
    with pytest.raises(FetchError, match="does not list what was attached"):
        await make_target(server).attach(b'{"layers": [], "subject": {}}', subject)
    assert [request.method for request in server.requests].count("PUT") == 4


def test_a_list_keeps_what_others_put_there():
    """And has each entry once."""
    others = json.dumps(
        {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{'b' * 64}", "size": 1, "x": 1}]}
    ).encode()
    entry = {"digest": f"sha256:{'c' * 64}", "size": 2}

    def same(each):
        return each["digest"] == entry["digest"]

    once = listed(others, entry, same=same)
    assert [each["size"] for each in json.loads(once)["manifests"]] == [1, 2]
    assert json.loads(once)["manifests"][0]["x"] == 1
    assert listed(once, entry, same=same) is None
    changed = listed(once, {**entry, "size": 3}, same=same)
    assert [each["size"] for each in json.loads(changed)["manifests"]] == [1, 3]


def test_a_list_that_is_none_is_refused():
    """Whatever stands there is not written over."""
    for document in (b"[]", b'{"layers": []}'):
        with pytest.raises(VerifyError):
            listed(document, {}, same=lambda _: False)
