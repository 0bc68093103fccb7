"""Nobody's source leads where only we can go: every address is judged where a connection is made."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket

import pytest
from aiohttp import web

from hookline_api.resources import HTTPSource, OCISource
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.net.addresses import AddressPolicy, parse_networks

OPERATOR = AddressPolicy(own_machine=False, own=(ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("fd12::3")))
METADATA = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "100.100.100.200", "168.63.129.16",
    "192.0.0.192",
]  # fmt: skip
LOOPBACK = ["127.0.0.1", "127.1.2.3", "0.0.0.0"]


def inside(v4):
    """All ways to write an IPv4 address in an IPv6 one."""
    number = int(ipaddress.ip_address(v4))
    high, low = number >> 16, number & 0xFFFF
    tail = f"{high:x}:{low:x}"
    bits = f"{number:032b}"

    def translated(prefix, length):
        """RFC 6052, 2.2: behind so many bits of the prefix, around bits 64 to 71."""
        whole = f"{int(ipaddress.ip_address(prefix)):0128b}"[:length]
        for bit in bits:
            if len(whole) == 64:
                whole += "0" * 8
            whole += bit
        return str(ipaddress.IPv6Address(int(whole.ljust(128, "0"), 2)))

    return {
        "mapped": f"::ffff:{v4}",
        "compatible": f"::{v4}",
        "translated": f"::ffff:0:{v4}",
        "NAT64": f"64:ff9b::{v4}",
        **{f"local NAT64 of {length} bits": translated("64:ff9b:1::", length) for length in (48, 56, 64)},
        "local NAT64 of 96 bits": f"64:ff9b:1:7::{v4}",
        "6to4": f"2002:{tail}::1",
        "Teredo's server": f"2001:0:{tail}::1",
        "Teredo's client": f"2001:0:808:808:0:0:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
        "ISATAP": f"2001:db8::5efe:{tail}",
        "ISATAP, global": f"2001:db8::200:5efe:{tail}",
        "with a zone": f"::ffff:{v4}%eth0",
    }


@pytest.mark.parametrize("how", inside("10.0.0.1"))
@pytest.mark.parametrize("v4", [*METADATA, *LOOPBACK, "224.0.0.1", "255.255.255.255", "240.0.0.1", "10.1.2.3"])
def test_no_way_to_write_an_address_leads_to_it(v4, how):
    """As itself, and in each form of an IPv6 address that somebody on the way takes apart."""
    assert OPERATOR.refusal(v4)
    if v4 == "0.0.0.0" and (how == "Teredo's server" or "local" in how):  # which lead nowhere
        return
    assert OPERATOR.refusal(inside(v4)[how]) == OPERATOR.refusal(v4)


@pytest.mark.parametrize("v4", METADATA)
@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
def test_a_translator_with_a_prefix_of_its_own_leads_to_no_metadata_service(v4, length):
    """Which prefix a network uses is known to it alone."""
    number = int(ipaddress.ip_address(v4))
    prefix = int(ipaddress.ip_address("2001:db8:1:2:3:4::")) >> 128 - length
    behind = f"{prefix:0{length}b}{number:032b}"
    if length < 96:
        before = max(0, 64 - length)
        bits = f"{number:032b}"
        behind = f"{prefix:0{length}b}{bits[:before]}{'0' * 8}{bits[before:]}"
    assert OPERATOR.refusal(str(ipaddress.IPv6Address(int(behind.ljust(128, "0"), 2))))


@pytest.mark.parametrize(
    "address",
    [
        "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2:1::1", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
        "fd00:a9fe:a9fe::1", "fe80::a9fe:a9fe", "fe80::1%eth0", "fec0::1", "::1", "::", "ff02::1", "100::1", "fd12::3",
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys_registry_are_refused(address):
    """Metadata services, the own machine, and networks of several machines."""
    assert OPERATOR.refusal(address)


def test_the_own_machine_is_refused_with_what_to_do():
    """A reference such as kind's ``localhost:5001`` is good on a node, and in no pod."""
    assert "--allow-source-addresses" in OPERATOR.refusal("127.0.0.1")


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "10.1.2.4", "172.17.0.1", "192.168.1.5", "100.64.0.7", "100.100.100.201", "1.1.1.1", "52.216.1.1",
        "2600:1f18::1", "2a00:1450:4001:80b::2010", "2606:4700::6810:7b60", "fd12:3456::5000", "fd00::1",
        "fd00:1::7f00:1", "64:ff9b::101:101", "2002:101:101::1", "::ffff:10.0.0.1",
    ],
)  # fmt: skip
def test_registries_of_the_cluster_and_of_the_world_are_asked(address):
    """Private networks are where registries are."""
    assert OPERATOR.refusal(address) is None


