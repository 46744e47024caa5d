"""Where to listen: what may be given, and who may reach it."""

from __future__ import annotations

import pytest

from tracer.errors import CannotTrace, ExitCode, UsageError
from tracer.serve.address import Address, listen, parse


@pytest.mark.parametrize(("text", "address"), [
    ("127.0.0.1:9464", Address("127.0.0.1", 9464)),
    ("localhost:0", Address("127.0.0.1", 0)),
    ("127.1.2.3:80", Address("127.1.2.3", 80)),
    ("[::1]:9464", Address("::1", 9464)),
])
def test_loopback_may_be_listened_at(text: str, address: Address) -> None:
    """An address of this machine alone needs no leave; localhost is one."""
    assert parse(text) == address


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "[::]:9464", "192.168.1.5:9464", "10.0.0.1:80", "[fe80::1]:80",
                                  "128.0.0.1:80", "[::ffff:8.8.8.8]:80"])
def test_what_others_reach_must_be_meant(text: str) -> None:
    """Any other address is refused, unless it was said that it is meant."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "--listen-public" in caught.value.remedy and "authentication" in caught.value.remedy
    assert parse(text, public=True).names is None


@pytest.mark.parametrize("text", ["", ":", "9464", "127.0.0.1", "127.0.0.1:", ":9464", "127.0.0.1:65536", "127.0.0.1:-1",
                                  "127.0.0.1:9a", "127.0.0.1:²", "example.org:80", "::1:9464", "127.0.0.1:" + "9" * 5000,
                                  "[::1:80", "http://127.0.0.1:80", "127.0.0.1 :80"])
def test_what_is_no_address_is_said(text: str) -> None:
    """Wrong usage: with a sentence of what to write, for every text."""
    with pytest.raises(UsageError) as caught:
        parse(text, public=True)
    assert caught.value.exit_code == ExitCode.USAGE and caught.value.remedy.startswith("Write")


def test_a_taken_port_cannot_be_listened_at() -> None:
    """It is named with why, and ends with the code of what cannot be."""
    with listen(parse("127.0.0.1:0")) as first:
        port = first.getsockname()[1]
        with pytest.raises(CannotTrace) as caught:
            listen(Address("127.0.0.1", port))
    assert f"127.0.0.1:{port}" in caught.value.message and "in use" in caught.value.message
    assert caught.value.exit_code == ExitCode.CANNOT_TRACE


def test_names_are_those_of_loopback() -> None:
    """A request may call the host localhost, or by the address; nothing that a page elsewhere could resolve to it."""
    assert parse("127.1.2.3:80").names == frozenset({"localhost", "127.0.0.1", "::1", "127.1.2.3"})


def test_an_address_is_shown_as_a_url_has_it() -> None:
    """One of IPv6 has brackets."""
    assert (str(parse("[::1]:80")), str(parse("localhost:80"))) == ("[::1]:80", "127.0.0.1:80")
