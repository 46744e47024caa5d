"""The server, over real sockets: what its clients do stays theirs."""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress

import pytest

from tests.unit.tracer.serve.conftest import report
from tracer.serve import server as server_
from tracer.serve.address import listen, parse
from tracer.serve.outline import packed
from tracer.serve.pages import PAGES, Page, Pages
from tracer.serve.server import Server

NAMES = frozenset({"localhost", "127.0.0.1"})
#: Seconds for a request to come whole, and connections at once, of the server that is tested.
READING, CONNECTIONS = 0.5, 4
#: Seconds until what never comes is a failure.
PATIENCE = 10
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A server that runs in a thread, and what its clients see."""

    def __init__(self) -> None:
        self.reports: queue.Queue[bytes | None] = queue.Queue()
        listening = listen(parse("127.0.0.1:0"))
        self.address = listening.getsockname()
        server = Server(Pages(), NAMES, reading=READING, connections=CONNECTIONS)
        self.thread = threading.Thread(target=server.run, args=(listening, self.reports.get), daemon=True)
        self.thread.start()

    def put(self, **how: str) -> None:
        """Give it a report, and wait until it has it."""
        self.reports.put(packed(report([(5, 1)], **how)))  # type: ignore[arg-type]
        deadline = time.monotonic() + PATIENCE
        while status(self.ask(METRICS)) != 200:
            assert time.monotonic() < deadline

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE)

    def ask(self, request: bytes) -> bytes:
        """Send a request, and return all of the answer."""
        with self.connect() as client:
            client.sendall(request)
            return rest(client)

    def stop(self) -> None:
        self.reports.put(None)
        self.thread.join(PATIENCE)


def rest(client: socket.socket) -> bytes:
    """Return what is read until the other side closes."""
    pieces = []
    try:
        while piece := client.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(found[1]) if found else 0


@pytest.fixture
def served() -> Iterator[Served]:
    """A server that has a report."""
    running = Served()
    running.put()
    yield running
    running.stop()


def test_pages_are_answered(served: Served) -> None:
    """Each with its type, its length, and headers that tell a browser to keep and to trust nothing."""
    for path in (*PAGES, "/healthz"):
        answer = served.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, content = answer.partition(b"\r\n\r\n")
        assert status(answer) == 200 and f"Content-Length: {len(content)}".encode() in head and content
        for header in (b"Cache-Control: no-store", b"X-Content-Type-Options: nosniff", b"X-Frame-Options: DENY",
                       b"Content-Security-Policy: default-src 'none'", b"Cross-Origin-Resource-Policy: same-origin"):
            assert header in head
        assert b"Access-Control" not in head and b"Server:" not in head


def test_head_is_without_content(served: Served) -> None:
    """The head is as for GET."""
    asked = served.ask(METRICS.replace(b"GET", b"HEAD"))
    assert asked == served.ask(METRICS).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


@pytest.mark.parametrize("path", ["/metrics/", "/../../etc/passwd", "/%2e%2e/etc/passwd", "//", "/index.html", "*",
                                  "http://localhost/metrics", "/reflected-text"])
def test_there_is_nothing_else(served: Served, path: str) -> None:
    """No folder, and no answer has anything in it of what was asked for."""
    answer = served.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status(answer) == 404 and answer.endswith(b"\r\n\r\n404 Not Found\n") and b"reflected" not in answer


@pytest.mark.parametrize(("request_", "expected"), [
    (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 405),
    (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    (b"nonsense\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00" + b"\x00" * 600 + b"\r\n\r\n", 400),
    (b"GET /" + b"x" * 900_000, 431),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 3_000_000, 431),
])
def test_what_is_wrong_gets_an_answer(served: Served, request_: bytes, expected: int) -> None:
    """Also where the client has not stopped sending: the answer arrives, and others are answered."""
    with served.connect() as client:
        # One who goes on sending whatever it is told is cut off at last.
        endless = len(request_) > server_.IGNORED
        with suppress(BrokenPipeError, ConnectionResetError) if endless else nullcontext():
            client.sendall(request_)
        answer = rest(client)
    assert status(answer) in ((expected, 0) if endless else (expected,)) and len(answer) < 1000
    assert status(served.ask(METRICS)) == 200


def test_the_answer_reaches_who_still_sends(served: Served) -> None:
    """A connection that is closed with something unread takes the answer back: so the rest is read, for a moment."""
    with served.connect() as client:
        client.sendall(b"GET /" + b"x" * 20_000)
        for _ in range(4):
            time.sleep(0.05)
            client.sendall(b"x" * 1000)
        assert status(rest(client)) == 431


def test_a_slow_request_is_cut(served: Served) -> None:
    """However steadily a byte comes: all of it has to be there in time."""
    began = time.monotonic()
    with served.connect() as client:
        sent = 0
        try:
            for byte in METRICS:
                client.sendall(bytes([byte]))
                sent += 1
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert status(rest(client)) in (408, 0)
    assert sent < len(METRICS) and time.monotonic() - began < READING + 2


def test_those_who_only_connect_keep_nobody_out(served: Served) -> None:
    """With all places taken by clients that ask for nothing, the one that waits for longest makes room."""
    idle = [served.connect() for _ in range(3 * CONNECTIONS)]
    try:
        began = time.monotonic()
        assert status(served.ask(METRICS)) == 200
        assert time.monotonic() - began < READING
        assert idle[0].recv(1) == b"", "the oldest has made room"
    finally:
        for each in idle:
            each.close()


def test_more_than_can_be_answered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all places are taken by clients that are being answered, one more is told to come again."""
    going = threading.Event()
    json_page = PAGES["/report.json"]
    monkeypatch.setitem(PAGES, "/report.json", lambda report: (going.wait(PATIENCE), json_page(report))[1])
    served = Served()
    served.put()
    clients: list[socket.socket] = []
    deadline = time.monotonic() + PATIENCE
    # Its place may be that of one that is just leaving.
    while status(refused := served.ask(METRICS)) != 503:
        assert time.monotonic() < deadline
        clients.append(served.connect())
        clients[-1].sendall(b"GET /report.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"Retry-After: 1" in refused
    going.set()
    assert [status(rest(client)) for client in clients].count(200) == CONNECTIONS
    served.stop()


def test_a_page_that_takes_long_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures for a scrape do not wait for the page of a reader."""
    going = threading.Event()
    html_page = PAGES["/"]
    monkeypatch.setitem(PAGES, "/", lambda report: (going.wait(PATIENCE), html_page(report))[1])
    served = Served()
    served.put()
    with served.connect() as first, served.connect() as second:
        for client in (first, second):
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status(served.ask(METRICS)) == 200
        going.set()
        assert status(rest(first)) == status(rest(second)) == 200
    served.stop()


def test_a_page_that_cannot_be_made_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others can."""
    monkeypatch.setitem(PAGES, "/report.json", lambda report: 1 // 0)
    answer = served.ask(b"GET /report.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status(answer) == 500 and b"ZeroDivision" not in answer
    assert status(served.ask(METRICS)) == 200


def test_one_who_does_not_read_is_left(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has to be read in time too."""
    monkeypatch.setattr(server_, "WRITING", 0.3)
    large = Page("text/plain", b"x" * (64 << 20), "default-src 'none'")
    monkeypatch.setitem(PAGES, "/report.json", lambda report: large)
    with served.connect() as client:
        client.sendall(b"GET /report.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        client.settimeout(PATIENCE)
        assert len(rest(client)) < 64 << 20


def test_before_a_report_there_is_only_health() -> None:
    """Whoever scrapes too soon is told so, and a probe sees that it lives."""
    served = Served()
    assert status(served.ask(METRICS)) == 503
    assert status(served.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 200
    served.stop()


def test_it_ends_with_the_trace(served: Served) -> None:
    """Also while somebody is connected."""
    with served.connect():
        served.stop()
        assert not served.thread.is_alive()
