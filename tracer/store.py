"""The file of a recording: chunks that are whole or are not there.

After a first line come chunks, each with its kind, its lengths and a checksum, compressed by itself. What a crash or a
full disk cuts off is the last chunk, and all before it stay readable. What is in a chunk is recorder.py's.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

import zstandard

from tracer.errors import UsageError

VERSION = 1
_FIRST = b"leaktrace recording "
#: Kind, length as stored and when unpacked, checksum of what is stored.
_HEAD = struct.Struct("<4sIII")
#: Of one chunk when unpacked: 10,000 sites with 60 frames each take 20 MB.
LARGEST = 1 << 28
#: Above it files become smaller by 3 % and take twice the time.
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: its kind, four bytes, and its content."""

    kind: bytes
    content: bytes


class Writer:
    """Appends chunks to a new file."""

    def __init__(self, path: str, owner: tuple[int, int] | None) -> None:
        """Create the file, mode 0600; owner: user and group that it is for. Raises OSError.

        It is opened with the rights of its owner, who may not write just anywhere.
        """
        self.path = path
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._file = _create(path, owner)
        self._end = 0
        self._append(_FIRST + b"%d\n" % VERSION)

    def write(self, *chunks: Chunk) -> None:
        """Append chunks, all of them or, where this raises OSError, none."""
        parts = []
        for chunk in chunks:
            packed = self._compressor.compress(chunk.content)
            parts += [_HEAD.pack(chunk.kind, len(packed), len(chunk.content), crc32(packed)), packed]
        self._append(b"".join(parts))

    def _append(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
            raise
        self._end += len(data)

    @property
    def size(self) -> int:
        """Return how many bytes the file has."""
        return self._end

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _create(path: str, owner: tuple[int, int] | None) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if owner is None:
        file = os.open(path, flags, 0o600)
        os.fchmod(file, 0o600)
        return file
    was = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups([owner[1]])
        os.setegid(owner[1])
        os.seteuid(owner[0])
        file = os.open(path, flags, 0o600)
        with suppress(PermissionError):
            # Another's file that may be written stays as it is.
            os.fchmod(file, 0o600)
        return file
    finally:
        os.seteuid(was[0])
        os.setegid(was[1])
        os.setgroups(was[2])


class Reader:
    """Gives the chunks of a file, up to the last whole one. truncated: something came after that."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Check that it is a recording. Raises UsageError; name is what messages call it."""
        self._file, self.name = file, name
        self.truncated = False
        first = file.readline(64)
        if not first.startswith(_FIRST):
            raise UsageError(f"{name} is not a recording of leaktrace.", "Make one with --record FILE.")
        version = first.removeprefix(_FIRST).strip()
        if not version.isdigit() or int(version) != VERSION:
            said = version.decode("ascii", "backslashreplace")
            raise UsageError(f"{name} is a recording of version {said}, and this leaktrace reads version {VERSION}.",
                             "Read it with the leaktrace that made it, or a newer one.")

    def __iter__(self) -> Iterator[Chunk]:
        unpacker = zstandard.ZstdDecompressor()
        while True:
            head = self._file.read(_HEAD.size)
            if not head:
                return
            if len(head) < _HEAD.size:
                self.truncated = True
                return
            kind, stored, size, checksum = _HEAD.unpack(head)
            if size > LARGEST or stored > LARGEST:
                raise self.damaged("a part of it claims to be larger than any")
            packed = self._file.read(stored)
            if len(packed) < stored:
                self.truncated = True
                return
            if crc32(packed) != checksum:
                raise self.damaged("a part of it does not have its checksum")
            yield Chunk(kind, self._unpack(unpacker, packed, size))

    def _unpack(self, unpacker: zstandard.ZstdDecompressor, packed: bytes, size: int) -> bytes:
        try:
            # A frame says its own size, which may be another.
            if zstandard.frame_content_size(packed) != size:
                raise self.damaged("a part of it has another size than it says")
            return unpacker.decompress(packed)
        except zstandard.ZstdError:
            raise self.damaged("a part of it cannot be unpacked") from None

    def damaged(self, what: str) -> UsageError:
        """Return the error that says what is wrong."""
        return UsageError(f"{self.name} is damaged: {what}.", "Make the recording again.")
