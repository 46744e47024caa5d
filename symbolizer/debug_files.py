"""Finds what was split off an object: its separate debug file, and the supplementary file that dwz made.

Where they lie is in gdb's manual, "Debugging Information in Separate Files". What is found counts only if it is
proved to belong to the object: by the build id, or for .gnu_debuglink by the checksum of the whole file.
"""

import os
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Final, Protocol

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError, ElfUnsupported
from symbolizer.opening import HOST, follow, read_regular

FOLDERS: Final = ("/usr/lib/debug",)
_SHORTEST_BUILD_ID: Final = 8  # hex digits; linkers write 16 to 64
_LONGEST_LINK: Final = 4096 + 128  # a path and a build id
_LARGEST_SUPPLEMENT: Final = 256 << 20  # bytes; it is copied
_PIECE: Final = 1 << 24
_ET_REL, _ET_DYN = b"\x01\x00", b"\x03\x00"
_DWZ: Final = re.compile(r"(?:^|.*/)\.dwz/(.+)$|(?:.*/)?([^/]+)$", re.DOTALL)

Proof = Callable[["DebugFile"], bool]


class Downloads(Protocol):
    """What is asked for files that are not on this machine; `debuginfod.Debuginfod` is one."""

    def debuginfo(self, build_id: str, name: str | None = None) -> str | None:
        """Return the path, in the host's root, of the file with that build id."""


@dataclass(frozen=True, slots=True, eq=False)
class DebugFile:
    """One file with DWARF or a .symtab; `path` is where it was found, in the root in which it was found."""

    path: str
    data: bytes | mmap
    elf: Elf


class DebugFiles:
    """Debug files in the folders of each root, then those that debuginfod has; damage means that there is none."""

    def __init__(self, folders: Sequence[str] = FOLDERS, debuginfod: Downloads | None = None) -> None:
        """Search the debug folders, absolute paths within a root, in that order."""
        self._folders = tuple(folders)
        self._debuginfod = debuginfod
        #: By object: the debug file that lies where its link says and is another build's.
        self.refused: dict[str, str] = {}

    def companion(self, elf: Elf, path: str, roots: Sequence[str] = (HOST,)) -> DebugFile | None:
        """Return the separate debug file of the object that lies at `path` in the first of the roots, None without.

        By build id all roots are searched; by .gnu_debuglink the first only, for nothing in the link says that a
        path in another root means the same. .gnu_debuglink counts also where the build id led to nothing.
        """
        build_id = _build_id(elf)
        found = self._by_build_id(build_id, roots) if build_id else None
        if found is None and roots:
            found = self._by_link(elf, path, roots[0])
        return found or self._download(build_id, path)

    def supplement(self, elf: Elf, path: str, roots: Sequence[str] = (HOST,)) -> DebugFile | None:
        """Return the file that .gnu_debugaltlink of the ELF file at `path` names, proved by its build id; else None.

        Its `elf` has type ET_DYN in place of ET_REL, and else is as in `data`.
        """
        link = _alternate_link(elf)
        if link is None:
            return None
        name, build_id = link
        for root in roots:
            for candidate in _supplement_paths(root, path, name, self._folders):
                if found := _load(root, candidate, _has_build_id(build_id)):
                    return found
        return self._by_build_id(build_id, roots) or self._download(build_id, name)

    def _by_build_id(self, build_id: str, roots: Sequence[str]) -> DebugFile | None:
        for root in roots:
            for folder in self._folders:
                path = posixpath.join(folder, ".build-id", build_id[:2], f"{build_id[2:]}.debug")
                if found := _load(root, path, _has_build_id(build_id)):
                    return found
        return None

    def _by_link(self, elf: Elf, path: str, root: str) -> DebugFile | None:
        link = _debug_link(elf)
        if link is None or not posixpath.isabs(path):
            return None
        name, checksum = link
        build_id = _build_id(elf)
        folder = posixpath.dirname(path)
        for candidate in (
            posixpath.join(folder, name),
            posixpath.join(folder, ".debug", name),
            *(posixpath.join(debug, folder.lstrip("/"), name) for debug in self._folders),
        ):
            if candidate == path:
                continue
            proof = _Proof(build_id, checksum)
            found = _load(root, candidate, proof)
            if found:
                return found
            if proof.asked:
                self.refused[path] = candidate
        return None

    def _download(self, build_id: str | None, path: str) -> DebugFile | None:
        if self._debuginfod is None or build_id is None:
            return None
        downloaded = self._debuginfod.debuginfo(build_id, posixpath.basename(path))
        return _load(HOST, downloaded, _has_build_id(build_id)) if downloaded else None


