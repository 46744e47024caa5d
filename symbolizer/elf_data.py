"""Variables of an ELF file by name, from its dynamic symbols."""

import struct

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError

_SYMBOL = struct.Struct("<IBBHQQ")
_OBJECT = 1  # STT_OBJECT


def find_data(elf: Elf, name: str) -> int | None:
    """Return the vaddr of a variable that the file exports, None if it exports none of that name."""
    try:
        table, strings = elf.section(".dynsym"), elf.section(".dynstr")
        if table is None or strings is None:
            return None
        names, wanted = bytes(strings.data), name.encode() + b"\0"
        for at, kind, _, section, value, _ in _SYMBOL.iter_unpack(table.data[: len(table.data) // 24 * 24]):
            if kind & 0xF == _OBJECT and section and names[at : at + len(wanted)] == wanted:
                return int(value)
    except ElfError:
        pass
    return None
