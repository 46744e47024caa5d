"""Names the frames of a recording again, from debug files that were not there while it was made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from symbolizer.choices import Style
from symbolizer.debug_files import DebugFiles
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.frame import Frame
from symbolizer.opening import HOST, read_regular
from symbolizer.printable import printable
from symbolizer.symbolizer import Symbolizer
from tracer.errors import UsageError

#: Files of one folder that are looked into; a debug folder of a whole distribution has fewer.
MOST_FILES = 200_000
#: Modules without a debug file that are named.
_NAMED = 3
_MAGIC = b"\x7fELF"
#: Build ids of linkers, in hex; a recording may come from anybody, and this becomes a path.
_BUILD_ID = re.compile("[0-9a-f]{8,128}")


class Stacks(Protocol):
    """The stacks of a recording, by the number of their site."""

    @property
    def sites(self) -> int:
        """Return how many sites there are."""

    def frames(self, site: int) -> tuple[Frame, ...]:
        """Return the frames of a site, innermost first."""

    def rename(self, stacks: Sequence[tuple[Frame, ...]]) -> None:
        """Give every site other frames, in the order of their numbers."""


#: What stands at one address: its inlined calls, innermost first, and the function that they are inlined into.
Chain = tuple[Frame, ...]


def rename(recording: Stacks, folders: Sequence[str], style: Style = Style.FULL) -> str:
    """Give all sites of a recording the names that debug files in the folders have for them; say what was found.

    Debug files are found by build id: as folder/.build-id/xx/yyyy.debug, else anywhere below the folder. Raises
    UsageError for what is no folder.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            raise UsageError(f"{folder} is no folder.", "Name one with debug files in it.")
    stacks = [list(chains(recording.frames(site))) for site in range(recording.sites)]
    wanted = {chain[-1].build_id: chain[-1].module for stack in stacks for chain in stack if _place(chain)}
    files = find(folders, [build_id for build_id in wanted if build_id])
    symbolizer = Symbolizer(style=style, debug_files=DebugFiles([os.path.abspath(folder) for folder in folders]))
    try:
        named = _names(symbolizer, files, {chain for stack in stacks for chain in stack})
    finally:
        symbolizer.close()
    recording.rename([tuple(frame for chain in stack for frame in named.get(chain, chain)) for stack in stacks])
    return _said(named, files, wanted)


def chains(frames: Iterable[Frame]) -> Iterator[Chain]:
    """Split a stack, innermost first, by its addresses; frames of calls that were inlined stand before their caller."""
    chain: list[Frame] = []
    for frame in frames:
        if chain and (chain[-1].module, chain[-1].module_offset) != (frame.module, frame.module_offset):
            yield tuple(chain)
            chain = []
        chain.append(frame)
        if not frame.inlined:
            yield tuple(chain)
            chain = []
    if chain:
        yield tuple(chain)


def find(folders: Sequence[str], build_ids: Sequence[str]) -> dict[str, str]:
    """Return the paths of ELF files with names, by build id in hex, in the folders or below."""
    found: dict[str, str] = {}
    for folder in folders:
        for build_id in build_ids:
            path = os.path.join(os.path.abspath(folder), ".build-id", build_id[:2], f"{build_id[2:]}.debug")
            if build_id not in found and _names_of(path) == build_id:
                found[build_id] = path
    missing = set(build_ids) - set(found)
    for folder in folders:
        for path in _files(os.path.abspath(folder)) if missing else ():
            named = _names_of(path)
            if named in missing:
                found[named] = path
                missing.remove(named)
                if not missing:
                    break
    return found


def _files(folder: str) -> Iterator[str]:
    """Give the regular files below a folder whose first bytes are those of an ELF file."""
    looked = 0
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            looked += 1
            if looked > MOST_FILES:
                return
            path = Path(place) / name
            try:
                # Opening a device or a pipe may act, or wait.
                if path.is_file() and _begins(path) == _MAGIC:
                    yield str(path)
            except OSError:
                continue


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_MAGIC))


def _names_of(path: str) -> str | None:
    """Return the build id of an ELF file that has names, None for any other."""
    try:
        elf = Elf.parse(read_regular(HOST, path))
        return elf.build_id if elf.has_symtab or elf.has_dwarf else None
    except (OSError, ValueError, ElfError, MemoryError):
        return None


def _place(chain: Chain) -> tuple[str, int] | None:
    """Return build id and address of what can be named."""
    outer = chain[-1]
    if outer.build_id is None or outer.module_offset is None or not _BUILD_ID.fullmatch(outer.build_id):
        return None
    return (outer.build_id, outer.module_offset) if 0 < outer.module_offset < 1 << 64 else None


def _names(symbolizer: Symbolizer, files: dict[str, str], all_chains: set[Chain]) -> dict[Chain, Chain]:
    """Return the new frames of each chain that is named better."""
    wanted = {chain: place for chain in all_chains if (place := _place(chain)) and place[0] in files}
    for build_id, path in files.items():
        symbolizer.add_object(build_id, path, partial(read_regular, HOST, path))
    symbolizer.prepare_at({(build_id, offset - 1) for build_id, offset in wanted.values()})
    named: dict[Chain, Chain] = {}
    for chain, (build_id, offset) in wanted.items():
        outer = chain[-1]
        # A call pushes the address after itself; only where a function was just entered is it its own.
        entered = outer.offset == 0
        frames = symbolizer.names_at(build_id, offset, outer.address, is_return_address=not entered)
        if frames and (any(frame.file for frame in frames) or not any(frame.file for frame in chain)):
            made = [replace(frame, module=outer.module, build_id=build_id) for frame in frames]
            named[chain] = (*made[:-1], replace(made[-1], repeats=outer.repeats))
    return named


def _said(named: dict[Chain, Chain], files: dict[str, str], wanted: dict[str | None, str | None]) -> str:
    text = (f"{len(named):,} address{'' if len(named) == 1 else 'es'} named from "
            f"{len(files)} debug file{'' if len(files) == 1 else 's'}")
    absent = sorted(printable((module or "?").rpartition("/")[2])
                    for build_id, module in wanted.items() if build_id not in files)
    if absent:
        more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        text += f"; none has the build id of {', '.join(absent[:_NAMED])}{more}"
    return f"{text}."
