"""A folder of results that can be made again: checked when read, limited in size, safe for several runs at once."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

#: Names a folder in which nothing else lies; for tests, benchmarks, and hosts where /var may not be written.
VARIABLE = "LEAKTRACE_CACHE"
#: A file that is being written has this before its name, and nobody takes it for a result.
_UNFINISHED = ".new-"
#: Seconds after which a file that was never finished belongs to a run that ended.
_FORGOTTEN = 3600
_CHECKSUM = hashlib.sha256().digest_size


def default_folder() -> Path:
    """Return where root, or any other user, keeps what can be made again (file-hierarchy(7), XDG base directories)."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    if os.geteuid() == 0:
        return Path("/var/cache/leaktrace")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leaktrace"


class CacheFolder:
    """Bytes by name. Whatever is wrong with it, nothing is found there, and what is looked for is made anew."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Keep up to limit_bytes in the folder, which is made when it is first written to."""
        self._folder = folder
        self._limit = limit_bytes

    def load(self, name: str) -> bytes | None:
        """Return what was stored by that name; None if it is not there, not whole, or others could have written it."""
        path = self._folder / name
        try:
            for status in (path.lstat(), self._folder.stat()):
                if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
            content = path.read_bytes()
        except OSError:
            return None
        checksum, content = content[:_CHECKSUM], content[_CHECKSUM:]
        if hashlib.sha256(content).digest() != checksum:
            return None
        with suppress(OSError):
            # The oldest go first: this one was of use just now.
            os.utime(path)
        return content

    def store(self, name: str, content: bytes) -> None:
        """Keep the bytes; a folder that cannot be written is no error. Two runs at once both succeed."""
        if len(content) > self._limit:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
            try:
                with os.fdopen(file, "wb") as out:
                    out.write(hashlib.sha256(content).digest())
                    out.write(content)
                os.replace(unfinished, self._folder / name)
            except OSError:
                os.unlink(unfinished)
                raise
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        found, newest = [], 0.0
        for entry in os.scandir(self._folder):
            if entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, status.st_size, entry.path, entry.name.startswith(_UNFINISHED)))
                    newest = max(newest, status.st_mtime)
        kept = 0
        for modified, size, path, unfinished in sorted(found, reverse=True):
            kept += size
            if modified < newest - _FORGOTTEN if unfinished else kept > self._limit:
                with suppress(FileNotFoundError):
                    os.unlink(path)
