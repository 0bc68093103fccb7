"""Modules come through an HTTP proxy where the environment names one, and nothing more becomes possible by it."""

from __future__ import annotations

import ipaddress
import ssl

import pytest
from aiohttp import web
from yarl import URL

from hookline_api.resources import HTTPSource, OCISource
from hookline_artifacts.errors import FetchError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.net.proxies import from_environment
from http_proxy import HttpProxy

NAME = "registry.test"
"""Known to the proxy alone."""


@pytest.mark.parametrize(
    ("no_proxy", "url", "through"),
    [
        ("", "https://a.example/x", True),
        ("*", "https://a.example/x", False),
        ("b.example, *", "https://a.example/x", False),
        ("a.example", "https://a.example/x", False),
        ("a.example", "https://A.EXAMPLE./x", False),
        ("a.example", "https://b.a.example/x", False),
        ("a.example", "https://ba.example/x", True),
        (".a.example", "https://b.a.example/x", False),
        (".a.example", "https://a.example/x", True),
        ("*.a.example", "https://b.a.example/x", False),
        ("*.a.example", "https://a.example/x", True),
        ("A.Example", "https://a.example/x", False),
        ("a.example:443", "https://a.example/x", False),
        ("a.example:443", "https://a.example:8443/x", True),
        ("a.example:8443", "https://a.example:8443/x", False),
        ("10.0.0.0/8", "https://10.1.2.3/x", False),
        ("10.0.0.0/8", "https://11.1.2.3/x", True),
        ("10.1.2.3/8", "https://10.9.9.9/x", False),
        ("10.0.0.0/8", "https://ten.example/x", True),
        ("10.1.2.3", "https://10.1.2.3/x", False),
        ("10.1.2.3:443", "https://10.1.2.3/x", False),
        ("10.1.2.3:80", "https://10.1.2.3/x", True),
        ("fd00::/8", "https://[fd00::1]/x", False),
        ("fd00::1", "https://[fd00::1]/x", False),
        ("[fd00::1]:443", "https://[fd00::1]/x", False),
        ("a.example b.example", "https://b.example/x", False),
        ("a.example:x", "https://a.example/x", True),
        (",, ,", "https://a.example/x", True),
        ("", "https://localhost/x", False),
        ("", "https://127.9.9.9/x", False),
        ("", "https://127.1/x", False),
        ("", "https://[::1]:5000/x", False),
    ],
)
def test_no_proxy_means_what_it_means_to_others(no_proxy, url, through):
    """As Go's programs read it, and so a cluster's other parts."""
    proxies = from_environment({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": no_proxy})
    assert (proxies.of(URL(url)) is not None) == through


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1", None),
        ({"https_proxy": "http://p:2"}, None, "http://p:2"),
        ({"HTTPS_PROXY": "https://p:3", "https_proxy": "http://q:4"}, None, "https://p:3"),
        ({"HTTP_PROXY": "", "http_proxy": "p:5"}, "http://p:5", None),
        ({"HTTP_PROXY": "p"}, "http://p", None),
    ],
)
def test_upper_case_counts_and_lower_case_where_there_is_none(environment, http, https):
    """By the scheme of what is asked for."""
    proxies = from_environment(environment)
    found = [proxies.of(URL(f"{scheme}://a.example/")) for scheme in ("http", "https")]
    assert [each and str(each.url.origin()) for each in found] == [http, https]


@pytest.mark.parametrize("text", ["socks5://p:1", "http://", "http://p:x", "http://p:99999", "http://a b:1", "://"])
def test_what_is_no_proxy_is_told_without_its_password(text):
    """Before anything starts."""
    text = text.replace("://", "://user:hush@") if "://" in text else text
    with pytest.raises(ValueError, match="HTTPS_PROXY is not the URL of a proxy") as wrong:
        from_environment({"HTTPS_PROXY": text})
    assert "hush" not in str(wrong.value)


