"""Fetches separate debug files by build id from debuginfod servers, into the cache that elfutils' client uses too.

Nothing is asked unless DEBUGINFOD_URLS names a server. Variables and control files are those of
debuginfod-client-config(7), the request is that of debuginfod(8); how files lie in the cache was seen with
elfutils 0.188: BUILDID/debuginfo, and that file is empty where no server had it.
"""

import base64
import http.client
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import IO, Any, Final, Self
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

from symbolizer.elf import Elf, ElfError, ElfUnsupported
from symbolizer.opening import HOST, read_regular
from symbolizer.printable import printable

_FILE: Final = "debuginfo"
_HEX: Final = frozenset("0123456789abcdef")
_LONGEST_BUILD_ID: Final = 128  # hex digits; the same limit as in elfutils' client
_MISS_SECONDS: Final = 600
_STALL_SECONDS: Final = 90.0
_TOTAL_SECONDS: Final = 600.0  # elfutils has no limit, but here a report waits for it
_SIZE: Final = 1 << 30
_SLOW: Final = 100 * 1024  # a server that gives fewer bytes in DEBUGINFOD_TIMEOUT seconds is given up
_PROGRESS_SECONDS: Final = 0.5
_PIECE: Final = 1 << 17
_REDIRECTS: Final = 10
_MEGABYTE: Final = 1_000_000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one download may cost: seconds for each 100 KB, seconds in all, bytes; None for no limit."""

    stall: float | None = _STALL_SECONDS
    total: float | None = _TOTAL_SECONDS
    size: int | None = _SIZE

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return what the variables say; 0 means no limit, and what is no number the default."""
        stall = _number(environ.get("DEBUGINFOD_TIMEOUT"), _STALL_SECONDS)
        total = _number(environ.get("DEBUGINFOD_MAXTIME"), _TOTAL_SECONDS)
        size = _number(environ.get("DEBUGINFOD_MAXSIZE"), _SIZE)
        return cls(stall if stall > 0 else None, total if total > 0 else None, int(size) if size > 0 else None)


class _Answer(Enum):
    """Say how a server's answer ended."""

    FOUND = auto()
    """It sent the file."""
    ABSENT = auto()
    """It does not have the file."""
    REFUSED = auto()
    """It has something that is too large or not what was asked for, or had an error of its own."""
    DEAD = auto()
    """It could not be reached, or was too slow, so it is not asked again."""


class _CannotKeep(Exception):
    """The cache folder takes no more."""


