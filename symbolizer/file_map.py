"""The bytes of an open file: small ones read, large ones mapped, with a descriptor to hand to other processes."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Self

#: Files up to here are read and not mapped: reading a mapped file that somebody cuts short would end this process.
COPIED_BYTES = 4 << 20


class FileMap(mmap.mmap):
    """A file mapped for reading, and its descriptor, which lives as long as the mapping."""

    descriptor: int

    def __new__(cls, descriptor: int) -> Self:
        """Map the whole file; the descriptor is duplicated. Raises OSError, or ValueError for an empty file."""
        found = super().__new__(cls, descriptor, 0, prot=mmap.PROT_READ)
        found.descriptor = os.dup(descriptor)
        weakref.finalize(found, os.close, found.descriptor)
        return found


def file_bytes(descriptor: int) -> bytes | FileMap:
    """Return the bytes of an open file. Raises OSError, or ValueError for an empty file."""
    if os.fstat(descriptor).st_size > COPIED_BYTES:
        return FileMap(descriptor)
    return os.pread(descriptor, COPIED_BYTES, 0)


def shared_descriptor(data: bytes | mmap.mmap) -> int:
    """Return a new descriptor of a file with these bytes, which its owner may map; the caller closes it."""
    if isinstance(data, FileMap):
        return os.dup(data.descriptor)
    descriptor = os.memfd_create("leaktrace", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as out:
        out.write(data)
    return descriptor