@pytest.fixture
async def make_proxied(store, tmp_path):
    """Makes fetchers that ask through a proxy."""
    made = []

    def make(proxy, *, user="", addresses=None, **limits):
        url = proxy.url.replace("://", f"://{user}@" if user else "://")
        proxies = from_environment({"HTTP_PROXY": url, "HTTPS_PROXY": url})
        bounds = FetchLimits(**{"backoff": 0.001, "attempts": 1, **limits})
        policy = addresses or AddressPolicy(own_machine=False)
        made.append(Fetcher(store, limits=bounds, docker_config=tmp_path / "none", addresses=policy, proxies=proxies))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def at(server):
    """Where the proxy finds it."""
    host, port = server.host.split(":")
    return host, int(port)


async def test_plain_http_goes_through_the_proxy(serve, make_proxied, oci):
    """To a name that it alone knows, on an address that would not be asked directly."""
    server = await serve()
    module = oci.module("by proxy")
    server.put("x:v1", oci.manifest(module), module)
    async with HttpProxy({NAME: at(server)}) as proxy:
        proxy.password = "user:p@ss"
        fetcher = make_proxied(proxy, user="user:p%40ss")
        source = OCISource(reference=f"{NAME}:5000/x:v1", insecure=True)
        assert (await fetcher.fetch_oci(source)).path.read_bytes() == module
    assert {line.split(" ")[0] for line in proxy.asked} == {"HEAD", "GET"}
    assert not any("Proxy-Authorization" in request.headers for request in server.requests)


async def test_https_is_tunnelled_and_the_password_stays_with_the_proxy(serve, make_proxied, oci, authority):
    """The proxy sees a host and a port, and the registry no login of the proxy's."""
    server = await serve(authority=_for(authority))
    module = oci.module("by tunnel")
    server.put("x:v1", oci.manifest(module), module)
    async with HttpProxy({NAME: at(server)}) as proxy:
        proxy.password = "user:secret"
        fetcher = make_proxied(proxy, user="user:secret")
        access = RegistryAccess(ca_pem=authority.pem)
        found = await fetcher.fetch_oci(OCISource(reference=f"{NAME}:8443/x:v1"), access=access)
        assert found.path.read_bytes() == module
    assert set(proxy.asked) == {f"CONNECT {NAME}:8443 HTTP/1.1"}
    assert not any("proxy" in name.lower() for request in server.requests for name in request.headers)


def _for(authority):
    """The authority, whose certificates are for the name too."""

    class Named:
        def issue(self, folder):
            return authority.issue(folder, NAME)

    return Named()


def _context(authority, folder):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*map(str, authority.issue(folder)))
    return context


async def test_a_proxy_may_speak_tls_with_a_certificate_that_the_system_trusts(
    serve, make_proxied, oci, authority, tmp_path, monkeypatch
):
    """And a tunnel goes through it."""
    (tmp_path / "system.pem").write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    server = await serve(authority=_for(authority))
    module = oci.module("tls in tls")
    server.put("x:v1", oci.manifest(module), module)
    async with HttpProxy({NAME: at(server)}, tls=_context(authority, tmp_path)) as proxy:
        fetcher = make_proxied(proxy)
        assert (await fetcher.fetch_oci(OCISource(reference=f"{NAME}/x:v1"))).path.read_bytes() == module


async def test_a_tenants_authority_is_not_the_proxys(make_proxied, authority, tmp_path):
    """Else whoever is on the way could show a certificate of his own, and be shown our password."""
    async with HttpProxy({}, tls=_context(authority, tmp_path)) as proxy:
        proxy.password = "user:secret"
        fetcher = make_proxied(proxy, user="user:secret")
        with pytest.raises(FetchError, match=r"the proxy https://127\.0\.0\.1:\d+ .*certificate is not trusted"):
            await fetcher.fetch_oci(OCISource(reference=f"{NAME}/x:v1"), access=RegistryAccess(ca_pem=authority.pem))
    assert proxy.seen == []


