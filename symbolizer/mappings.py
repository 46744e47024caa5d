"""What a process has mapped where: the text of /proc/PID/maps becomes an immutable address space."""

import os
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

# proc_pid_maps(5). The kernel pads the path to a column, so it follows one or more blanks.
_LINE = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-])([w-])([x-])([ps]) ([0-9a-f]{1,16})"
    rb" ([0-9a-f]{1,8}):([0-9a-f]{1,8}) ([0-9]{1,20})(?: +(.*))?",
    re.DOTALL,
)
_DELETED = b" (deleted)"
VDSO = "[vdso]"


class ObjectKey(NamedTuple):
    """Which file: the same path can hold different files during one run, and the inode tells them apart."""

    device: tuple[int, int]
    inode: int
    path: str
    content: int = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps: addresses [start, end), and `file_offset` in bytes of `start` in the file.

    `path` is as the kernel gave it, without the mark for a deleted file (that is `deleted`), with bytes
    that are no UTF-8 as lone surrogates, so os.fsencode() gives them back; empty for anonymous memory.
    `content` tells files apart that had the same path and inode one after the other; the text does not say it.
    """

    start: int
    end: int
    file_offset: int
    readable: bool
    writable: bool
    executable: bool
    private: bool
    device: tuple[int, int]
    inode: int
    path: str
    deleted: bool
    content: int = 0

    @property
    def is_file(self) -> bool:
        """Return whether the mapping shows a file, and not anonymous memory or a kernel page such as [vdso]."""
        return self.inode != 0

    def offset_of(self, address: int) -> int:
        """Return where in the file the mapped address lies, in bytes."""
        return address - self.start + self.file_offset


def parse_maps(text: bytes) -> tuple[Mapping, ...]:
    """Return the mappings in the bytes of /proc/PID/maps, in their order; lines that are none are skipped."""
    return tuple(mapping for line in text.split(b"\n") if (mapping := _parse_line(line)) is not None)


def _parse_line(line: bytes) -> Mapping | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    start, end, readable, writable, executable, private, offset, major, minor, inode, path = match.groups(b"")
    if int(start, 16) >= int(end, 16):
        return None
    deleted = path.endswith(_DELETED)
    # The kernel escapes the newline and nothing else here, not even the backslash (fs/proc/task_mmu.c, seq_path()).
    path = path.removesuffix(_DELETED).replace(rb"\012", b"\n")
    return Mapping(
        start=int(start, 16),
        end=int(end, 16),
        file_offset=int(offset, 16),
        readable=readable == b"r",
        writable=writable == b"w",
        executable=executable == b"x",
        private=private == b"p",
        device=(int(major, 16), int(minor, 16)),
        inode=int(inode),
        path=os.fsdecode(path),
        deleted=deleted,
    )


def object_key(mapping: Mapping) -> ObjectKey | None:
    """Return which object the mapping shows: a file or the vdso; None for anonymous memory, stacks and the like."""
    if mapping.is_file or mapping.path == VDSO:
        return ObjectKey(mapping.device, mapping.inode, mapping.path, mapping.content)
    return None


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """All mappings of one process at one time, sorted by start; `starts` are their starts, for the search."""

    mappings: tuple[Mapping, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, mappings: Iterable[Mapping]) -> Self:
        """Return the address space made of these mappings, which may come in any order."""
        ordered = tuple(sorted(mappings, key=lambda mapping: mapping.start))
        return cls(ordered, tuple(mapping.start for mapping in ordered))

    def locate(self, address: int) -> Mapping | None:
        """Return the mapping that holds the address, None where nothing is mapped."""
        index = bisect_right(self.starts, address) - 1
        if index < 0 or address >= self.mappings[index].end:
            return None
        return self.mappings[index]

    def objects(self) -> dict[ObjectKey, Mapping]:
        """Return the distinct files mapped executable, each with its lowest executable mapping (for map_files)."""
        found: dict[ObjectKey, Mapping] = {}
        for mapping in self.mappings:
            key = object_key(mapping) if mapping.executable and mapping.is_file else None
            if key is not None:
                found.setdefault(key, mapping)
        return found

    def object_key(self, mapping: Mapping) -> ObjectKey | None:
        """Return which object the mapping shows; see `object_key()`."""
        return object_key(mapping)
