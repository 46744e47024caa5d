"""Keeps compiled programs between runs: the compiler takes longer than all the rest of a start."""

from __future__ import annotations

import hashlib
from pathlib import Path

from symbolizer.cache_folder import CacheFolder
from tracer.attach.bpf_object import BpfObject, from_bytes, to_bytes

#: Each set of options that changes the C is a file of some 100 KB.
MOST_BYTES = 4 << 20
#: Changes when files are written otherwise.
FORMAT = "2"


class ObjectCache:
    """Compiled programs by what they were compiled from. Whatever is wrong with it, the compiler is asked instead."""

    def __init__(self, folder: Path) -> None:
        self._files = CacheFolder(folder, MOST_BYTES)

    @staticmethod
    def key(*parts: str) -> str:
        """Return the name of what these parts (source text, versions) were compiled to."""
        return hashlib.sha256("\0".join((FORMAT, *parts)).encode()).hexdigest()

    def load(self, key: str) -> BpfObject | None:
        """Return the program of that key; None if it is not there, not whole, or not surely ours."""
        content = self._files.load(key)
        try:
            return None if content is None else from_bytes(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(self, key: str, program: BpfObject) -> None:
        """Keep a program; a folder that cannot be written is no error. Two runs at once both succeed."""
        self._files.store(key, to_bytes(program))
