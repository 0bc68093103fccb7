"""A rule that could never be meant is refused when it is written, and not when a guest asks."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hookline_api.outbound import EgressRule


@pytest.mark.parametrize(
    "host",
    ["0x7f.1", "127.1", "1.2.3.256", "2130706433", "*.1", "a..b", "1:2", "::1::", f"{'a' * 64}.test", "127.0.0.01"],
)
def test_a_host_that_no_url_can_name_is_refused(host):
    """An address in an odd form, or a name with an empty part."""
    with pytest.raises(ValidationError):
        EgressRule(host=host)


@pytest.mark.parametrize("host", ["example.com", "*.example.com", "10.0.0.1", "::1", "fd00::1", "a_b.svc", "1a.test"])
def test_names_and_addresses_are_taken(host):
    """As a URL has them."""
    assert EgressRule(host=host).host == host


@pytest.mark.parametrize("address", ["10.0.0.0/33", "10.0.0.1/8", ":::", "1.2.3", "fd00::/129"])
def test_what_is_no_network_is_refused(address):
    """With an example of one."""
    with pytest.raises(ValidationError, match=r"such as 10\.1\.2\.0/24"):
        EgressRule(host="a.test", addresses=[address])


def test_an_authority_is_for_https():
    """In the clear there is nothing that it could vouch for."""
    with pytest.raises(ValidationError, match="caFrom is for https alone"):
        EgressRule.model_validate({"host": "a.test", "scheme": "http", "caFrom": {"name": "tls", "key": "ca"}})
