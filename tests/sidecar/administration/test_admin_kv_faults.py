"""``/admin/kv``: values that stop half way, a store that is held and a supervisor that goes keep nobody waiting."""

from __future__ import annotations

import contextlib
import http.client
import os
import stat

from admin_kv import PERMISSIONS, Admin
from hookline_runtime.host.kv import KvStore

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
    running.logs("admin.sock was deleted, and is made again")


def test_a_supervisor_that_is_replaced_answers_at_the_same_place(admin, running, eventually):
    """And the keys are where they were."""
    admin("PUT", "/admin/kv/p/k", "kept")
    os.kill(running.supervisor, 9)

    def answers():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return admin("GET", "/admin/kv/p/k")[2].get("value")

    assert eventually(answers, "an answer") == "kept"
    assert stat.S_IMODE(admin.path.stat().st_mode) == 0o600
