"""A URL with two meanings is refused; what is judged is what is sent, and a rule allows what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_api.outbound import EgressRule
from hookline_runtime.host.egress import Egress, follow, read_url
from hookline_runtime.host.http_message import MAX_URL, HttpError

REFUSED = [
    "", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "https:/example.com/",
    "https:example.com", "https://", "https:///x", "javascript:alert(1)", "http+unix://x/",
    # a user
    "https://user@example.com/", "https://user:pass@example.com/", "https://example.com@evil.test/",
    "https://example.com:443@evil.test/", "https://@example.com/",
    # what readers take for a slash, or leave out
    "https://example.com\\@evil.test/", "https:\\\\example.com\\", "https://example.com/\\evil", "https://exa\tmple.com/",
    "https://example.com/\r\nHost: evil", "https://example.com/\n", " https://example.com/", "https://example.com/a b",
    "https://example.com/\x00", "https://example.com/%00", "https://example.com/%0d%0aX: y", "https://example.com/%250a",
    # addresses in odd forms
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/",
    "http://127.0.0.1.1/", "http://127.0.0.01/", "http://1.2.3.256/", "http://127.0.0.0x1/", "http://017700000001/",
    "http://[::1", "http://::1/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[127.0.0.1]/", "http://[1::2::3]/",
    "http://[fe80::1%eth0]/", "http://[v1.x]/", "http://[]/",
    # names in odd forms
    "https://example.com./", "https://.example.com/", "https://example..com/", "https://ex\u0430mple.com/",
    "https://example。com/", "https://ⓔxample.com/", "https://ex%61mple.com/", "https://%31%32%37.0.0.1/",
    "https://example.com%2f@evil/", "https://example.com%00.evil.test/", f"https://{'a' * 64}.com/",
    "https://a_b!.com/", "https://example.com;evil/", "https://example.com,evil/",
    # ports
    "https://example.com:/", "https://example.com:0/", "https://example.com:65536/", "https://example.com:-1/",
    "https://example.com:443:80/", "https://example.com:4a/", "https://example.com:999999/",
    # paths that a server mends
    "https://example.com/v1/../admin", "https://example.com/v1/%2e%2e/admin", "https://example.com/v1/.%2E/admin",
    "https://example.com/v1/..%2fadmin", "https://example.com/v1%2f..%2fadmin", "https://example.com/v1/..;/admin",
    "https://example.com/v1/..;a=b/admin", "https://example.com/v1/%252e%252e/admin", "https://example.com/v1/.",
    "https://example.com/v1/./x", "https://example.com/..", "https://example.com/v1/..%5cadmin",
    "https://example.com/v1/%5c../admin", "https://example.com/v1/%25252e%25252e/x", "https://example.com/%2525252525",
    # what must be escaped
    "https://example.com/%", "https://example.com/%zz", "https://example.com/<x>", 'https://example.com/"',
    "https://example.com/?a=%", "https://example.com/?[x]", "https://example.com/?{x}", "https://example.com/ü",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_can_be_read_in_two_ways_is_not_asked(text):
    """In one sentence, which does not quote it."""
    with pytest.raises(HttpError) as refused:
        read_url(text)
    assert refused.value.cause == "denied"
    assert len(str(refused.value)) < 200
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("HTTPS://EXAMPLE.com", "https://example.com/"),
        ("https://example.com:443/x", "https://example.com/x"),
        ("http://example.com:80/x", "http://example.com/x"),
        ("http://example.com:443/x", "http://example.com:443/x"),
        ("https://example.com/x#fragment?@[", "https://example.com/x"),
        ("https://example.com?a=b", "https://example.com/?a=b"),
        ("https://example.com/?", "https://example.com/"),
        ("https://example.com/%7euser/%2fx", "https://example.com/~user/%2Fx"),
        ("https://example.com/%76%31", "https://example.com/v1"),
        ("https://example.com//x///y/", "https://example.com//x///y/"),
        ("https://example.com/a;b=c/...", "https://example.com/a;b=c/..."),
        ("https://example.com/?q=../..&r=%2e%2e&u=https://x/", "https://example.com/?q=../..&r=%2e%2e&u=https://x/"),
        ("https://xn--mnchen-3ya.de/", "https://xn--mnchen-3ya.de/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        ("http://127.0.0.1:9901/", "http://127.0.0.1:9901/"),
        ("https://my_service.ns.svc/", "https://my_service.ns.svc/"),
    ],
)
def test_a_url_is_sent_in_one_form(text, sent):
    """And that form is read as itself."""
    assert read_url(text).url == sent
    assert read_url(sent).url == sent


def test_a_url_has_an_end():
    """As long as servers read."""
    with pytest.raises(HttpError) as refused:
        read_url("https://example.com/" + "x" * MAX_URL)
    assert refused.value.cause == "limit"


@given(st.text(alphabet="https:/.@[]%2eEfFcC5;#?\\127x \t", max_size=40))
def test_whatever_is_read_is_read_the_same_again(text):
    """No mending makes another URL of a URL, and nothing else is raised."""
    try:
        target = read_url("https://" + text)
    except HttpError:
        return
    assert read_url(target.url) == target
    assert ".." not in target.path.split("/")


def egress(*rules):
    """Rules, as a resource has them."""
    return Egress([EgressRule.model_validate(rule) for rule in rules], {})


def allowed(rules, url, method="GET"):
    """Whether they allow it."""
    target = read_url(url)
    try:
        rules.rule(method, target)
    except HttpError as error:
        return error.cause != "denied"
    return True


def test_a_rule_is_for_one_scheme_host_and_port():
    """And for no other."""
    rules = egress({"host": "Api.Example.com"}, {"host": "plain.example.com", "scheme": "http", "port": 8080})
    assert allowed(rules, "https://api.example.com/any")
    assert allowed(rules, "https://API.example.com:443/")
    assert allowed(rules, "http://plain.example.com:8080/")
    assert not allowed(rules, "http://api.example.com/")
    assert not allowed(rules, "https://api.example.com:8443/")
    assert not allowed(rules, "https://xapi.example.com/")
    assert not allowed(rules, "https://api.example.com.evil.test/")
    assert not allowed(rules, "http://plain.example.com/")
    assert not allowed(egress(), "https://api.example.com/")


def test_a_wildcard_is_for_all_names_below():
    """Neither for the domain itself, nor for what only ends like it, nor for an address."""
    rules = egress({"host": "*.example.com"})
    assert allowed(rules, "https://a.example.com/")
    assert allowed(rules, "https://b.a.example.com/")
    assert not allowed(rules, "https://example.com/")
    assert not allowed(rules, "https://badexample.com/")
    assert not allowed(rules, "https://1.1.1.1/")


def test_a_star_is_for_every_name():
    """And for no address: what has no name has no rule."""
    rules = egress({"host": "*"})
    assert allowed(rules, "https://example.com/")
    assert allowed(rules, "https://localhost/")
    assert not allowed(rules, "http://example.com/")
    assert not allowed(rules, "https://1.1.1.1/")
    assert not allowed(rules, "https://[2606:4700::1111]/")


def test_a_star_alone_is_for_every_name_and_no_address():
    """As it was written while nothing could be fetched; its scheme and port hold all the same."""
    rules = egress("http://*:80")
    assert allowed(rules, "http://a.example.com/")
    assert not allowed(rules, "http://1.1.1.1/")
    assert not allowed(rules, "http://[2606:4700::1111]/")
    assert not allowed(rules, "https://a.example.com/")


def test_a_rule_allows_its_methods():
    """GET and HEAD where it names none."""
    rules = egress({"host": "a.test"}, {"host": "b.test", "methods": ["POST"]})
    assert allowed(rules, "https://a.test/", "HEAD")
    assert not allowed(rules, "https://a.test/", "POST")
    assert allowed(rules, "https://b.test/", "POST")
    assert not allowed(rules, "https://b.test/", "GET")


@pytest.mark.parametrize(
    ("prefix", "yes", "no"),
    [
        (
            "/v1",
            ["/v1", "/v1/", "/v1/keys", "/%761/keys", "/v1//keys"],
            ["/", "/v10", "/v1;x", "/V1", "//v1", "/v1%2Fx"],
        ),
        ("/v1/", ["/v1/", "/v1/keys"], ["/v1", "/v1x"]),
        ("/%76%31", ["/v1/keys"], ["/v2"]),
        ("/a%2fb", ["/a%2Fb", "/a%2fb/c"], ["/a/b"]),
        ("/", ["/", "/any"], []),
    ],
)
def test_a_path_is_compared_by_whole_segments(prefix, yes, no):
    """In one spelling on both sides."""
    rules = egress({"host": "a.test", "paths": ["/never", prefix]})
    assert [path for path in yes if not allowed(rules, f"https://a.test{path}")] == []
    assert [path for path in no if allowed(rules, f"https://a.test{path}")] == []


def test_the_first_rule_that_allows_all_of_it_is_the_one():
    """Another path of the same host may have another credential."""
    rules = egress({"host": "a.test", "paths": ["/a"]}, {"host": "a.test", "methods": ["POST"]}, {"host": "a.test"})
    found = [rules.rule(*each).number for each in (
        ("GET", read_url("https://a.test/a/x")), ("POST", read_url("https://a.test/a")), ("GET", read_url("https://a.test/")),
    )]  # fmt: skip
    assert found == [0, 1, 2]


@pytest.mark.parametrize(
    ("host", "url", "is_asked"),
    [
        ("10.1.2.3", "https://10.1.2.3/", True),
        ("::1", "https://[::1]/", True),
        ("169.254.169.254", "https://169.254.169.254/", False),
        ("0.0.0.0", "https://0.0.0.0/", False),
        ("127.0.0.1", "https://[::ffff:127.0.0.1]/", False),
        ("fe80::1", "https://[fe80::1]/", False),
    ],
)
def test_an_address_names_itself_unless_it_is_never_asked(host, url, is_asked):
    """In the form in which it is written."""
    assert allowed(egress({"host": host}), url) is is_asked


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("https://b.test/x?y#z", "https://b.test/x?y"),
        ("//b.test/x", "https://b.test/x"),
        ("/x/../y", "https://a.test:8443/y"),
        ("y?z", "https://a.test:8443/v1/y?z"),
        ("../y", "https://a.test:8443/y"),
        ("../../../../y", "https://a.test:8443/y"),
        (".", "https://a.test:8443/v1/"),
        ("?z", "https://a.test:8443/v1/x?z"),
        ("#z", "https://a.test:8443/v1/x?q"),
    ],
)
def test_a_redirect_is_resolved_as_the_standard_says(location, there):
    """RFC 3986, 5.2."""
    assert follow(read_url("https://a.test:8443/v1/x?q"), location).url == there


@pytest.mark.parametrize(
    "location",
    ["", "http://a.test/", "ftp://a.test/", "https://u@a.test/", "//u@a.test/", "/%2e%2e/x", "\\\\evil", "/a b", "///x",
     "https://a.test/../x", "data:,x", "https://169.254.169.254@b/"],
)  # fmt: skip
def test_a_redirect_to_what_cannot_be_asked_is_not_followed(location):
    """Nor one from https to http, whatever the rules say."""
    with pytest.raises(HttpError):
        follow(read_url("https://a.test/v1/x"), location)
