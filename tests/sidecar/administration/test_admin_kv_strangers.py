"""``/admin/kv``: strangers get nothing, and each change leaves one line in the log."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from admin_kv import PERMISSIONS, TOKEN, Admin

NOBODY = 65534


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


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
