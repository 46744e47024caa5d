"""Fetches separate debug files by build id from debuginfod servers, into the cache that elfutils' client uses too.

Nothing is asked unless DEBUGINFOD_URLS names a server. Variables and control files are those of
debuginfod-client-config(7), the request is that of debuginfod(8); how files lie in the cache was seen with
elfutils 0.188: BUILDID/debuginfo, and that file is empty where no server had it.
"""

import http.client
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from enum import Enum, auto
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit

from symbolizer.download import Limits, Watch, is_http, number_or, open_url
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError, ElfUnsupported
from symbolizer.opening import HOST, read_regular
from symbolizer.printable import printable

_FILE: Final = "debuginfo"
_HEX: Final = frozenset("0123456789abcdef")
_LONGEST_BUILD_ID: Final = 128  # hex digits; the same limit as in elfutils' client
_MISS_SECONDS: Final = 600
_PROGRESS_SECONDS: Final = 0.5
_PIECE: Final = 1 << 17
_MEGABYTE: Final = 1_000_000

Progress = Callable[[str], None]


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
        self._urls = [url for url in urls if is_http(url)]
        self._folder = Path(os.path.abspath(cache_folder))
        self._limits = limits or Limits()
        self._progress = progress
        self._dead: set[str] = set()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], cache_folder: Path | None = None, progress: Progress | None = None
    ) -> Self | None:
        """Return the client that the variables describe; None if DEBUGINFOD_URLS names no http or https server."""
        urls = [url for url in environ.get("DEBUGINFOD_URLS", "").split() if is_http(url)]
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
            return number_or((self._folder / "cache_miss_s").read_text(), _MISS_SECONDS)
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
        with Watch(self._limits) as watch:
            try:
                with closing(open_url(address, self._limits, watch)) as response:
                    return self._receive(response, name, out, watch)
            except HTTPError as error:
                error.close()
                return _Answer.ABSENT if error.code == http.HTTPStatus.NOT_FOUND else _Answer.REFUSED
            except (OSError, http.client.HTTPException, ValueError):
                return _Answer.DEAD

    def _receive(self, response: Any, name: str, out: IO[bytes], watch: Watch) -> _Answer:
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


def default_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder that elfutils' client uses in that environment."""
    if folder := environ.get("DEBUGINFOD_CACHE_PATH"):
        return Path(folder)
    home = environ.get("HOME") or "/"
    deprecated = Path(home, ".debuginfod_client_cache")
    if deprecated.is_dir():
        return deprecated
    return Path(environ.get("XDG_CACHE_HOME") or Path(home, ".cache"), "debuginfod_client")


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
