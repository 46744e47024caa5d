"""Sends one post, and says whether it was taken, or whether to try again."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from tracer import VERSION
from tracer.serve.destination import Destination
from tracer.serve.posts import Post

#: Seconds for each step of an attempt, and for all of it.
STEP, ATTEMPT = 5.0, 15.0
#: Answers after which the same post may be taken another time.
AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt; problem: what was wrong, None: it was taken. again: whether to repeat it."""

    problem: str | None = None
    again: bool = False


class Sender:
    """Posts to one destination, with a connection for each: it follows no redirection, which credentials must not."""

    def __init__(self, destination: Destination, authorization: str | None, *, step: float = STEP,
                 attempt: float = ATTEMPT) -> None:
        """authorization: the header's value. step, attempt: seconds."""
        self._destination = destination
        self._headers = {"User-Agent": f"leaktrace/{VERSION}", "Connection": "close",
                         **({"Authorization": authorization} if authorization else {})}
        self._step, self._attempt = step, attempt
        # It reads the certificates, which afterwards may lie where nobody may read.
        self._trust = ssl.create_default_context() if destination.secure else None

    def send(self, post: Post) -> Outcome:
        """Make one attempt."""
        connection = self._connection()
        # The time of a step begins anew with each byte that comes.
        late = threading.Event()
        cut = threading.Timer(self._attempt, _cut, (connection, late))
        cut.daemon = True
        cut.start()
        try:
            connection.request("POST", post.target, post.content, {**self._headers, "Content-Type": post.kind})
            status = connection.getresponse().status
        except ssl.SSLCertVerificationError as problem:
            return Outcome(f"its certificate is not good: {problem.verify_message}", again=True)
        except TimeoutError:
            return Outcome("it does not answer", again=True)
        except OSError as problem:
            return Outcome(problem.strerror or type(problem).__name__, again=True)
        except http.client.HTTPException as problem:
            return Outcome(f"its answer makes no sense ({type(problem).__name__})", again=True)
        finally:
            cut.cancel()
            connection.close()
        if late.is_set():
            # A head that ends early reads as a whole one.
            return Outcome("it does not answer", again=True)
        if 200 <= status < 300:
            return Outcome()
        known = f" {HTTPStatus(status).phrase}" if status in list(HTTPStatus) else ""
        return Outcome(f"it answers {status}{known}", again=status in AGAIN)

    def _connection(self) -> http.client.HTTPConnection:
        to = self._destination
        if self._trust is not None:
            return http.client.HTTPSConnection(to.host, to.port, timeout=self._step, context=self._trust)
        return http.client.HTTPConnection(to.host, to.port, timeout=self._step)


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    """End a connection that another thread waits at, and say so."""
    late.set()
    # The type that is declared for it says there always is one.
    made: socket.socket | None = connection.sock
    if made is not None:
        with suppress(OSError):
            made.shutdown(socket.SHUT_RDWR)
