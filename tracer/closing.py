"""What a report says at its end: which names are missing in it, and what would bring them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from symbolizer.frame import Frame, Why
from symbolizer.object_file import ObjectFile
from symbolizer.packages import ObjectLack, Packages, closing_line
from symbolizer.patience import wait_for
from symbolizer.printable import printable
from symbolizer.symbolizer import Symbolizer
from tracer.roster import Roster

#: Reasons that symbols would do away with.
_LACKS_SYMBOLS = {Why.NO_SYMBOLS, Why.NOT_COVERED}


class ClosingNotes:
    """Makes the notes of one session's reports."""

    def __init__(
        self, symbolizer: Symbolizer, roster: Roster, packages: Packages, idle: Callable[[], object]
    ) -> None:
        """idle is called while a package manager is waited for."""
        self._symbolizer = symbolizer
        self._roster = roster
        self._packages = packages
        self._idle = idle

    def notes(self, stacks: Iterable[Sequence[Frame]]) -> tuple[str, ...]:
        """Return one line each for what the frames lack: names, inlined calls, a file that is not believed."""
        frames = [frame for stack in stacks for frame in stack]
        nameless = Counter(frame.module for frame in frames if self._lacks_symbols(frame))
        runtime = next((tracee.exe for tracee in self._roster.everyone if tracee.exe), None)
        line = closing_line([self._lack(module, count) for module, count in nameless.items()], runtime=runtime)
        found = [line] if line else []
        files = [file for module in dict.fromkeys(frame.module for frame in frames) if (file := self._file(module))]
        found += [note for file in files for note in (*_of_refused(file), *_of_lines(file))]
        if any(self._file(module) is None for module in nameless):
            found += [tracee.jit.why_not for tracee in self._roster.everyone if tracee.jit.why_not]
        return tuple(found)

    def _lacks_symbols(self, frame: Frame) -> bool:
        if frame.why not in _LACKS_SYMBOLS:
            return False
        file = self._file(frame.module)
        return file is None or not file.has_all_symbols

    def _file(self, module: str | None) -> ObjectFile | None:
        return self._symbolizer.object_by_path(module) if module is not None else None

    def _lack(self, module: str | None, frames: int) -> ObjectLack:
        file = self._file(module)
        if file is None or module is None:
            return ObjectLack(None, None, "symbols", frames)
        remedy = None
        if file.is_of_host:
            # In a container, the same path may be another package's.
            remedy = wait_for(lambda: self._packages.remedy(module, file.build_id), self._idle)
        return ObjectLack(module, file.build_id, "symbols", frames, remedy.package if remedy else None)


def _of_refused(file: ObjectFile) -> list[str]:
    """Return that a debug file was found and not used."""
    name, refused = file.path.rpartition("/")[2], file.refused_debug_file
    return [f"{printable(refused)} is not used: it is of another build than {name}"] if refused else []


def _of_lines(file: ObjectFile) -> list[str]:
    """Return what its debug information could not give."""
    name, lines = file.path.rpartition("/")[2], file.made_lines
    if lines is None:
        return []
    notes = []
    if lines.problem:
        notes.append(f"Source lines of {name} are missing: {lines.problem}")
    if lines.split:
        first, *others = sorted(lines.split)
        more = f" and {len(others)} more" if others else ""
        notes.append(f"Inlined calls in {name} are not shown: they are in {first}{more}, and split DWARF is not read")
    return notes
