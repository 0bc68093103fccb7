"""Why a request got no answer is said in words, and never as a library shows its objects."""

import asyncio
import contextlib
import datetime as dt
import io
import json
import logging
import ssl

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from hookline_api import commands
from hookline_artifacts.net import failures

ADVICE = {"trust": "check the authority", "plain": "check the port"}


async def ask(url, **changes):
    """What a real request fails with."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, OSError)) as caught:
            async with session.get(url, **changes) as answer:
                await answer.read()
    return caught.value


@pytest.fixture
async def listening():
    """Starts a server that does this with each connection; its port."""
    servers = []

    async def start(serve, **changes):
        server = await asyncio.start_server(serve, "127.0.0.1", 0, **changes)
        servers.append(server)
        return server.sockets[0].getsockname()[1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def certified(authority, tmp_path):
    """Makes a server's context, and a client's that trusts it; the certificate's days may be over."""

    def make(*, expired=False):
        paths = authority.issue(tmp_path)
        if expired:
            old = x509.load_pem_x509_certificate(paths[0].read_bytes())
            now = dt.datetime.now(dt.UTC)
            ended = x509.CertificateBuilder(
                issuer_name=old.issuer, subject_name=old.subject, public_key=old.public_key(), serial_number=1,
                not_valid_before=now - dt.timedelta(days=3), not_valid_after=now - dt.timedelta(days=1),
                extensions=list(old.extensions),
            ).sign(authority.key, hashes.SHA256())  # fmt: skip
            paths[0].write_bytes(ended.public_bytes(serialization.Encoding.PEM))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*paths)
        return server, ssl.create_default_context(cadata=authority.pem)

    return make


async def idle(reader, writer):
    """Answers nothing."""
    await reader.read()
    writer.close()


async def cut(reader, writer):
    """Ends in the middle of an answer; a client that went before its question was whole gets none."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
    writer.transport.abort()


async def reset(_reader, writer):
    """Ends before there is an answer."""
    writer.transport.abort()


@pytest.fixture
async def unused_port():
    """A port at which nobody listens."""
    server = await asyncio.start_server(idle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_a_refused_connection_is_said_without_an_object(unused_port):
    """The own text of aiohttp has the TLS context in it."""
    error = await ask(f"https://127.0.0.1:{unused_port}", ssl=ssl.create_default_context())
    assert "SSLContext" in str(error)
    assert failures.why(error, **ADVICE) == "Connection refused; check the address, and whether it runs there"


async def test_a_certificate_that_has_ended_is_said_with_what_to_do(listening, certified):
    """Why it is not trusted, and the remedy that was given."""
    server, client = certified(expired=True)
    port = await listening(idle, ssl=server)
    error = await ask(f"https://127.0.0.1:{port}", ssl=client)
    said = failures.why(error, **ADVICE)
    assert said == "its certificate is not trusted (certificate has expired); check the authority"


async def test_an_unknown_authority_is_said_with_what_to_do(listening, certified):
    """The same of another authority's certificate."""
    server, _ = certified()
    port = await listening(idle, ssl=server)
    error = await ask(f"https://127.0.0.1:{port}", ssl=ssl.create_default_context())
    assert failures.why(error, **ADVICE).startswith("its certificate is not trusted (")


@pytest.mark.parametrize("serve", [cut, reset])
async def test_a_connection_that_breaks_off_is_said_so(listening, certified, serve):
    """Within TLS, before the answer and in the middle of it."""
    server, client = certified()
    port = await listening(serve, ssl=server)
    error = await ask(f"https://127.0.0.1:{port}", ssl=client)
    said = failures.why(error, **ADVICE)
    assert said in {"the connection was cut off", "Connection reset by peer"}, said


async def test_what_speaks_no_tls_is_said_with_what_to_do(listening):
    """A web server without TLS, asked for it."""
    port = await listening(cut)
    error = await ask(f"https://127.0.0.1:{port}", ssl=ssl.create_default_context(), timeout=aiohttp.ClientTimeout(2))
    said = failures.why(error, **ADVICE)
    assert "check the port" in said or "cut off" in said or "in time" in said, said


async def test_a_server_that_is_silent_is_said_so(listening):
    """With the seconds where who asks knows them."""
    port = await listening(idle)
    error = await ask(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=0.1))
    assert failures.why(error, **ADVICE) == "it did not answer in time"
    assert failures.why(error, **ADVICE, late="nothing came in 0.1 s") == "nothing came in 0.1 s"


@pytest.mark.parametrize("as_json", [False, True])
async def test_no_line_of_the_log_has_an_object_in_it(unused_port, as_json):
    """Whoever logs an error as it is: kopf does, and so do libraries."""
    error = await ask(f"https://127.0.0.1:{unused_port}", ssl=ssl.create_default_context())
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(commands._JsonLines() if as_json else commands._TextLines("%(message)s"))
    record = logging.LogRecord("kopf", logging.ERROR, "", 1, "it failed: %s", (error,), (type(error), error, None))
    handler.emit(record)
    assert "it failed: Cannot connect to host 127.0.0.1" in written.getvalue()
    assert "object at" not in written.getvalue()
    assert not as_json or json.loads(written.getvalue())