def test_a_sidecar_may_ask_its_own_machine_and_no_metadata_service():
    """Whoever writes its folder is on that machine."""
    policy = AddressPolicy()
    assert not any(map(policy.refusal, ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1")))
    assert all(map(policy.refusal, METADATA))


@pytest.mark.parametrize(
    ("allowed", "address", "is_asked"),
    [
        ("127.0.0.0/8", "127.0.0.1", True), ("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False), ("0.0.0.0/0", "127.0.0.1", False),
        ("0.0.0.0/0,::/0", "169.254.169.254", False), ("127.0.0.0/8", "::1", False),
        ("127.0.0.0/8", "169.254.169.254", False),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.1.2.3/32", "10.1.2.3", True), ("169.254.20.0/24", "169.254.20.10", True), ("::1", "::1", True),
        ("169.254.20.0/24", "169.254.169.254", False), ("", "127.0.0.1", False),
    ],
)  # fmt: skip
def test_an_administrator_opens_what_is_named_and_nothing_beside_it(allowed, address, is_asked):
    """A network that is wider than what is refused was not meant for it."""
    policy = AddressPolicy(own_machine=False, own=OPERATOR.own, allowed=parse_networks(allowed))
    assert (policy.refusal(address) is None) is is_asked


@pytest.mark.parametrize("text", ["here", "10.0.0.1/8", "10.0.0.0/33", "127.0.0.0/8;::1"])
def test_what_is_no_network_is_refused_with_a_sentence(text):
    """On the command line."""
    with pytest.raises(ValueError, match="is not a network such as"):
        parse_networks(text)


# ── connections ──


@pytest.fixture
async def listen():
    """Starts servers at addresses of this machine; each keeps what it was asked."""
    runners = []

    class Server:
        async def start(self, host, port=0, answer=None):
            self.asked, self.answer = [], answer

            async def handle(request):
                self.asked.append(request.path)
                return await self.answer(request) if self.answer else web.Response(text="secret")

            runner = web.AppRunner(app := web.Application())
            app.router.add_route("*", "/{path:.*}", handle)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, host, port).start()
            self.port = runner.addresses[0][1]
            return self

    yield lambda *where, **more: Server().start(*where, **more)
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def operators(store, tmp_path):
    """A fetcher as the operator has one, but that 127.0.0.2 is allowed: there a test has a server that may be asked."""
    policy = AddressPolicy(own_machine=False, allowed=parse_networks("127.0.0.2"))
    limits = FetchLimits(backoff=0.001, connect=5)
    fetcher = Fetcher(store, limits=limits, docker_config=tmp_path / "none", addresses=policy)
    yield fetcher
    await fetcher.close()


def http(url):
    """A source."""
    return HTTPSource(url=url, sha256="0" * 64)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "0177.0.0.1", "localhost", "0",
        "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1.", "LOCALHOST",
    ],
)  # fmt: skip
async def test_no_spelling_of_the_own_machine_is_asked(listen, operators, host):
    """Those that only a name server or the C library understands too."""
    server = await listen("127.0.0.1")
    with pytest.raises(FetchError) as refused:
        await operators.fetch_http(http(f"http://{host}:{server.port}/"))
    assert not refused.value.transient or "loopback" not in str(refused.value)
    with pytest.raises(FetchError):
        await operators.resolve(OCISource(reference=f"127.0.0.1:{server.port}/a:v1", insecure=True))
    assert server.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1"])
