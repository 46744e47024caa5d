"""One section of an ELF file, decompressed where it is compressed (System V ABI, chapter 4, "Section Compression")."""

import struct
import zlib
from dataclasses import dataclass

from elftools.elf.constants import SH_FLAGS

from symbolizer.elf_error import ElfError

_COMPRESSION_HEADER = struct.Struct("<IIQQ")
_LONG_SECTION = 1 << 24  # decompressed; the large sections of DWARF are read in a process of their own
_ZLIB_RATIO = 1032  # the most that deflate can compress
_ELFCOMPRESS_ZLIB = 1


@dataclass(frozen=True, slots=True)
class Section:
    """One section header with its bytes; `size` is in bytes in the file, `data` is decompressed."""

    name: str
    type: int
    flags: int
    vaddr: int
    offset: int
    size: int
    raw: memoryview

    @property
    def is_compressed(self) -> bool:
        """Return whether the section's bytes are compressed in the file."""
        return bool(self.flags & SH_FLAGS.SHF_COMPRESSED)

    @property
    def data(self) -> memoryview:
        """Return the section's bytes; raises ElfError if they are compressed and cannot be decompressed."""
        return self.content(_LONG_SECTION)

    def content(self, limit: int) -> memoryview:
        """Return the section's bytes, at most so many where they are compressed; raises as `data` does."""
        if not self.is_compressed:
            return self.raw
        if self.flags & SH_FLAGS.SHF_ALLOC:
            # System V ABI, "Section Compression": what is loaded is never compressed.
            raise ElfError(f"{self.name}: compressed, and loaded all the same")
        return _decompressed(self.raw, self.name, limit)


def _decompressed(raw: memoryview, name: str, limit: int) -> memoryview:
    if len(raw) < _COMPRESSION_HEADER.size:
        raise ElfError(f"{name}: the compression header is cut off")
    kind, _, size, _ = _COMPRESSION_HEADER.unpack_from(raw)
    body = raw[_COMPRESSION_HEADER.size :]
    if kind != _ELFCOMPRESS_ZLIB:
        raise ElfError(f"{name}: compressed with method {kind}, not with zlib")
    if not 0 < size <= min(_ZLIB_RATIO * len(body) + 1024, limit):
        raise ElfError(f"{name}: {size} bytes cannot come from {len(body)}")
    try:
        data = zlib.decompressobj().decompress(body, size)
    except zlib.error as error:
        raise ElfError(f"{name}: {error}") from error
    if len(data) != size:
        raise ElfError(f"{name}: the compressed data is cut off")
    return memoryview(data)
