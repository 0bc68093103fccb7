"""``/admin/kv``: an administrator reads and writes plugins' keys; guests see it at once, and strangers get nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from hookline_runtime.host.kv import MAX_KEYS, MAX_NAMESPACES, KvError, KvStore
from waiting import PATIENCE_S, until

NOBODY = 65534
TOKEN = "a-token-that-is-long-enough"
PERMISSIONS = ["kv.read", "kv.write"]

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Admin:
    """Requests at the admin paths: over the socket, or over TCP with whatever token."""

    def __init__(self, sidecar):
        self.sidecar = sidecar
        self.path = sidecar.state / "admin.sock"

    def __call__(self, method, path, body=None, *, tcp=False, headers=None):
        """Status, headers and body, which is parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.sidecar.admin_port, timeout=PATIENCE_S)
        if not tcp:
            connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            raw = answer.read()
            is_json = "json" in (answer.headers["Content-Type"] or "")
            return answer.status, answer.headers, json.loads(raw) if is_json else raw

    def connect(self):
        """A connection to the socket."""
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(PATIENCE_S)
        try:
            unix.connect(str(self.path))
        except OSError:
            unix.close()
            raise
        return unix

    def problem(self, *arguments, **options):
        """Status and sentence of a problem document."""
        status, headers, body = self(*arguments, **options)
        assert headers["Content-Type"] == "application/problem+json", body
        assert (body["status"], headers["Server"]) == (status, "hookline")
        return status, body["detail"]

    def metric(self, name):
        """The lines of one metric, by labels."""
        found = re.findall(rf"^{name}{{(.*)}} ([0-9.]+)$", self.sidecar.get("/metrics")[1], re.MULTILINE)
        return {labels: float(value) for labels, value in found}


@pytest.fixture(scope="module")
def running(new_sidecar, guests, tmp_path_factory):
    """A sidecar of two workers with a token, and a plugin ``p`` that answers its key ``k``."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    sidecar = new_sidecar(workers=2, admin_token=token, body_timeout="60s")
    sidecar.token = token
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    sidecar.folder.plugin("counter", guests.counter(), permissions=PERMISSIONS, hooks=["custom_hook"], priority=-1)
    return sidecar.start()


@pytest.fixture
def admin(running):
    """Requests to it; each test begins with a namespace that is empty."""
    made = Admin(running)
    while keys := made("GET", "/admin/kv/p")[2]["entries"]:
        for each in keys:
            assert made("DELETE", each["path"])[0] == 200
    return made


async def say_all(sidecar, count=8):
    """What the workers say on so many connections that are open together."""
    sidecar.wait_workers()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(sidecar.client()) for _ in range(count)]
        said = []
        for session in sessions:
            async with session.post("/v1/hooks/custom_hook", json=0) as response:
                said.append((await response.json()).get("value"))
        assert all(sidecar.connections())
        return said


# ── what HeliosDB's scripts do ──


async def test_a_value_is_there_for_the_next_call_in_all_workers(admin, running):
    """Written, changed, deleted: with HeliosDB's paths and fields."""
    for value in ("one", "two"):
        status, _, body = admin("PUT", "/admin/kv/p/k", json.dumps(value))
        assert (status, body["ok"]) == (200, True)
        assert await say_all(running) == [value] * 8
        assert admin("GET", "/admin/kv/p/k")[2] == {"plugin": "p", "key": "k", "value": f'"{value}"', "ttl_ms": None}
    assert admin("DELETE", "/admin/kv/p/k")[2]["ok"] is True
    assert admin("DELETE", "/admin/kv/p/k")[:1] == (200,)
    assert all(isinstance(said, int) for said in await say_all(running))  # the plugin behind it answers