class Debuginfod:
    """Debug files by build id; a server that failed once is not asked again as long as this object lives."""

    def __init__(
        self,
        urls: Sequence[str],
        cache_folder: Path,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Ask the servers at the http and https URLs in that order; `progress` is told a line now and then."""
        self._urls = [url for url in urls if _is_http(url)]
        self._folder = Path(os.path.abspath(cache_folder))
        self._limits = limits or Limits()
        self._progress = progress
        self._dead: set[str] = set()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], cache_folder: Path | None = None, progress: Progress | None = None
    ) -> Self | None:
        """Return the client that the variables describe; None if DEBUGINFOD_URLS names no http or https server."""
        urls = [url for url in environ.get("DEBUGINFOD_URLS", "").split() if _is_http(url)]
        if not urls:
            return None
        return cls(urls, cache_folder or default_cache(environ), Limits.from_environment(environ), progress)

    def debuginfo(self, build_id: str, name: str | None = None) -> str | None:
        """Return the path of the file with that build id (hex), from the cache or a server; None if there is none.

        `name` is what the progress lines call it. The file is an ELF file, and no more is known of it.
        """
        if not 2 <= len(build_id) <= _LONGEST_BUILD_ID or not _HEX.issuperset(build_id):
            return None
        path = self._folder / build_id / _FILE
        cached = self._is_cached(path)
        if cached is not None:
            return str(path) if cached else None
        if self._dead.issuperset(self._urls):
            return None
        try:
            return str(path) if self._fetch(build_id, path, printable(name or build_id)) else None
        except (OSError, RuntimeError, _CannotKeep):  # RuntimeError: no thread can be started
            return None

    def _is_cached(self, path: Path) -> bool | None:
        """Return whether the file is there, False if no server had it a short time ago, None if that is not known."""
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return None
            if status.st_size:
                with path.open("rb") as file:
                    return file.read(4) == b"\x7fELF" or None
        except OSError:
            return None
        return False if 0 <= time.time() - status.st_mtime < self._miss_seconds() else None

    def _miss_seconds(self) -> float:
        try:
            return _number((self._folder / "cache_miss_s").read_text(), _MISS_SECONDS)
        except (OSError, ValueError):
            return _MISS_SECONDS

    def _fetch(self, build_id: str, path: Path, name: str) -> bool:
        """Ask the servers, and put the file or the fact that there is none at the path; raises OSError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.is_symlink():
            return False
        file, unfinished = tempfile.mkstemp(prefix=f"{_FILE}.", dir=path.parent)
        try:
            with os.fdopen(file, "wb") as out:
                answer = self._ask_all(build_id, name, out, unfinished)
            if answer is _Answer.FOUND:
                # Another run may have done the same; either file is whole.
                os.replace(unfinished, path)
                return True
            if answer is _Answer.ABSENT:
                _remember_absence(path)
        finally:
            with suppress(OSError):
                os.unlink(unfinished)
            with suppress(OSError):
                path.parent.rmdir()  # if nothing is in it
        return False

    def _ask_all(self, build_id: str, name: str, out: IO[bytes], unfinished: str) -> _Answer:
        answers = set()
        for url in self._urls:
            answer = _Answer.DEAD
            if url not in self._dead:
                out.seek(0)
                out.truncate()
                answer = self._ask(url, build_id, name, out)
                out.flush()
            if answer is _Answer.FOUND:
                if _is_wanted(unfinished, build_id):
                    return answer
                answer = _Answer.REFUSED
            elif answer is _Answer.DEAD:
                self._dead.add(url)
            answers.add(answer)
        return _Answer.ABSENT if answers == {_Answer.ABSENT} else _Answer.REFUSED

    def _ask(self, url: str, build_id: str, name: str, out: IO[bytes]) -> _Answer:
        """Write one server's answer to `out`."""
        self._tell(f"asking {urlsplit(url).hostname} for debug symbols of {name}")
        address = f"{url.rstrip('/')}/buildid/{build_id}/{_FILE}"
        with _Watch(self._limits) as watch:
            try:
                with closing(_open(address, self._limits, watch)) as response:
                    return self._receive(response, name, out, watch)
            except HTTPError as error:
                error.close()
                return _Answer.ABSENT if error.code == http.HTTPStatus.NOT_FOUND else _Answer.REFUSED
            except (OSError, http.client.HTTPException, ValueError):
                return _Answer.DEAD

    def _receive(self, response: Any, name: str, out: IO[bytes], watch: "_Watch") -> _Answer:
        length = _length(response.headers.get("Content-Length"))
        # Sent by debuginfod, also where an intermediate server leaves out the length.
        shown = length or _length(response.headers.get("X-DEBUGINFOD-SIZE"))
        limit = self._limits.size
        if limit is not None and length is not None and length > limit:
            return _Answer.REFUSED
        told = time.monotonic()
        while part := response.read1(_PIECE):
            watch.received += len(part)
            if limit is not None and watch.received > limit:
                return _Answer.REFUSED
            try:
                out.write(part)
            except OSError as problem:
                raise _CannotKeep from problem
            if time.monotonic() - told >= _PROGRESS_SECONDS:
                told = time.monotonic()
                of = f" of {shown // _MEGABYTE}" if shown else ""
                self._tell(f"downloading debug symbols of {name}: {watch.received // _MEGABYTE}{of} MB")
        # A connection that ends early is no error to http.client.
        if watch.expired or (length is not None and watch.received != length):
            return _Answer.DEAD
        return _Answer.FOUND

    def _tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(text)


class _Watch:
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

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: Request) -> Any:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return _through(self._watch, http.client.HTTPConnection(host, **options))


class _WatchedHttps(HTTPSHandler):
    """Opens https connections through a watch."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: Request) -> Any:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return _through(self._watch, http.client.HTTPSConnection(host, **options))


def _through(watch: _Watch, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    # Not documented, but there since Python 2.7; a test of slow headers fails should it go.
    connection._create_connection = watch.connect  # type: ignore[attr-defined]
    return connection


def default_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder that elfutils' client uses in that environment."""
    if folder := environ.get("DEBUGINFOD_CACHE_PATH"):
        return Path(folder)
    home = environ.get("HOME") or "/"
    deprecated = Path(home, ".debuginfod_client_cache")
    if deprecated.is_dir():
        return deprecated
    return Path(environ.get("XDG_CACHE_HOME") or Path(home, ".cache"), "debuginfod_client")


def _open(address: str, limits: Limits, watch: _Watch) -> Any:
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
            if not _is_http(address):
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


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_wanted(path: str, build_id: str) -> bool:
    """Return whether the file is an ELF file, and not one with another build id."""
    try:
        return Elf.parse(read_regular(HOST, path)).build_id in (None, build_id)
    except ElfUnsupported:
        return True  # a supplementary file, made by dwz, is neither program nor library
    except (OSError, ValueError, ElfError):
        return False


def _remember_absence(path: Path) -> None:
    """Leave an empty file, but never in place of one that another run has just put there."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return
    if not path.lstat().st_size:
        os.utime(path, follow_symlinks=False)


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return value if abs(value) < 1e15 else default
