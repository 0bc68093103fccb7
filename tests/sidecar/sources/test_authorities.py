"""By whom the operator is known: the file says so, and what it told over a connection that was verified."""

import datetime as dt
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hookline_api.distribution import AuthorityMessage
from hookline_sidecar.control.authorities import Authorities, usable
from hookline_sidecar.control.sources.operator_client import INJECTED, OperatorClient
from hookline_sidecar.settings import OperatorSettings

URL = "https://hookline-operator.hookline-system.svc"


def certificate(*, authority=True, days=1):
    """One that signs itself; it ends in so many days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hookline-operator-ca")])
    made = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(days=9), not_valid_after=now + dt.timedelta(days=days),
    ).add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)  # fmt: skip
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


OLD, NEW, ENDED, LEAF = certificate(), certificate(), certificate(days=-1), certificate(authority=False)


def message(bundle, version="v1"):
    """As the operator sends it."""
    return AuthorityMessage(version=version, bundle=bundle)


@pytest.fixture
def path(tmp_path):
    """Where it is kept."""
    return tmp_path / "authorities.json"


def test_what_was_told_counts_beside_the_file_and_after_a_restart(path):
    """Kept so that nobody else reads or writes it."""
    known = Authorities(path, URL)
    assert (known.beside(OLD), known.version(OLD)) == ("", None)
    assert known.take(message(NEW), beside=OLD)
    assert not known.take(message(NEW), beside=OLD)
    again = Authorities(path, URL)
    assert (again.beside(OLD), again.version(OLD)) == (NEW, "v1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_told_next_replaces_it(path):
    """Nothing is gathered."""
    known = Authorities(path, URL)
    known.take(message(NEW), beside=OLD)
    known.take(message(OLD, "v2"), beside=OLD)
    assert (known.beside(OLD), known.version(OLD)) == (OLD, "v2")


@pytest.mark.parametrize("other", ["file", "operator"])
def test_another_file_or_operator_takes_it_back(path, other):
    """Who writes a new authority into the file does not trust the old one, nor what it vouched for."""
    Authorities(path, URL).take(message(NEW), beside=OLD)
    known = Authorities(path, URL if other == "file" else "https://elsewhere.test")
    assert known.beside(NEW if other == "file" else OLD) == ""
    assert known.version(NEW if other == "file" else OLD) is None


@pytest.mark.parametrize(
    "bundle", ["", "no PEM", LEAF, ENDED, LEAF + ENDED, NEW * 9, "Zürich", "x" * 60_000], ids=range(8)
)
def test_what_is_no_authority_replaces_nothing(path, bundle):
    """Only certificates that may sign others, whose time is not over, and few."""
    known = Authorities(path, URL)
    known.take(message(NEW), beside=OLD)
    with pytest.raises(ValueError, match="certificate authorit"):
        known.take(message(bundle, "v2"), beside=OLD)
    assert known.beside(OLD) == NEW


def test_of_a_bundle_only_the_authorities_count():
    """What else is in it is left out, one by one."""
    assert usable(LEAF + NEW + ENDED) == NEW


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"operator": 1}', b"[]"])
def test_a_file_that_is_damaged_is_as_good_as_none(path, text, caplog):
    """The pod's own authority is still there."""
    path.write_bytes(text)
    assert Authorities(path, URL).beside(OLD) == ""
    assert "cannot be read" in caplog.text


@pytest.fixture
def client(tmp_path, path):
    """A client with a file and a token."""
    (tmp_path / "ca.crt").write_text(OLD)
    (tmp_path / "token").write_text("a")
    settings = OperatorSettings(url=URL, ca=tmp_path / "ca.crt", token=tmp_path / "token")
    return OperatorClient(settings, Authorities(path, URL))


def trusted(client):
    """How many authorities its next connection trusts."""
    return len(client._identity()[0].get_ca_certs())


def test_a_client_trusts_both_and_says_which_it_was_told(client, tmp_path):
    """From the next connection on."""
    assert (trusted(client), client.authority) == (1, None)
    assert client.trust(message(NEW))
    assert (trusted(client), client.authority) == (2, "v1")
    (tmp_path / "ca.crt").write_text(NEW)
    assert (trusted(client), client.authority) == (1, None)


def test_a_client_that_has_connected_to_nobody_believes_nobody(client):
    """What is told comes over a connection that this client has verified."""
    assert not client.trust(message(NEW))


def test_who_trusts_the_systems_authorities_is_told_of_no_others(tmp_path, path):
    """Nothing that is private is put beside them."""
    (tmp_path / "token").write_text("a")
    client = OperatorClient(OperatorSettings(url=URL, ca=None, token=tmp_path / "token"), Authorities(path, URL))
    before = client._identity()[0].get_ca_certs()
    assert not client.trust(message(NEW))
    assert client._identity()[0].get_ca_certs() == before
    assert not path.exists()


@pytest.mark.parametrize(
    ("ca", "says"),
    [
        (INJECTED / "ca.crt", "delete the pod, and it is made anew, or annotate it: kubectl annotate"),
        (Path("/etc/hookline/ca.crt"), "check --operator-ca and the host's name"),
        (None, "check --operator-ca and the host's name"),
    ],
)
def test_what_to_do_fits_where_the_authority_is_from(ca, says):
    """An injected sidecar has no command line that anybody could change."""
    client = OperatorClient(OperatorSettings(url=URL, ca=ca, token=Path("/token")))
    assert says in client._remedy
    assert ("--operator-ca" in client._remedy) == (ca is None or ca.parent != INJECTED)


async def test_a_sidecar_that_was_told_comes_back_to_an_operator_with_a_new_authority(
    new_sidecar, operator, guests, eventually
):
    """Its file has the old one alone, and its process is started anew in between."""
    sidecar = new_sidecar(plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token)
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    operator.new_authority()
    told = AuthorityMessage(version="v2", bundle=operator._authority.decode())
    operator.say(told.model_dump_json(by_alias=True))
    eventually(lambda: operator.last.authority == "v2", "a report that it knows")
    operator.drop()
    eventually(lambda: operator.connected, "a connection that goes by the new authority")
    assert sidecar.stop() == 0
    sidecar.start()
    eventually(lambda: operator.connected and operator.last.authority == "v2", "the same after a start")
    operator.say(json.dumps({"type": "authority", "version": "v3", "bundle": "no PEM"}))
    eventually(lambda: "is not PEM of certificate authorities" in json.dumps(sidecar.problems()), "why it is ignored")
    assert await sidecar.says() == "one"
    sidecar.end()
    assert ssl.PEM_cert_to_DER_cert(operator.ca.read_text()) != ssl.PEM_cert_to_DER_cert(told.bundle)