async def test_why_it_is_not_asked_is_told_and_is_final(listen, operators, host):
    """One attempt: asking again changes nothing."""
    server = await listen("127.0.0.1")
    with pytest.raises(FetchError, match="loopback and unspecified addresses are not asked") as refused:
        await operators.fetch_http(http(f"http://{host}:{server.port}/"))
    assert not refused.value.transient


async def test_a_redirect_and_a_token_server_lead_nowhere_else(listen, operators):
    """From a server that may be asked to one that may not."""
    inner = await listen("127.0.0.1")

    async def away(_request):
        raise web.HTTPFound(f"http://127.0.0.1:{inner.port}/admin")

    outer = await listen("127.0.0.2", answer=away)
    with pytest.raises(FetchError, match="loopback"):
        await operators.fetch_http(http(f"http://127.0.0.2:{outer.port}/"))

    async def challenge(_request):
        return web.Response(
            status=401, headers={"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:{inner.port}/token",service="a"'}
        )

    outer.answer = challenge
    with pytest.raises(FetchError, match="loopback"):
        await operators.resolve(OCISource(reference=f"127.0.0.2:{outer.port}/a:v1", insecure=True))
    assert outer.asked
    assert inner.asked == []


async def test_a_name_that_turns_to_another_address_leads_nowhere(listen, operators, monkeypatch):
    """A name server of the attacker's answers as it likes: both addresses at once, and another one the next time."""
    outer = await listen("127.0.0.2")
    inner = await listen("127.0.0.1", outer.port)
    answers = [["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]]
    real = socket.getaddrinfo

    def turning(host, *rest, **more):
        if not str(host).startswith("rebind."):
            return real(host, *rest, **more)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [each for address in found for each in real(address, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", turning)
    for name in ("rebind.one.test", "rebind.two.test"):
        with pytest.raises((FetchError, VerifyError)):
            await operators.fetch_http(http(f"http://{name}:{outer.port}/x"))
    assert outer.asked == ["/x"]
    assert inner.asked == []


# ── what an answer tells ──


@pytest.mark.parametrize("length", [4321, 98_765])
async def test_of_an_http_answer_neither_digest_nor_length_nor_bytes_are_told(listen, operators, length):
    """A tenant could compare a page of the cluster with what it may be."""
    page = (b"secret" * length)[:length]

    async def answer(_request):
        return web.Response(body=page)

    server = await listen("127.0.0.2", answer=answer)
    with pytest.raises(VerifyError) as refused:
        await operators.fetch_http(http(f"http://127.0.0.2:{server.port}/"))
    told = str(refused.value)
    assert "not what was asked for" in told
    assert hashlib.sha256(page).hexdigest()[:8] not in told
    assert str(length) not in told.replace(str(server.port), "")
    assert "secret" not in told


async def test_the_digest_of_what_a_tag_answered_is_not_told(listen, operators):
    """A page that is not a manifest, and is not there by its digest either: the probe of a tenant."""
    page = b'{"users": ["ann", "bob"]}'

    async def answer(request):
        return web.Response(body=page) if request.path.endswith("/v1") else web.Response(status=404)

    server = await listen("127.0.0.2", answer=answer)
    source = OCISource(reference=f"127.0.0.2:{server.port}/api:v1", insecure=True)
    with pytest.raises((FetchError, VerifyError)) as refused:
        await operators.fetch_oci(source)
    assert hashlib.sha256(page).hexdigest()[:8] not in str(refused.value)
    assert "ann" not in str(refused.value)
    assert {path.rpartition("/")[2] for path in server.asked} == {"v1"}  # nor is it asked for by that


async def test_an_answer_that_is_too_large_does_not_tell_its_length(listen, store, tmp_path):
    """Nor does one whose length was announced."""
    server = await listen("127.0.0.1")
    server.answer = lambda _request: asyncio.sleep(0, web.Response(body=bytes(98_765)))
    fetcher = Fetcher(store, limits=FetchLimits(download=1000), docker_config=tmp_path / "none")
    with pytest.raises(FetchError, match="only 1000 are allowed") as refused:
        await fetcher.fetch_http(http(f"http://127.0.0.1:{server.port}/"))
    assert "98765" not in str(refused.value)
    await fetcher.close()
