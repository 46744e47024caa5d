"""Posts that wait, that are repeated, and that are given up."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tracer.serve.conftest import report
from tracer.serve import pusher
from tracer.serve.destination import parse
from tracer.serve.outline import packed
from tracer.serve.posts import Post
from tracer.serve.pusher import PAUSES, Pusher, Queue
from tracer.serve.sending import Outcome, Sender

POST = Post("/ingest?name=x", "text/plain", b"content")
AGAIN, NEVER, TAKEN = Outcome("busy", again=True), Outcome("it answers 401", again=False), Outcome()
#: Seconds until what never comes is a failure.
PATIENCE = 10


class Trace:
    """The trace's end: reports to take, and what it was told."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        self.contents = iter([*contents, None])
        self.told: list[dict[str, Any]] = []

    def take(self) -> bytes | None:
        return next(self.contents)

    def say(self, **news: Any) -> None:
        self.told.append(news)


class Answers:
    """A sender whose outcomes are known; the last is that of all that follow."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.posts: list[Post] = []

    def send(self, post: Post) -> Outcome:
        self.posts.append(post)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


def push(answers: Answers, number: int = 1) -> tuple[Pusher, Trace, list[float]]:
    """Push so many reports; return also what the trace was told, and the pauses."""
    trace = Trace([packed(report([(each + 1, 0)], 5.0 * each + 5)) for each in range(number)])
    pauses: list[float] = []
    made = Pusher(parse("http://localhost/ingest"), answers, sleep=pauses.append)
    made.run(trace)
    return made, trace, pauses


def test_what_is_taken_is_sent_once() -> None:
    """In the order in which reports came."""
    answers = Answers(TAKEN)
    made, trace, pauses = push(answers, 3)
    assert (made.sent, made.failed, pauses, len(answers.posts)) == (3, 0, [], 3)
    assert [each.target.partition("until=")[2][:10] for each in answers.posts] == sorted(
        each.target.partition("until=")[2][:10] for each in answers.posts)
    assert trace.told[-1] == {"sent": 3, "failed": 0, "dropped": 0, "problem": None}


def test_what_fails_is_repeated_the_same() -> None:
    """After pauses that become longer; and the trace hears of it before it is over."""
    answers = Answers(AGAIN, AGAIN, TAKEN)
    made, trace, pauses = push(answers)
    assert (made.sent, made.failed, pauses) == (1, 0, list(PAUSES[:2]))
    assert len(set(answers.posts)) == 1 and trace.told[0]["problem"] == "busy" and trace.told[-1]["problem"] is None


def test_repetition_has_an_end() -> None:
    """The next report gets its chance."""
    answers = Answers(*[AGAIN] * (len(PAUSES) + 1), TAKEN)
    made, _, pauses = push(answers, 2)
    assert (made.sent, made.failed, pauses) == (1, 1, list(PAUSES))
    assert list(PAUSES) == sorted(PAUSES) and sum(PAUSES) < 60


def test_what_is_refused_is_not_repeated() -> None:
    """Wrong credentials stay wrong."""
    made, trace, pauses = push(Answers(NEVER))
    assert (made.sent, made.failed, pauses) == (0, 1, []) and trace.told[-1]["problem"] == "it answers 401"


def test_what_was_not_taken_is_in_the_next() -> None:
    """Pyroscope adds up what was allocated: none is missing, and none is there twice."""
    answers = Answers(TAKEN, NEVER, TAKEN)
    push(answers, 3)
    first, _, last = [each.target for each in answers.posts]
    assert last.partition("from=")[2][:10] == first.partition("until=")[2][:10]


def test_a_full_queue_drops_the_oldest() -> None:
    """And counts it."""
    queue = Queue(2)
    for content in (b"1", b"2", b"3", b"4"):
        queue.put(content)
    queue.put(None)
    assert ([queue.get(), queue.get(), queue.get()], queue.dropped) == ([b"3", b"4", None], 2)
    assert 1 < pusher.WAITING < 100


@contextmanager
def answering(status: int, received: list[Any], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Have a server that answers every post with a status; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def send(port: int, scheme: str = "http", **limits: float) -> Outcome:
    return Sender(parse(f"{scheme}://127.0.0.1:{port}/ingest"), "Bearer hush", **limits).send(POST)


@pytest.mark.parametrize(("status", "outcome"), [
    (200, TAKEN), (204, TAKEN), (401, Outcome("it answers 401 Unauthorized")), (599, Outcome("it answers 599")),
    (301, Outcome("it answers 301 Moved Permanently")),
    (503, Outcome("it answers 503 Service Unavailable", again=True)),
    (429, Outcome("it answers 429 Too Many Requests", again=True)),
])
def test_answers_say_what_to_do(status: int, outcome: Outcome) -> None:
    """Whether it was taken, and whether trying again makes sense; redirections are not followed."""
    received: list[Any] = []
    with answering(status, received) as port:
        assert send(port) == outcome
    (path, headers, content), = received
    assert (path, content, headers["Content-Type"]) == (POST.target, POST.content, POST.kind)
    assert headers["Authorization"] == "Bearer hush"


def test_nobody_there_is_said() -> None:
    """A server that is being started again may come back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert send(port) == Outcome("Connection refused", again=True)


@pytest.mark.parametrize("trickle", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["silent", "trickling"])
def test_an_attempt_has_an_end(trickle: bytes) -> None:
    """Where nothing comes, and where a little comes all the time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(trickle)
                    while trickle:
                        connection.sendall(b"X: y\r\n" * 2)
                        time.sleep(0.1)
                    connection.recv(1 << 16)
                    connection.recv(1 << 16)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        outcome = send(server.getsockname()[1], step=0.5, attempt=1.0)
    assert outcome.problem is not None and outcome.again and time.monotonic() - began < 3


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 9999999 x\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200])
def test_answers_that_make_no_sense_are_said(answer: bytes) -> None:
    """In our own words."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        outcome = send(server.getsockname()[1])
    assert outcome.again and outcome.problem is not None and "nonsense" not in outcome.problem


def certificate(folder: Path) -> tuple[Path, Sequence[str]]:
    """Make a certificate for 127.0.0.1 that nobody has signed."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out",
                    str(made)], check=True, capture_output=True)
    return made, (str(made), str(key))


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody vouches for gets no credentials; with the one who does among those that are trusted, it does."""
    made, files = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    received: list[Any] = []
    with answering(200, received, context) as port:
        outcome = send(port, "https")
        assert outcome.problem is not None and "certificate" in outcome.problem and not received
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
        assert send(port, "https") == TAKEN and len(received) == 1
