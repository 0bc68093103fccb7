"""Whatever a client sends to the hook endpoint: one clear answer, and the worker lives.

After each of these the same worker process answers the next call, and nothing of a client's making fills the log.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import resource

import pytest

from waiting import PATIENCE_S

GOOD = b'{"query": "select 1"}'
MAX_BODY = 64 * 1024


@pytest.fixture(scope="module")
def running(new_sidecar, guests):
    """A sidecar with a small ``--max-body``."""
    return start(new_sidecar(max_body="64Ki"), guests)


@pytest.fixture(scope="module")
def running_impatient(new_sidecar, guests):
    """One that waits no longer for a body than a busy machine may keep it, or us, from going on."""
    return start(new_sidecar(body_timeout="300ms"), guests)


def start(sidecar, guests):
    """It runs a guard."""
    sidecar.folder.plugin("guard", guests.configured(), config={"pre_query": {"action": "block", "value": "no"}})
    return sidecar.start()


@pytest.fixture
async def sidecar(running):
    """The sidecar; afterwards the same worker is there, answers, and has logged nothing."""
    async with unharmed(running):
        yield running


@pytest.fixture
async def impatient(running_impatient):
    """The one without patience, likewise."""
    async with unharmed(running_impatient):
        yield running_impatient


@contextlib.asynccontextmanager
async def unharmed(sidecar):
    """See ``sidecar``."""
    workers, log = sidecar.workers, sidecar.settled_log()
    assert workers
    yield
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["action"] == "block"
    assert sidecar.workers == workers
    assert sidecar.log == log


def request(
    body=GOOD,
    *,
    method="POST",
    path="/v1/hooks/pre_query",
    version="1.1",
    length=True,
    close=True,
    extra=(),
):
    """A request's bytes."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *extra]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*chunks):
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def answers(received):
    """Status, headers and body of each answer in what was received."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        size = int(headers.get("content-length", 0))
        found.append((int(lines[0].split()[1]), headers, received[:size]))
        received = received[size:]
    return found


def only(received):
    """The one answer."""
    (answer,) = answers(received)
    return answer


def is_problem(received, status, words=""):
    """Check a problem document; it is returned."""
    got, headers, body = only(received)
    assert got == status
    assert headers["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert document["status"] == status
    assert document["title"]
    assert words in document["detail"]
    return document


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"select 1", "not valid JSON"),
        (b'{"query": "select', "not valid JSON"),
        (b'{"query": "\xff"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"query": "select 1"}', "not valid JSON"),
        ('{"query": "select 1"}'.encode("utf-16"), "not valid JSON"),
        (b'{"query": "\\ud800"}', "not valid JSON"),
        (b'{"query": NaN}', "not valid JSON"),
        (GOOD + b"x", "not valid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"[" * 30_000, "JSON"),
        (b'{"query": "", "x": ' + b"[" * 900 + b"]" * 900 + b"}", "nested"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, ""),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_no_input_is_a_400(sidecar, body, words):
    """The detail says what is wrong with it."""
    is_problem(sidecar.raw(request(body)), 400, words)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "query"),
        (b'{"query": 1}', "query"),
        (b'{"query": "", "tables": "t"}', "tables"),
        (b'{"query": "", "hook_context": {"attributes": {"n": 1}}}', "hook_context.attributes.n"),
    ],
    ids=repr,
)
async def test_a_field_of_the_wrong_type_is_named(sidecar, body, field):
    """``field`` is the path into the body."""
    assert is_problem(sidecar.raw(request(body)), 400)["field"] == field


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_a_413(sidecar):
    """``--max-body`` means what it says."""
    full = GOOD + b" " * (MAX_BODY - len(GOOD))
    assert only(sidecar.raw(request(full)))[0] == 200
    is_problem(sidecar.raw(request(full + b" ")), 413, str(MAX_BODY))


async def test_a_body_that_is_said_to_be_too_large_is_refused_unread(sidecar):
    """The answer comes although not one byte of the body was sent."""
    said = request(b"", length=False, extra=["Content-Length: 99999999999"])
    is_problem(sidecar.raw(said), 413, str(MAX_BODY))


async def test_a_chunked_body_is_read(sidecar):
    """No length is needed."""
    body = chunked(GOOD[:5], GOOD[5:])
    assert only(sidecar.raw(request(body, length=False, extra=["Transfer-Encoding: chunked"])))[0] == 200


async def test_a_chunked_body_without_end_is_cut_at_the_limit(sidecar):
    """A length that is not told does not help."""
    head = request(b"", length=False, extra=["Transfer-Encoding: chunked"])
    pieces = [head, *[b"1000\r\n" + b" " * 4096 + b"\r\n"] * 64]
    is_problem(sidecar.raw(b"", pieces=pieces), 413, str(MAX_BODY))


@pytest.mark.parametrize(
    "body", [b"zz\r\nabc\r\n0\r\n\r\n", b"-5\r\nabc\r\n0\r\n\r\n", b"3\r\nabcdef\r\n0\r\n\r\n"], ids=repr
)
async def test_a_chunk_that_is_none_is_a_400(sidecar, body):
    """A malformed transfer is the client's mistake, and no failure of ours."""
    is_problem(sidecar.raw(request(body, length=False, extra=["Transfer-Encoding: chunked"])), 400)


