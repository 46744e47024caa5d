"""Where to post to: the URL, the form that it means, and how the credentials get there."""

from __future__ import annotations

import base64

import pytest

from tracer.errors import UsageError
from tracer.serve.destination import CREDENTIALS, Destination, Form, authorization, parse

NEAR = parse("http://localhost:4040/ingest")
SECURE = parse("https://profiles.example/ingest")
FAR = parse("http://profiles.example/ingest")


@pytest.mark.parametrize(("url", "destination"), [
    ("http://localhost:4040/ingest", Destination(False, "localhost", 4040, "/ingest", (), Form.PYROSCOPE)),
    ("https://x.example/pyroscope/ingest/?name=shop&a=b%20c",
     Destination(True, "x.example", 443, "/pyroscope/ingest", (("name", "shop"), ("a", "b c")), Form.PYROSCOPE)),
    ("http://[::1]:7070/api/profiles/writeraw",
     Destination(False, "::1", 7070, "/api/profiles/writeraw", (), Form.PARCA)),
])
def test_the_path_says_the_form(url: str, destination: Destination) -> None:
    """It ends as the server's own documentation has it."""
    assert parse(url) == destination


@pytest.mark.parametrize("url", ["", "localhost:4040/ingest", "ftp://x/ingest", "http:///ingest", "http://x:99999/ingest",
                                 "http://x/ingest\r\nX: y", "http://[::1/ingest", "file:///ingest", "http://ä/ingest"])
def test_what_is_no_url_is_said(url: str) -> None:
    """With an example."""
    with pytest.raises(UsageError, match="Write for example"):
        parse(url)


@pytest.mark.parametrize("url", ["http://x", "http://x/", "http://x/ingest/more", "http://x/push"])
def test_an_unknown_path_is_said(url: str) -> None:
    """With the two that are known."""
    with pytest.raises(UsageError, match=r"/ingest, for Parca with /api/profiles/writeraw"):
        parse(url)


def test_credentials_are_not_taken_from_the_command_line() -> None:
    """Everybody can read them there, and recordings have it; what is said does not repeat them."""
    with pytest.raises(UsageError) as caught:
        parse("https://me:hush@x.example/ingest")
    assert CREDENTIALS in caught.value.remedy and "hush" not in str(caught.value)


def test_what_is_shown_has_no_query() -> None:
    """A token may be in it."""
    assert str(parse("https://x.example/ingest?token=hush")) == "https://x.example:443/ingest"
    assert str(parse("http://[::1]:7070/api/profiles/writeraw")) == "http://[::1]:7070/api/profiles/writeraw"


def test_credentials_become_a_header() -> None:
    """USER:PASSWORD by Basic, a token as Bearer, nothing where there are none."""
    basic = authorization("me:hush", SECURE)
    assert basic is not None and base64.b64decode(basic.removeprefix("Basic ")) == b"me:hush"
    assert authorization("token", NEAR) == "Bearer token"
    assert authorization(None, FAR) is None and authorization("", FAR) is None


@pytest.mark.parametrize(("credentials", "destination", "said"), [
    ("token", FAR, "everybody on the way"),
    ("tok\nen", SECURE, "characters"),
    ("me:hüsh", SECURE, "characters"),
])
def test_credentials_that_would_leak_are_refused(credentials: str, destination: Destination, said: str) -> None:
    """Over a network without encryption, or into another header; and without repeating them."""
    with pytest.raises(UsageError, match=said) as caught:
        authorization(credentials, destination)
    assert credentials not in str(caught.value)