def test_a_key_may_hold_slashes_dots_and_any_byte(admin):
    """What stands behind the plugin's name is the key, percent-decoded, and no path is made shorter."""
    for path, key in {
        "budget/tenant-a": b"budget/tenant-a",
        "tenant:acme:budget": b"tenant:acme:budget",
        "..%2f..%2fhealthz": b"../../healthz",
        "../../healthz": b"../../healthz",
        "a//b/": b"a//b/",
        "%2F": b"/",
        "a%3Fb%23c+d%20e": b"a?b#c+d e",
        "%C3%A9%F0%9F%98%80": "é😀".encode(),
        "%00%0a%ff%fe": b"\0\n\xff\xfe",
        "k?x=1&y": b"k",
    }.items():
        assert admin("PUT", f"/admin/kv/p/{path}", path.encode())[0] == 200, path
        plain, _, query = path.partition("?")
        status, _, body = admin("GET", f"/admin/kv/p/{quote(key, safe='')}" + (f"?{query}" if query else ""))
        assert status == 200
        assert body["value"] == path
        found = body.get("key", "").encode() or base64.b64decode(body.get("key_base64", ""))
        assert found == key, plain
    listed = admin("GET", "/admin/kv/p/?limit=1024")[2]
    assert len(listed["keys"]) == 9
    for each in listed["entries"]:
        assert not {".", ".."} & {*each["path"].split("/")}
        assert admin("GET", each["path"])[0] == 200


@pytest.mark.parametrize("value", [b"", b"x" * 65536, bytes(range(256)), '{"a": "é"}'.encode(), b"\xff"])
def test_a_value_may_be_any_bytes(admin, value):
    """Text comes as text, all else in base64 under another name; or byte for byte where that is asked for."""
    assert admin("PUT", "/admin/kv/p/v", value)[0] == 200
    _, headers, body = admin("GET", "/admin/kv/p/v")
    found = body["value"].encode() if "value" in body else base64.b64decode(body["value_base64"])
    assert found == value
    status, raw_headers, raw = admin("GET", "/admin/kv/p/v", headers={"Accept": "application/octet-stream"})
    assert (status, raw) == (200, value)
    assert headers["ETag"] == raw_headers["ETag"]


def test_a_value_in_chunks_is_one_value(admin):
    """As curl sends from a pipe."""
    assert admin("PUT", "/admin/kv/p/v", iter([b"a" * 1000, b"b" * 1000]))[0] == 200
    assert admin("GET", "/admin/kv/p/v")[2]["value"] == "a" * 1000 + "b" * 1000


def test_a_list_has_names_sizes_and_what_is_left_of_their_time(admin, running):
    """Sorted, with or without the last slash; a prefix is percent-decoded, and + is no blank."""
    for key in ("b", "a/1", "a/2", "a+b"):
        admin("PUT", f"/admin/kv/p/{key}", "12345")
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        store.set_ttl("p", b"b", 3_600_000)
    for path in ("/admin/kv/p", "/admin/kv/p/"):
        status, _, body = admin("GET", path)
        assert (status, body["plugin"], body["keys"]) == (200, "p", ["a+b", "a/1", "a/2", "b"])
        assert [(each["key"], each["size"], each["path"]) for each in body["entries"]][1] == (
            "a/1",
            5,
            "/admin/kv/p/a/1",
        )
        assert [each["ttl_ms"] for each in body["entries"]][:3] == [None] * 3
        assert 0 < body["entries"][3]["ttl_ms"] <= 3_600_000
        assert body["next"] is None
    assert 0 < admin("GET", "/admin/kv/p/b")[2]["ttl_ms"] <= 3_600_000
    assert admin("GET", "/admin/kv/p/?prefix=a%2F")[2]["keys"] == ["a/1", "a/2"]
    assert admin("GET", "/admin/kv/p/?prefix=a+")[2]["keys"] == ["a+b"]
    assert admin("GET", "/admin/kv/p?prefix=nothing")[2]["keys"] == []


def test_lists_come_in_pages_that_lead_to_each_key_once(admin, running):
    """Bounded in keys and in bytes, whatever the keys are."""
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        keys = sorted([b"%03d" % number for number in range(250)] + [b"\xff" * 60_000 + bytes([n]) for n in range(9)])
        for key in keys:
            store.put("p", key, b"")
    found, sizes, page = [], [], "/admin/kv/p?prefix="
    while page is not None:
        body = admin("GET", page)[2]
        found += [
            base64.b64decode(e["key_base64"]) if "key_base64" in e else e["key"].encode() for e in body["entries"]
        ]
        sizes.append(len(body["entries"]))
        page = body["next"]
    assert found == keys
    assert sizes == [100, 100, 54, 4, 1]
    assert admin.problem("GET", "/admin/kv/p?limit=0") == (400, "limit is a number from 1 to 1024")
    assert admin.problem("GET", "/admin/kv/p?limit=1025")[0] == 400


