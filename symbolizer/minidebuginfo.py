"""The symbols that some distributions keep, compressed, in the section .gnu_debugdata of a stripped file.

gdb's manual, "Debugging information in a special section (MiniDebugInfo)", says what is in it: an ELF file with a
.symtab of the functions that .dynsym does not have, compressed with xz.
"""

import lzma
from typing import Final

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError

_SECTION: Final = ".gnu_debugdata"
_LIMIT: Final = 64 << 20  # bytes when decompressed; libc's has 0.4 MB
_MEMORY: Final = 128 << 20  # bytes for the decompressor; `xz -9` makes it need 65 MB


def minidebuginfo(elf: Elf) -> Elf | None:
    """Return the ELF file inside the file's .gnu_debugdata; None if there is none, or it is damaged or too large."""
    try:
        section = elf.section(_SECTION)
        if section is None or not 0 < len(section.raw) <= _LIMIT:
            return None
        decompressor = lzma.LZMADecompressor(memlimit=_MEMORY)
        content = decompressor.decompress(section.data, _LIMIT)
        if not decompressor.eof:
            return None
        inner = Elf.parse(content)
        if inner.section(".symtab") is None or (inner.build_id or elf.build_id) != (elf.build_id or inner.build_id):
            return None
        return inner
    except (ElfError, lzma.LZMAError, MemoryError):
        return None