@pytest.mark.parametrize("sent", [b"", b'{"query": '])
async def test_a_slow_body_is_a_408(impatient, sent):
    """``--body-timeout`` counts from the headers, and the connection is closed."""
    head = request(b"", length=False, close=False, extra=["Content-Length: 30"])
    is_problem(impatient.raw(head + sent), 408, "0.3 s")


async def test_a_body_that_is_cut_off_harms_nobody(sidecar):
    """The client is gone in the middle of its body: there is nobody to answer."""
    for sent in (b"", GOOD[:7]):
        with sidecar.connect() as connection:
            connection.sendall(request(b"", length=False, close=False, extra=["Content-Length: 30"]) + sent)


async def test_a_client_that_leaves_before_its_answer_harms_nobody(sidecar):
    """As a proxy does that has lost its patience."""
    for _ in range(20):
        with sidecar.connect() as connection:
            connection.sendall(request())


async def test_pipelined_requests_are_answered_in_order(sidecar):
    """Five calls in one packet, good and bad ones: five answers, each its own."""
    bodies = [b'{"query": "a", "hook_context": {"request_id": "%d"}}' % number for number in range(5)]
    bodies[3] = b"nonsense"
    packet = b"".join(request(body, close=body is bodies[-1]) for body in bodies)
    got = answers(sidecar.raw(packet))
    assert [status for status, _, _ in got] == [200, 200, 200, 400, 200]
    assert [json.loads(body).get("request_id") for _, _, body in got] == ["0", "1", "2", None, "4"]


async def test_a_request_in_single_bytes_is_answered(sidecar):
    """However the network cuts it."""
    data = request()
    assert only(sidecar.raw(b"", pieces=[data[at : at + 1] for at in range(len(data))]))[0] == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
async def test_a_compressed_body_is_a_415_and_is_not_unpacked(sidecar, encoding):
    """A bomb of 32 MB in 32 KB is not even looked at."""
    bomb = gzip.compress(b" " * 2**25, 9)[: MAX_BODY - 1]
    is_problem(sidecar.raw(request(bomb, extra=[f"Content-Encoding: {encoding}"])), 415, "compressed")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/a", "\xff", ";" * 4000, "a/b;" + "(" * 4000]
)
async def test_another_content_type_is_a_415(sidecar, kind):
    """A browser's form cannot make a hook call."""
    is_problem(sidecar.raw(request(extra=[f"Content-Type: {kind}"])), 415, "application/json")


async def test_a_charset_beside_the_content_type_is_fine(sidecar):
    """Many clients send one; and whatever else stands there is not looked into."""
    for beside in "charset=utf-8", "(" * 4000:
        assert only(sidecar.raw(request(extra=[f"Content-Type: application/json; {beside}"])))[0] == 200
    assert "Traceback" not in sidecar.log


