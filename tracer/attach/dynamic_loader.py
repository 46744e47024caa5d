"""The dynamic loader of a traced process: what it calls for debuggers, and where it says what it is doing."""

from __future__ import annotations

from collections.abc import Iterator

from symbolizer.elf import Elf
from symbolizer.elf_data import find_data
from symbolizer.elf_error import ElfError
from symbolizer.mappings import AddressSpace, Mapping
from tracer.attach.objects import Objects
from tracer.attach.target import Process

NAMES = ("ld-linux", "ld-musl", "ld-")
#: It has allocator functions for its own start, which the program never calls; musl's is the C library as well.
WITHOUT_ALLOCATOR = "ld-linux"
#: Called after each change of what is mapped.
HOOK = "_dl_debug_state"
#: The variable for debuggers, struct r_debug (link.h), and where r_state is in it.
DEBUG, STATE = "_r_debug", 24


def loaders(process: Process, space: AddressSpace, objects: Objects) -> Iterator[tuple[Mapping, Elf]]:
    """Give each mapped file that is a dynamic loader."""
    for key, mapping in space.objects().items():
        if mapping.path.rpartition("/")[2].startswith(NAMES):
            file = objects.open(process, key, mapping)
            if file.elf is not None:
                yield mapping, file.elf


def hook_offset(elf: Elf) -> int | None:
    """Return the file offset of the function that the loader calls for debuggers, None if it has none."""
    try:
        vaddr = elf.symbols().defined([HOOK]).get(HOOK)
    except ElfError:
        return None
    return elf.vaddr_to_file_offset(vaddr) if vaddr is not None else None


def state_address(process: Process, space: AddressSpace, objects: Objects) -> int:
    """Return the run-time address of r_debug.r_state, 0 if it is not known."""
    for mapping, elf in loaders(process, space, objects):
        vaddr = find_data(elf, DEBUG)
        code = elf.file_offset_to_vaddr(mapping.file_offset)
        if vaddr is not None and code is not None:
            return vaddr + STATE + mapping.start - code
    return 0