class _Proof:
    """Whether a file is the one that .gnu_debuglink means; `asked` once there was a debug file to compare with."""

    def __init__(self, build_id: str | None, checksum: int) -> None:
        self._build_id = build_id
        self._checksum = checksum
        self.asked = False

    def __call__(self, file: DebugFile) -> bool:
        self.asked = True
        return _may_have_build_id(file, self._build_id) and _crc(file) == self._checksum


def _load(root: str, path: str, proof: Proof) -> DebugFile | None:
    """Return the debug file at the path in the root, if there is one and it passes the proof."""
    try:
        data = read_regular(root, path)
        elf = _parse(data)
        file = DebugFile(path, data, elf)
        return file if (_has_content(elf, ".debug_info") or _has_content(elf, ".symtab")) and proof(file) else None
    except (OSError, ValueError, ElfError, MemoryError):
        return None


def _parse(data: bytes | mmap) -> Elf:
    """Return the file; dwz writes ET_REL files, which hold no code, and `Elf` reads those with code."""
    try:
        return Elf.parse(data)
    except ElfUnsupported:
        if data[16:18] != _ET_REL or len(data) > _LARGEST_SUPPLEMENT:
            raise
        return Elf.parse(b"".join((data[:16], _ET_DYN, memoryview(data)[18:])))


def _has_content(elf: Elf, name: str) -> bool:
    """Return whether the section has bytes; in what `strip` leaves it may have a header only."""
    section = elf.section(name)
    return section is not None and len(section.raw) > 0


def _has_build_id(build_id: str) -> Proof:
    return lambda file: file.elf.build_id == build_id


def _may_have_build_id(file: DebugFile, build_id: str | None) -> bool:
    return build_id is None or file.elf.build_id in (None, build_id)


def _crc(file: DebugFile) -> int:
    """Return the checksum of .gnu_debuglink: the CRC-32 of the whole file, as zlib computes it."""
    checksum, view = 0, memoryview(file.data)
    for start in range(0, len(view), _PIECE):
        checksum = zlib.crc32(view[start : start + _PIECE], checksum)
    return checksum


def _build_id(elf: Elf) -> str | None:
    build_id = elf.build_id
    return build_id if build_id is not None and len(build_id) >= _SHORTEST_BUILD_ID else None


def _link(elf: Elf, section: str) -> bytes:
    try:
        found = elf.section(section)
        return bytes(found.data) if found is not None and len(found.raw) <= _LONGEST_LINK else b""
    except (ElfError, MemoryError):
        return b""


def _debug_link(elf: Elf) -> tuple[str, int] | None:
    """Return name and checksum of .gnu_debuglink: the name, a NUL, padding to 4 bytes, 4 bytes of CRC."""
    content = _link(elf, ".gnu_debuglink")
    name, nul, _ = content.partition(b"\0")
    start = (len(name) + 4) & -4
    if not nul or start + 4 > len(content) or name in (b"", b".", b"..") or b"/" in name:
        return None
    return os.fsdecode(name), int.from_bytes(content[start : start + 4], "little")


def _alternate_link(elf: Elf) -> tuple[str, str] | None:
    """Return name and build id (hex) of .gnu_debugaltlink: the name, a NUL, the id to the section's end."""
    name, _, build_id = _link(elf, ".gnu_debugaltlink").partition(b"\0")
    return (os.fsdecode(name), build_id.hex()) if name and 2 * len(build_id) >= _SHORTEST_BUILD_ID else None


def _supplement_paths(root: str, path: str, name: str, folders: Sequence[str]) -> Iterator[str]:
    """Give the places where a supplement of that name can lie; it is relative to the file, not to a link to it."""
    yield posixpath.join(posixpath.dirname(path), name)
    if not posixpath.isabs(name):
        try:
            target = follow(root, path)
        except (OSError, ValueError):
            target = path
        if target != path:
            yield posixpath.join(posixpath.dirname(target), name)
    # Where the tree of debug files was moved elsewhere, the part behind .dwz still names it.
    match = _DWZ.match(name)
    if match:
        for folder in folders:
            yield posixpath.join(folder, ".dwz", match[1] or match[2])