@pytest.mark.parametrize("insecure", [True, False])
@pytest.mark.parametrize(
    ("status", "sentence", "transient"),
    [
        (407, "it wants a user and a password", False),
        (403, "it does not let this host be asked", False),
        (502, "it could not reach the host", True),
        (503, "it could not reach the host", True),
        (500, "see to the proxy", True),
    ],
)
async def test_what_the_proxy_answers_is_told_as_the_proxys(make_proxied, insecure, status, sentence, transient):
    """Without its password. By plain HTTP all but a 407 could be the registry's own."""
    if insecure and status != 407:
        return
    async with HttpProxy({}) as proxy:
        proxy.answer = status
        fetcher = make_proxied(proxy, user="user:hush")
        with pytest.raises(FetchError) as failed:
            await fetcher.fetch_oci(OCISource(reference=f"{NAME}:5000/x:v1", insecure=insecure))
    assert f"the proxy {proxy.url} (of HTTP" in str(failed.value)
    assert f"answered {status}; {sentence}" in str(failed.value)
    assert "hush" not in str(failed.value)
    assert failed.value.transient is transient


@pytest.mark.parametrize("insecure", [True, False])
async def test_a_proxy_that_is_away_is_told_as_away(make_proxied, insecure):
    """And it may be back."""
    async with HttpProxy({}) as proxy:
        fetcher = make_proxied(proxy)
    with pytest.raises(FetchError, match=r"the proxy http://127\.0\.0\.1:\d+ \(of HTTPS?_PROXY\): ") as failed:
        await fetcher.fetch_oci(OCISource(reference=f"{NAME}:5000/x:v1", insecure=insecure))
    assert failed.value.transient


@pytest.mark.parametrize("insecure", [True, False])
async def test_a_proxy_that_hangs_is_given_up(make_proxied, insecure):
    """It takes the connection, and never says anything."""
    async with HttpProxy({}) as proxy:
        proxy.silent = True
        fetcher = make_proxied(proxy, connect=0.3, stall=0.3)
        with pytest.raises(FetchError, match="took longer") as failed:
            await fetcher.fetch_oci(OCISource(reference=f"{NAME}:5000/x:v1", insecure=insecure))
        assert failed.value.transient
        assert proxy.asked


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "100.100.100.200",
     "metadata.google.internal", "METADATA.google.internal.", "10.9.8.7", "0x0a.09.08.07", "010.9.8.7",
     "a.0x7f"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_is_asked_through_a_proxy_who_is_never_asked(make_proxied, host, scheme):
    """However the address is spelt; 10.9.8.7 is the program's own. What others may read otherwise is refused."""
    own = AddressPolicy(own_machine=False, own=(ipaddress.ip_address("10.9.8.7"),))
    async with HttpProxy({}) as proxy:
        fetcher = make_proxied(proxy, addresses=own)
        with pytest.raises(FetchError) as refused:
            await fetcher.fetch_http(HTTPSource(url=f"{scheme}://{host}/x", sha256="0" * 64))
    assert not refused.value.transient
    assert "asked" in str(refused.value)
    assert not proxy.asked


async def test_a_redirect_through_a_proxy_leads_to_no_metadata_address(serve, make_proxied):
    """Each step is judged."""
    server = await serve()

    async def away(_request):
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest"})

    server.on("/x", away)
    async with HttpProxy({NAME: at(server)}) as proxy:
        fetcher = make_proxied(proxy)
        with pytest.raises(FetchError, match="never asked"):
            await fetcher.fetch_http(HTTPSource(url=f"http://{NAME}/x", sha256="0" * 64))
    assert len(proxy.asked) == 1


async def test_what_is_asked_directly_is_judged_by_its_address(serve, make_proxied):
    """A name of NO_PROXY, and the own machine, which no proxy is asked for."""
    server = await serve()
    async with HttpProxy({}) as proxy:
        fetcher = make_proxied(proxy)
        with pytest.raises(FetchError, match="loopback"):
            await fetcher.fetch_http(HTTPSource(url=f"http://localhost:{at(server)[1]}/x", sha256="0" * 64))
    assert not proxy.asked
    assert not server.requests