@pytest.mark.parametrize("path", ["/v1/hooks/drop_table", "/v1/hooks/", "/v1/hooks", "/", "/v1/hooks/%ff"])
async def test_what_is_no_hook_is_a_404_that_lists_the_hooks(sidecar, path):
    """A misspelt hook is found from the answer alone."""
    is_problem(sidecar.raw(request(path=path)), 404, "pre_query")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_a_405_with_allow(sidecar, method):
    """RFC 9110, 15.5.6: the answer says which would do."""
    received = sidecar.raw(request(method=method))
    is_problem(received, 405, "POST")
    assert only(received)[1]["allow"] == "POST"


async def test_expect_100_continue_is_honoured(sidecar):
    """As curl sends it with every body over a megabyte, and waits."""
    head = request(b"", length=False, extra=[f"Content-Length: {len(GOOD)}", "Expect: 100-continue"])
    with sidecar.connect() as connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(head)
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert b" 200 " in connection.recv(4096).split(b"\r\n")[0]


async def test_a_call_that_will_be_refused_is_not_asked_to_continue(sidecar):
    """The answer comes at once, and the body stays where it is."""
    head = request(b"", length=False, extra=["Content-Length: 99999999999", "Expect: 100-continue"])
    is_problem(sidecar.raw(head), 413)


async def test_an_expectation_that_is_unknown_is_a_417(sidecar):
    """As a problem document, like everything else."""
    is_problem(sidecar.raw(request(extra=["Expect: a-miracle"])), 417)


async def test_http_1_0_is_answered(sidecar):
    """Some health checkers and old proxies speak it."""
    assert only(sidecar.raw(request(version="1.0", close=False)))[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        request(extra=[f"X-{number}: y" for number in range(5000)]),
        request(extra=["X-Long: " + "y" * 1_000_000]),
        request(path="/" + "y" * 100_000),
        request(extra=["X-Bad\x00: y"]),
        request(extra=["No colon here"]),
        request(length=False, extra=["Content-Length: 5", "Content-Length: 6"]),
        request(length=False, extra=["Content-Length: -1"]),
        request(length=False, extra=["Content-Length: 21", "Transfer-Encoding: chunked"]),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"complete nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        request(path="/v1/\xff"),
        request(method="BREW"),
    ],
    ids=[
        "many headers", "a long header", "a long path", "a header's name with NUL", "no colon", "two lengths",
        "a negative length", "length and chunks", "TLS", "nonsense", "HTTP/9.9",
        "bytes in the path", "a method that nobody knows",
    ],
)  # fmt: skip
async def test_a_request_that_is_no_http_is_a_400(sidecar, data):
    """Refused with a problem document, and not a line in the log: a scanner must not fill the disk."""
    is_problem(sidecar.raw(data), 400)


async def test_an_absolute_url_and_a_query_string_are_understood(sidecar):
    """What RFC 9112 allows is answered."""
    for path in ("http://localhost/v1/hooks/pre_query", "/v1/hooks/pre_query?x=1"):
        assert only(sidecar.raw(request(path=path)))[0] == 200


async def test_an_upgrade_is_not_taken(sidecar):
    """There is no WebSocket here; the call is answered as if it had not been asked for."""
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    head = request(b"", method="GET", path="/v1/hooks/pre_query", length=False, close=False, extra=upgrade)
    data = head.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\n\r\n")
    with sidecar.connect() as connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(data)
        assert b" 405 " in connection.recv(4096).split(b"\r\n")[0]


async def test_idle_and_half_open_connections_do_not_keep_others_out(sidecar):
    """More of them than the soft limit of open files is on many machines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine's hard limit of open files is too low to try")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    idle = []
    try:
        for _ in range(1500):
            idle.append(sidecar.connect())
            idle[-1].sendall(b"POST /v1/hooks/pre_query HTTP/1.1\r\nHost: x\r\nX-Half")
        assert (await sidecar.ask("pre_query", {"query": ""}))["action"] == "block"
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
