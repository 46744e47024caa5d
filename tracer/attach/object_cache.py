"""Keeps compiled programs between runs: the compiler takes longer than all the rest of a start."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tracer.attach.bpf_object import BpfObject, from_bytes, to_bytes

#: Each set of options that changes the C is a file of some 100 KB; the oldest ones go.
MOST_FILES = 32
#: Changes when files are written otherwise.
FORMAT = "1"


def default_folder() -> Path:
    """Return where root, or any other user, keeps what can be made again (file-hierarchy(7), XDG base directories)."""
    if os.geteuid() == 0:
        return Path("/var/cache/leaktrace")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leaktrace"


class ObjectCache:
    """Compiled programs by what they were compiled from. Whatever is wrong with it, the compiler is asked instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(*parts: str) -> str:
        """Return the name of what these parts (source text, versions) were compiled to."""
        return hashlib.sha256("\0".join((FORMAT, *parts)).encode()).hexdigest()

    def load(self, key: str) -> BpfObject | None:
        """Return the program of that key; None if it is not there, not whole, or not surely ours."""
        path = self._folder / key
        try:
            status = path.stat()
            folder = self._folder.stat()
            for each in (status, folder):
                if each.st_uid != os.geteuid() or each.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
            checksum, _, text = path.read_bytes().partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != checksum:
                return None
            return from_bytes(text)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, key: str, program: BpfObject) -> None:
        """Keep a program; a folder that cannot be written is no error. Two runs at once both succeed."""
        text = to_bytes(program)
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file, name = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(file, "wb") as out:
                out.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            os.replace(name, self._folder / key)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-MOST_FILES]:
            path.unlink(missing_ok=True)
