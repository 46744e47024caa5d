"""The file of a recording: chunks that are whole or are not there.

After a first line come chunks, each with its kind, its lengths and a checksum, compressed by itself. What a crash or a
full disk cuts off is the last chunk, and all before it stay readable. What is in a chunk is recorder.py's.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

import zstandard

from tracer.errors import UsageError

VERSION = 1
_FIRST = b"leaktrace recording "
#: Kind, length as stored and when unpacked; behind it, the checksum of these and of what is stored.
_HEAD = struct.Struct("<4sII")
_CHECKSUM = struct.Struct("<I")
#: Of one chunk when unpacked: what is larger is put into several.
LARGEST = 1 << 26
#: Of zstd: 3 takes a third of the time, which is 2 ms for 10,000 sites, and makes files 5 % larger; 9 makes them 4 %
#: smaller in twice the time.
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: its kind, four bytes, and its content."""

    kind: bytes
    content: bytes


class Writer:
    """Appends chunks to a new file."""

    def __init__(self, path: str, owner: tuple[int, int] | None, groups: Sequence[int] = ()) -> None:
        """Create the file, mode 0600; owner: user and group that it is for, groups: others of the user. Raises OSError.

        It is opened with the rights of its owner, who may not write just anywhere. What is there is written over if
        it is a file; devices and pipes are refused, which could keep nothing up to the last whole chunk.
        """
        self.path = path
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._file = _create(path, owner, groups)
        self._end = 0
        try:
            self._append(_FIRST + b"%d\n" % VERSION)
        except OSError:
            self.close()
            raise

    def write(self, *chunks: Chunk) -> None:
        """Append chunks, all of them or, where this raises OSError, none."""
        parts = []
        for chunk in chunks:
            if len(chunk.content) > LARGEST:
                raise OSError(errno.EFBIG, "a part of it would be larger than can be read again", self.path)
            packed = self._compressor.compress(chunk.content)
            head = _HEAD.pack(chunk.kind, len(packed), len(chunk.content))
            parts += [head, _CHECKSUM.pack(crc32(packed, crc32(head))), packed]
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


def _create(path: str, owner: tuple[int, int] | None, groups: Sequence[int]) -> int:
    if owner is None or os.geteuid() != 0:
        return _open(path)
    was = os.getegid(), os.getgroups()
    try:
        os.setgroups(sorted({owner[1], *groups}))
        os.setegid(owner[1])
        os.seteuid(owner[0])
        return _open(path)
    finally:
        os.seteuid(0)
        os.setegid(was[0])
        os.setgroups(was[1])


def _open(path: str) -> int:
    # Not blocking: a pipe that nobody reads must not stop the trace. What is there is kept until it is known to be a
    # file: else /dev/null would lose its mode.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", path)
        with suppress(PermissionError):
            # Another's file that may be written stays as it is.
            os.fchmod(file, 0o600)
        os.ftruncate(file, 0)
    except OSError:
        os.close(file)
        raise
    return file


@dataclass(frozen=True, slots=True)
class Stored:
    """One chunk as it is in the file, of a size known when unpacked."""

    kind: bytes
    packed: bytes
    size: int


class Reader:
    """Gives the chunks of a file, up to the last whole one. truncated: something came after that."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Check that it is a recording. Raises UsageError; name is what messages call it."""
        self._file, self.name = file, name
        self.truncated = False
        self._unpacker = zstandard.ZstdDecompressor()
        first = file.readline(64)
        if not first.startswith(_FIRST):
            cut = _FIRST.startswith(first)
            raise UsageError(f"{name} {'ends before it begins' if cut else 'is not a recording of leaktrace'}.",
                             "Make one with --record FILE.")
        version = first.removeprefix(_FIRST)
        if not version.endswith(b"\n"):
            raise UsageError(f"{name} ends before it begins.", "Make another with --record FILE.")
        said = version.strip().decode("ascii", "backslashreplace")
        if not said.isdecimal() or int(said) != VERSION:
            shown = "".join(each if each.isprintable() else "?" for each in said)
            raise UsageError(f"{name} is a recording of version {shown}, and this leaktrace reads version {VERSION}.",
                             "Read it with the leaktrace that made it, or a newer one.")

    def __iter__(self) -> Iterator[Stored]:
        while True:
            head = self._file.read(_HEAD.size + _CHECKSUM.size)
            if not head:
                return
            if len(head) < _HEAD.size + _CHECKSUM.size:
                self.truncated = True
                return
            kind, stored, size = _HEAD.unpack_from(head)
            packed = self._file.read(min(stored, LARGEST))
            checked = crc32(packed, crc32(head[: _HEAD.size])) == _CHECKSUM.unpack_from(head, _HEAD.size)[0]
            if len(packed) < stored or not checked:
                # Where a machine stops, what was written last may be there in length only.
                if self._file.read(1) and not self._is_zero(head + packed):
                    raise self.damaged("a part of it does not have its checksum")
                self.truncated = True
                return
            if size > LARGEST:
                raise self.damaged("a part of it claims to be larger than any")
            yield Stored(kind, packed, size)

    def _is_zero(self, begun: bytes) -> bool:
        """Return whether all from here is zero."""
        while begun:
            if begun.strip(b"\0"):
                return False
            begun = self._file.read(1 << 20)
        return True

    def unpack(self, chunk: Stored) -> bytes:
        """Return the content of a chunk. Raises UsageError."""
        try:
            # A frame says its own size, which may be another.
            if zstandard.frame_content_size(chunk.packed) != chunk.size:
                raise self.damaged("a part of it has another size than it says")
            content = self._unpacker.decompress(chunk.packed)
        except (zstandard.ZstdError, MemoryError):
            raise self.damaged("a part of it cannot be unpacked") from None
        if len(content) != chunk.size:
            raise self.damaged("a part of it has another size than it says")
        return content

    def damaged(self, what: str) -> UsageError:
        """Return the error that says what is wrong."""
        return UsageError(f"{self.name} is damaged: {what}.", "Make the recording again.")
