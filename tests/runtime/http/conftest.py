"""A server with a certificate of an own authority, a plugin that may ask it, and names that resolve as a test says."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from hookline_runtime.host.backends import http as backend
from http_guests import NAMES, HttpGuest, served
from own_authorities import new_authority


@pytest.fixture(scope="session")
def authority():
    """One for all of them."""
    return new_authority()


@pytest.fixture(scope="session")
def certificate(authority, tmp_path_factory):
    """A server's context, for 127.0.0.1 and some names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(tmp_path_factory.mktemp("tls"), *NAMES))
    return context


@pytest.fixture
async def site(certificate):
    """A server that is asked over TLS."""
    async with served(certificate) as running:
        yield running


@pytest.fixture
async def plain():
    """One that is asked in the clear."""
    async with served(None) as running:
        yield running


@pytest.fixture
async def guest(authority):
    """Makes plugins with these rules; they are closed, and what they held is gone, before the servers end."""
    made = []

    def make(*egress, **fields):
        credentials = {"tls/ca": authority.pem} | fields.pop("credentials", {})
        made.append(HttpGuest(list(egress), credentials=credentials, **fields))
        return made[-1]

    yield make
    for each in made:
        each.host.close()
    await asyncio.gather(*backend._ending)


@pytest.fixture
def names(monkeypatch):
    """What names resolve to: for each a list of answers, each a list of addresses; the last one stays."""
    table, real, asked = {}, socket.getaddrinfo, []

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in table:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        answers = table[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    table["asked"] = asked
    return table