def test_the_plugins_are_listed_too(admin):
    """Those that are loaded, and those that have keys."""
    admin("PUT", "/admin/kv/p/k", "12345")
    admin("PUT", "/admin/kv/later/k?prepare=true", "1")
    found = {each["plugin"]: each for each in admin("GET", "/admin/kv")[2]["plugins"]}
    assert found["p"] == {"plugin": "p", "loaded": True, "keys": 1, "bytes": 6}
    assert found["later"]["loaded"] is False
    assert "counter" in found
    admin("DELETE", "/admin/kv/later/k")


# ── what cannot be ──


def test_each_mistake_has_its_status_and_its_sentence(admin):
    """Problem documents, as everywhere on this port."""
    assert admin.problem("GET", "/admin/kv/p/nope") == (404, "plugin 'p' has no key 'nope'")
    assert admin.problem("GET", "/admin/kv//k")[0] == 400
    assert admin.problem("GET", "/admin/kv/p/%zz")[0] == 400
    assert admin.problem("GET", "/admin/kvx/p/k")[0] == 404
    assert admin.problem("GET", "/admin/other")[0] == 404
    assert admin.problem("POST", "/admin/kv/p/k", "v")[0] == 405
    assert admin("POST", "/admin/kv/p/k", "v")[1]["Allow"] == "GET, PUT, DELETE"
    assert admin("DELETE", "/admin/kv/p")[1]["Allow"] == "GET"
    assert admin.problem("PUT", "/admin/kv/p/", "v")[0] == 405
    assert admin.problem("PUT", "/admin/kv/p/v", b"x" * 65537) == (413, "a value has at most 65536 bytes")
    assert admin.problem("PUT", "/admin/kv/p/v", iter([b"x" * 65536, b"x"]))[0] == 413
    assert admin("PUT", f"/admin/kv/p/{'x' * 65536}", "v")[0] == 200
    assert admin("DELETE", f"/admin/kv/p/{'%78' * 65536}", "v")[2] == {"ok": True, "existed": True}
    assert admin.problem("PUT", f"/admin/kv/p/{'x' * 65537}", "v")[0] == 413
    assert admin.problem("PUT", "/admin/kv/p/v", "v", headers={"Content-Encoding": "gzip"})[0] == 415
    assert admin("GET", "/admin/kv/p")[2]["keys"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_plugin_that_is_not_there_is_told_with_those_that_are(admin, method):
    """HeliosDB's name of a plugin is often not its metadata.name here."""
    status, sentence = admin.problem(method, "/admin/kv/helios-plugin-p/k", "v" if method == "PUT" else None)
    assert status == 404
    assert "there is no plugin 'helios-plugin-p', but counter, p; a plugin's keys go by its metadata.name" in sentence
    assert admin.problem("GET", "/admin/kv/helios-plugin-p")[0] == 404
    assert admin.problem("PUT", "/admin/kv/Not_A_Name/k?prepare=true", "v")[0] == 400


async def test_keys_may_be_there_before_their_plugin(admin, running, guests):
    """With ``?prepare=true``, once; then the plugin has a namespace."""
    assert admin("PUT", "/admin/kv/soon/k?prepare=true", '"prepared"')[0] == 200
    assert admin("PUT", "/admin/kv/soon/more", "1")[0] == 200
    running.folder.plugin(
        "soon", guests.stored(), permissions=PERMISSIONS, priority=5, kv={"initial": {"k": '"initial"'}}
    )
    await running.wait_says("prepared")
    running.folder.remove("soon.yaml")
    for key in ("k", "more"):
        admin("DELETE", f"/admin/kv/soon/{key}")


def test_a_full_store_says_which_cap_it_is(admin, running):
    """507; an existing key can still be changed, and room be made."""
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        for number in range(MAX_KEYS):
            store.put("p", b"%d" % number, b"")
    status, sentence = admin.problem("PUT", "/admin/kv/p/more", "v")
    assert (status, "the plugin has its 1024 keys already" in sentence) == (507, True)
    assert admin("PUT", "/admin/kv/p/0", "v")[0] == 200
    assert admin("DELETE", "/admin/kv/p/1")[0] == 200
    assert admin("PUT", "/admin/kv/p/more", "v")[0] == 200
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        names = [f"n{number}" for number in range(MAX_NAMESPACES)]

        def refused():
            # The sidecar may be dropping the keys of plugins that are gone, as it does after each new bundle.
            with contextlib.suppress(KvError):
                for name in names:
                    store.put(name, b"k", b"")
            status, _, body = admin("PUT", "/admin/kv/another/k?prepare=true", "v")
            return body["detail"] if status == 507 else None

        assert f"{MAX_NAMESPACES} plugins have keys already" in until(refused, "a full store")
        for name in names:
            store.delete(name, b"k")


# ── two at once ──


def test_a_change_may_depend_on_what_is_there(admin):
    """If-Match and If-None-Match, for writing and deleting; what is not changed is said with what is there."""
    put = ("PUT", "/admin/kv/p/k")
    assert admin.problem(*put, "0", headers={"If-Match": "*"})[0] == 412
    status, headers, _ = admin(*put, "1", headers={"If-None-Match": "*"})
    assert status == 200
    first = headers["ETag"]
    assert admin("GET", "/admin/kv/p/k")[1]["ETag"] == first
    assert admin.problem(*put, "2", headers={"If-None-Match": "*"}) == (
        412, f"nothing is changed: the key 'k' is {first}, and If-Match or If-None-Match differs"
    )  # fmt: skip
    assert admin(*put, "2", headers={"If-Match": f'"other", {first}'})[0] == 200
    assert admin.problem(*put, "3", headers={"If-Match": first})[0] == 412
    assert admin.problem("DELETE", "/admin/kv/p/k", headers={"If-Match": first})[0] == 412
    assert admin("GET", "/admin/kv/p/k")[2]["value"] == "2"
    assert admin.problem(*put, "3", headers={"If-Match": "2"})[0] == 400
    assert admin("DELETE", "/admin/kv/p/k", headers={"If-Match": "*"})[2] == {"ok": True, "existed": True}


async def test_guests_that_count_and_an_administrator_lose_no_update(admin, running):
    """Calls in two workers add to a number while an administrator adds to it too, by If-Match."""
    calls, mine = 120, 0
    admin("PUT", "/admin/kv/counter/n", "0")

    async def count(session):
        for _ in range(calls // 4):
            async with session.post("/v1/hooks/custom_hook", json=0) as response:
                assert (await response.json())["action"] != "block"

    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(running.client()) for _ in range(4)]
        counting = [asyncio.create_task(count(session)) for session in sessions]
        while not all(task.done() for task in counting) or mine < 20:
            _, headers, body = await asyncio.to_thread(admin, "GET", "/admin/kv/counter/n")
            added = str(int(body["value"]) + 1)
            status, _, _ = await asyncio.to_thread(
                admin, "PUT", "/admin/kv/counter/n", added, headers={"If-Match": headers["ETag"]}
            )
            assert status in {200, 412}
            mine += status == 200
        await asyncio.gather(*counting)
    assert admin("GET", "/admin/kv/counter/n")[2]["value"] == str(calls + mine)


# ── who may ──


def test_the_socket_is_its_owners_alone(admin, running):
    """Whatever the folder's mode is; and nothing is left beside it."""
    assert stat.S_IMODE(admin.path.stat().st_mode) == 0o600
    assert admin.path.stat().st_uid == os.geteuid()
    assert not [path.name for path in running.state.iterdir() if path.name.startswith(".admin")]


@only_root
def test_another_user_does_not_get_in_by_the_socket(new_sidecar, guests):
    """Not even where everybody may look into the state folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        state = folder / "state"
        state.mkdir(mode=0o777)
        state.chmod(0o777)
        sidecar = new_sidecar(state=state)
        sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
        sidecar.start()
        try:
            assert as_nobody(lambda: connected(state / "admin.sock")) == 13
            assert connected(state / "admin.sock") == 0
        finally:
            sidecar.end()


def connected(path):
    """0 where one may connect, or the number of the error."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path))


def as_nobody(function):
    """What it returns, a small number, as the user ``nobody``."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


STRANGERS = [
    {},
    {"Authorization": TOKEN},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Basic {base64.b64encode(TOKEN.encode()).decode()}"},
    {"Authorization": "Bearer \xe9"},
    {"X-Authorization": f"Bearer {TOKEN}"},
]


@pytest.mark.parametrize("headers", STRANGERS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/kv"), ("GET", "/admin/kv/p"), ("GET", "/admin/kv/p/k"), ("PUT", "/admin/kv/p/k"),
        ("DELETE", "/admin/kv/p/k"), ("POST", "/admin/kv/p/k"), ("GET", "/admin/what"), ("GET", "/admin/kv/../kv/p"),
    ],
)  # fmt: skip
def test_a_stranger_at_the_port_learns_and_changes_nothing(admin, headers, method, path):
    """One answer to all of it: which token is wanted, and no word of plugins or keys."""
    admin("PUT", "/admin/kv/p/k", "kept")
    before = admin.metric("hookline_admin_refused_total").get('reason="token"', 0)
    status, answer, body = admin(method, path, "v" if method != "GET" else None, tcp=True, headers=headers)
    assert (status, answer["WWW-Authenticate"]) == (401, 'Bearer realm="hookline"')
    assert "Authorization: Bearer TOKEN" in body["detail"]
    assert admin.metric("hookline_admin_refused_total")['reason="token"'] == before + 1
    assert admin("GET", "/admin/kv/p/k")[2]["value"] == "kept"


def test_the_tokens_bearer_may_do_the_same_as_the_sockets_owner(admin, running):
    """Bearer in any case; and a token that was rotated counts from the next request on, the old one no more."""
    for scheme in ("Bearer", "bearer"):
        assert admin("PUT", "/admin/kv/p/k", "1", tcp=True, headers={"Authorization": f"{scheme} {TOKEN}"})[0] == 200
    running.token.write_text("another\n")
    try:
        assert admin("GET", "/admin/kv/p/k", tcp=True, headers={"Authorization": f"Bearer {TOKEN}"})[0] == 401
        assert admin("GET", "/admin/kv/p/k", tcp=True, headers={"Authorization": "Bearer another"})[0] == 200
        for content, words in ((b"", "is empty"), (b" \n", "is empty"), (b"x" * 5000, "more than 4096 bytes")):
            running.token.write_bytes(content)
            for given in ("Bearer ", "Bearer x", f"Bearer {'x' * 4096}"):
                status, sentence = admin.problem("GET", "/admin/kv/p/k", tcp=True, headers={"Authorization": given})
                assert (status, words in sentence) == (503, True)
        running.token.unlink()
        status, sentence = admin.problem("GET", "/admin/kv/p/k", tcp=True, headers={"Authorization": "Bearer x"})
        assert (status, "cannot be read: No such file" in sentence) == (503, True)
    finally:
        running.token.write_text(TOKEN)


def test_without_a_token_the_port_answers_nobody_and_says_how(new_sidecar, guests):
    """The other paths of the port are as open as they were; the socket answers all of them."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    sidecar.start()
    admin = Admin(sidecar)
    for headers in STRANGERS:
        status, sentence = admin.problem("PUT", "/admin/kv/p/k", "v", tcp=True, headers=headers)
        assert status == 403
        assert "start the sidecar with --admin-token FILE" in sentence
        assert "hookline-sidecar kv" in sentence
    assert sidecar.get("/healthz")[0] == 200
    assert admin("GET", "/healthz")[0] == admin("GET", "/v1/bundle")[0] == 200
    assert admin("GET", "/admin/kv/p")[2]["keys"] == []
    assert admin.metric("hookline_admin_refused_total") == {'reason="off"': len(STRANGERS)}
    assert sidecar.log.count("an admin path is refused to 127.0.0.1") == 1  # now and then, and not for each
    assert sidecar.stop() == 0
    assert not admin.path.exists()


# ── what is told ──


def test_each_change_is_one_line_of_the_log_without_its_value(admin, running):
    """Who, what and how large; also at a log level that hides all else. A key writes no line of its own."""
    admin("PUT", "/admin/kv/p/a%0Akey", "s3cret-value")
    admin("PUT", "/admin/kv/p/k", "1", tcp=True, headers={"Authorization": f"Bearer {TOKEN}"})
    admin("DELETE", "/admin/kv/p/k")
    admin("DELETE", "/admin/kv/p/k")
    admin("PUT", f"/admin/kv/p/{'x' * 5000}", "1")
    admin("GET", "/admin/kv/p/k")
    lines = [line.partition(" hookline.audit")[2].partition(": ")[2] for line in running.log.splitlines()]
    told = [line for line in lines if line][-4:]
    me = f"user {os.geteuid()}, process {os.getpid()}"
    assert told[0] == f"kv: {me} put 'a\\nkey' of plugin 'p', 12 bytes"
    assert told[1] == "kv: the token's bearer at 127.0.0.1 put 'k' of plugin 'p', 1 bytes"
    assert told[2] == f"kv: {me} deleted 'k' of plugin 'p'"
    assert told[3] == f"kv: {me} put '{'x' * 128}'… (5000 bytes) of plugin 'p', 1 bytes"
    assert "s3cret-value" not in running.log
    assert TOKEN not in running.log


def test_changes_are_logged_at_every_level(new_sidecar, guests):
    """An audit that a log level silences is none."""
    sidecar = new_sidecar(log_level="error", log_format="json")
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    sidecar.start()
    Admin(sidecar)("PUT", "/admin/kv/p/k", "1")
    (line,) = [json.loads(line) for line in sidecar.log.splitlines() if "hookline.audit" in line]
    assert line["message"].endswith("put 'k' of plugin 'p', 1 bytes")


def test_requests_are_counted_and_described(admin):
    """In the metrics by method and status, and in the specification."""
    before = admin.metric("hookline_admin_kv_requests_total").get('code="404",method="GET"', 0)
    admin("GET", "/admin/kv/p/none")
    assert admin.metric("hookline_admin_kv_requests_total")['code="404",method="GET"'] == before + 1
    paths = admin("GET", "/openapi.json")[2]["paths"]
    assert set(paths["/admin/kv/{plugin}/{key}"]) == {"get", "put", "delete"}
    assert "get" in paths["/admin/kv/{plugin}"]


# ── what is slow, or breaks off ──


HEAD = b"PUT /admin/kv/p/k HTTP/1.1\r\nHost: x\r\n"


def test_a_value_that_does_not_come_is_not_waited_for_long(new_sidecar, guests):
    """Not longer than --body-timeout, and nothing is stored."""
    sidecar = new_sidecar(body_timeout="200ms")
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    sidecar.start()
    with Admin(sidecar).connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert Admin(sidecar)("GET", "/admin/kv/p/k")[0] == 404


def test_a_value_that_breaks_off_is_not_stored(admin, eventually):
    """Half of one would be a rule of nobody's making."""
    with admin.connect() as broken:
        broken.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
    with admin.connect() as broken:
        broken.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n")
        assert b" 400 Bad Request" in broken.recv(1000).splitlines()[0]
    counted = "hookline_admin_kv_requests_total"
    eventually(lambda: admin.metric(counted).get('code="400",method="PUT"'), "the end of the first one")
    assert admin("GET", "/admin/kv/p/k")[0] == 404


def test_many_that_wait_keep_nobody_else_waiting(admin, eventually):
    """Beyond a few under way, the next is told to come again; the rest of the port answers."""
    waiting = [admin.connect() for _ in range(8)]
    for each in waiting:
        each.sendall(b"PUT /admin/kv/p/k HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")

    def told():
        status, headers, _ = admin("GET", "/admin/kv/p")
        return headers["Retry-After"] == "1" if status == 503 else None

    eventually(told, "an answer 503")
    assert admin("GET", "/healthz")[0] == 200
    for each in waiting:
        each.close()
    eventually(lambda: admin("GET", "/admin/kv/p")[0] == 200, "an answer, since they are gone")


def test_a_store_that_somebody_holds_is_said_and_reading_goes_on(admin, running, eventually):
    """A worker that is stopped within a transaction, say: writers are told after ten seconds, and are not piled up."""
    admin("PUT", "/admin/kv/p/k", "before")
    with contextlib.closing(KvStore(running.state / "kv")) as store, store.changes(only_try=True):
        status, sentence = admin.problem("PUT", "/admin/kv/p/k", "after")
        assert (status, "a change may still be made" in sentence) == (503, True)
        assert admin("GET", "/admin/kv/p/k")[2]["value"] == "before"
    eventually(lambda: admin("GET", "/admin/kv/p/k")[2]["value"] == "after", "the change, since nobody holds it")


def test_a_socket_that_somebody_removed_is_made_again(admin, running, eventually):
    """As that of the workers is."""
    admin.path.unlink()
    eventually(admin.path.is_socket, "the socket")
    assert admin("GET", "/admin/kv/p")[0] == 200
    assert "admin.sock was gone, and is made again" in running.log


def test_a_supervisor_that_is_replaced_answers_at_the_same_place(admin, running, eventually):
    """And the keys are where they were."""
    admin("PUT", "/admin/kv/p/k", "kept")
    os.kill(running.supervisor, 9)

    def answers():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return admin("GET", "/admin/kv/p/k")[2].get("value")

    assert eventually(answers, "an answer") == "kept"
    assert stat.S_IMODE(admin.path.stat().st_mode) == 0o600
