"""The head of a request: what is understood, and with which status the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.serve.request import LONGEST_HEAD, MOST_HEADERS, Refused, Request, parse

NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def head(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(content: bytes, names: frozenset[str] | None = NAMES) -> int:
    with pytest.raises(Refused) as caught:
        parse(content, names)
    return caught.value.status


@pytest.mark.parametrize(("line", "request_"), [
    ("GET /metrics HTTP/1.1", Request("/metrics", True)),
    ("HEAD / HTTP/1.1", Request("/", False)),
    ("GET /metrics?name[]=x HTTP/1.0", Request("/metrics", True)),
])
def test_what_is_asked_for(line: str, request_: Request) -> None:
    """The path without its query, and whether the content is wanted."""
    assert parse(head(line, "Host: localhost:9464", "X-More: a: b"), NAMES) == request_


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1:9464", "[::1]:9464", "[::1]", "localhost.", " 127.0.0.1 "])
def test_names_of_this_machine_are_answered(host: str) -> None:
    """However they are written, with or without a port."""
    assert parse(head("GET / HTTP/1.1", f"Host:{host}"), NAMES).path == "/"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", "",
                                  "0.0.0.0", "[::2]", "127.0.0.1.evil:80"])
def test_another_name_is_refused(host: str) -> None:
    """The browser of a page whose own name resolves to this machine sends that name."""
    assert status(head("GET / HTTP/1.1", f"Host: {host}")) == 421


def test_any_name_is_right_for_what_others_reach() -> None:
    """Nobody knows all names of a machine that others reach."""
    assert parse(head("GET / HTTP/1.1", "Host: metrics.example"), None).path == "/"


@pytest.mark.parametrize("lines", [
    ("GET / HTTP/1.1",),
    ("GET / HTTP/1.1", "Host: localhost", "Host: evil.example"),
    ("GET / HTTP/1.0", "Host: localhost", "Host: localhost"),
    ("GET / HTTP/2.0", "Host: localhost"),
    ("GET /", "Host: localhost"),
    ("GET  / HTTP/1.1", "Host: localhost"),
    ("GET / / HTTP/1.1", "Host: localhost"),
    ("GET /\x80 HTTP/1.1", "Host: localhost"),
    ("GET / HTTP/1.1", "Host: localhost", "no colon"),
    ("GET / HTTP/1.1", "Host: localhost", " folded: line"),
    ("GET / HTTP/1.1", "Host : localhost"),
    ("GET / HTTP/1.1", "Host: local\x00host"),
    ("GET / HTTP/1.1", "Host: local\nhost: evil"),
    ("GET / HTTP/1.1", "Host: [::1"),
    ("GET / HTTP/1.1", "Host: a@localhost"),
    ("",),
])
def test_what_makes_no_sense_is_refused(lines: tuple[str, ...]) -> None:
    """Where two readers could understand it differently, this one does not try."""
    assert status(head(*lines)) == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_other_methods_are_refused(method: str) -> None:
    """There is nothing to change here."""
    assert status(head(f"{method} /metrics HTTP/1.1", "Host: localhost")) == 405


def test_large_heads_are_refused() -> None:
    """By their bytes, and by the number of their headers."""
    many = [f"X-{each}: x" for each in range(MOST_HEADERS)]
    assert status(head("GET / HTTP/1.1", "Host: localhost", *many)) == 431
    assert parse(head("GET / HTTP/1.1", "Host: localhost", *many[1:]), NAMES).path == "/"
    assert status(head("GET / HTTP/1.1", "Host: localhost", "X: " + "x" * LONGEST_HEAD)) == 431


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n"]))
def test_any_bytes_are_a_request_or_refused(content: bytes, begin: bytes) -> None:
    """Nothing else comes of whatever is sent."""
    try:
        assert parse(begin + content + b"\r\n\r\n", NAMES).path
    except Refused as refused:
        assert refused.status in (400, 405, 421, 431)
