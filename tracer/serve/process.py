"""What runs in a process that serves or posts reports: it takes them, and never sends one back.

Its standard input is the socket to the trace: first a message with what to do, then a descriptor for each report.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from tracer.serve.outbox import LONGEST_MESSAGE
from tracer.serve.rights import give_up


class Reports:
    """The reports that come, for whoever calls take()."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def take(self) -> bytes | None:
        """Wait for one, and return it as outline.load() reads it; None: no more will come."""
        text, descriptors, _, _ = socket.recv_fds(self._connection, LONGEST_MESSAGE, 1)
        if not text or not descriptors:
            return None
        with os.fdopen(descriptors[0], "rb") as file:
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def say(self, **news: Any) -> None:
        """Tell the trace something that it may say to its user; where it does not listen, nothing."""
        with suppress(OSError):
            self._connection.send(json.dumps(news).encode(), socket.MSG_DONTWAIT)


def main(kind: str) -> None:
    """Serve reports over HTTP (kind "server") or post them (kind "pusher") until no more come."""
    connection = socket.socket(fileno=0)
    text, descriptors, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 1)
    if not text:
        return
    work = _server(json.loads(text), descriptors) if kind == "server" else _pusher(json.loads(text))
    # Everything is imported and was used once: afterwards it may lie where nobody may read.
    give_up()
    work(Reports(connection))


def _server(settings: dict[str, Any], descriptors: list[int]) -> Callable[[Reports], None]:
    from tracer.serve.pages import Pages
    from tracer.serve.server import Server

    pages = Pages()
    pages.warm_up(_nothing())
    server = Server(pages, None if settings["names"] is None else frozenset(settings["names"]))
    return lambda reports: server.run(socket.socket(fileno=descriptors[0]), reports.take)


def _pusher(settings: dict[str, Any]) -> Callable[[Reports], None]:
    from tracer.serve import posts
    from tracer.serve.destination import parse
    from tracer.serve.pusher import Pusher
    from tracer.serve.sending import Sender

    destination = parse(settings["url"])
    posts.post(destination, _nothing())
    return Pusher(destination, Sender(destination, settings["authorization"])).run


def _nothing() -> Any:
    """Return a report of nothing."""
    from tracer.report.model import Report, Totals

    return Report(datetime.now().astimezone(), 0.0, "", (), Totals(0, 0, 0, 0, 0), (), (), True)


