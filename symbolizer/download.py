"""Downloads over http and https that end: after so many seconds, bytes or redirects, whatever the server does.

The limits are the variables of debuginfod-client-config(7), the headers those of debuginfod(8).
"""

import base64
import http.client
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

_STALL_SECONDS: Final = 90.0
_TOTAL_SECONDS: Final = 600.0  # elfutils has no limit, but here a report waits for it
_SIZE: Final = 1 << 30
_SLOW: Final = 100 * 1024  # a server that gives fewer bytes in DEBUGINFOD_TIMEOUT seconds is given up
_REDIRECTS: Final = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What one download may cost: seconds for each 100 KB, seconds in all, bytes; None for no limit."""

    stall: float | None = _STALL_SECONDS
    total: float | None = _TOTAL_SECONDS
    size: int | None = _SIZE

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return what the variables say; 0 means no limit, and what is no number the default."""
        stall = number_or(environ.get("DEBUGINFOD_TIMEOUT"), _STALL_SECONDS)
        total = number_or(environ.get("DEBUGINFOD_MAXTIME"), _TOTAL_SECONDS)
        size = number_or(environ.get("DEBUGINFOD_MAXSIZE"), _SIZE)
        return cls(stall if stall > 0 else None, total if total > 0 else None, int(size) if size > 0 else None)


class Watch:
    """Cuts the connections of one download when its time is over, wherever it then waits; as `with` statement."""

    def __init__(self, limits: Limits) -> None:
        self.received = 0
        self.expired = False
        self._limits = limits
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="debuginfod-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._limits.stall is not None or self._limits.total is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        for connection in self._sockets:
            connection.close()

    def connect(
        self, address: tuple[str, int], timeout: float | None = None, source: tuple[str, int] | None = None
    ) -> socket.socket:
        """Do what socket.create_connection does, and remember the connection."""
        problem: OSError = TimeoutError(f"{address[0]} has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            # A copy of the descriptor, as TLS takes the socket over; shutdown() through either ends both.
            self._sockets.append(connection.dup())
            if self.expired:  # looked at after it is in the list, so one of the two threads sees the other
                connection.close()
                break
            try:
                connection.settimeout(timeout)
                connection.connect(place)
                return connection
            except OSError as failure:
                problem = failure
                connection.close()
        raise problem

    def _run(self) -> None:
        stall, total = self._limits.stall or float("inf"), self._limits.total or float("inf")
        now = time.monotonic()
        end, window_end, received = now + total, now + stall, 0
        while not self._ended.wait(min(end, window_end) - now):
            now = time.monotonic()
            if now >= end or (now >= window_end and self.received - received < _SLOW):
                break
            if now >= window_end:
                window_end, received = now + stall, self.received
        else:
            return
        self.expired = True
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _WatchedHttp(HTTPHandler):
    """Opens http connections through a watch."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: Request) -> Any:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return _through(self._watch, http.client.HTTPConnection(host, **options))


class _WatchedHttps(HTTPSHandler):
    """Opens https connections through a watch."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: Request) -> Any:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return _through(self._watch, http.client.HTTPSConnection(host, **options))


def _through(watch: Watch, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    # Not documented, but there since Python 2.7; a test of slow headers fails should it go.
    connection._create_connection = watch.connect  # type: ignore[attr-defined]
    return connection


def open_url(address: str, limits: Limits, watch: Watch) -> Any:
    """Return the answer to a request, redirects followed. Raises HTTPError, OSError, HTTPException or ValueError."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        _WatchedHttp(watch),
        _WatchedHttps(watch),
        UnknownHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    # urllib would read the whole text that comes with a redirect, and goes to ftp too.
    for _ in range(_REDIRECTS):
        try:
            return opener.open(_request(address, limits), timeout=limits.stall)
        except HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not target:
                raise
            error.close()
            address = urljoin(address, target)
            if not is_http(address):
                raise
    raise ValueError("too many redirects")


def _request(address: str, limits: Limits) -> Request:
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    request = Request(parts._replace(netloc=host).geturl(), headers={"User-Agent": "leaktrace"})
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    if limits.size is not None:
        request.add_header("X-DEBUGINFOD-MAXSIZE", str(limits.size))
    return request


def is_http(url: str) -> bool:
    """Return whether it is an http or https URL that names a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def number_or(text: str | None, default: float) -> float:
    """Return the number that the text is; the default where there is none, or one beyond all use."""
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return value if abs(value) < 1e15 else default
