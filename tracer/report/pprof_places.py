"""The tables of a pprof profile: texts, functions, locations and mappings, each entry once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from symbolizer.frame import Frame, Why
from tracer.report.flame_tree import NO_STACK, name_of, printable
from tracer.report.model import MappedFile, Report

#: An address may have come from a file that somebody else wrote.
_ADDRESS = (1 << 64) - 1


class Texts:
    """The string table; the text at 0 is empty."""

    def __init__(self) -> None:
        self._places = {"": 0}

    def place(self, text: str | None) -> int:
        """Return the place of a text, which readers print as it is; None is the empty one."""
        return self._places.setdefault(printable(text or ""), len(self._places))

    def all(self) -> list[str]:
        """Return the table."""
        return list(self._places)


class Places:
    """Functions, locations and mappings, which are added to a profile as frames ask for them."""

    def __init__(self, profile: Any, texts: Texts, report: Report) -> None:
        self._profile, self._texts = profile, texts
        self._functions: dict[tuple[str, str | None], int] = {}
        self._locations: dict[tuple[int, tuple[Frame, ...]], int] = {}
        self._calls: dict[tuple[int, tuple[int, ...]], int] = {}
        self._mappings: dict[MappedFile, Any] = {}
        self._mapped = {each.pid: sorted(each.files, key=lambda file: file.start) for each in report.mappings or ()}
        self._starts = {pid: [file.start for file in files] for pid, files in self._mapped.items()}
        # Readers take the first mapping for the program's own.
        main = report.targets[0] if report.targets else None
        for file in self._mapped.get(main.pid, ()) if main else ():
            if main and file.path == main.exe:
                self._mapping(file)

    def of(self, pid: int, frames: Sequence[Frame]) -> list[int]:
        """Return the locations of a stack of one process, innermost first as its frames are.

        Calls that were inlined are one location with the call that they were inlined into.
        """
        if not frames:
            frames = (Frame(0, NO_STACK),)
        found, begin = [], 0
        for end, frame in enumerate(frames, 1):
            if not frame.inlined or end == len(frames) or frames[end].address != frame.address:
                # Recordings have each frame once, so that most are known by their identity, which is quicker to tell.
                key = (pid, tuple([id(each) for each in frames[begin:end]]))
                location = self._calls.get(key)
                if location is None:
                    location = self._calls[key] = self._location(pid, tuple(frames[begin:end]))
                found.append(location)
                begin = end
        return found

    def _location(self, pid: int, calls: tuple[Frame, ...]) -> int:
        """Return the location of one address; calls: those inlined there, then the one that is not."""
        mapping = self._mapping_of(pid, calls[-1])
        key = (mapping.id if mapping is not None else 0, calls)
        known = self._locations.get(key)
        if known is not None:
            return known
        number = self._locations[key] = len(self._locations) + 1
        # Frames have the address that a call returns to; a profile has one within the call.
        made = self._profile.location.add(id=number, address=max(0, (calls[-1].address & _ADDRESS) - 1))
        if mapping is not None:
            made.mapping_id = mapping.id
        for frame in calls:
            if frame.function is not None or frame.why is Why.UNWIND_STOPPED:
                made.line.add(function_id=self._function(name_of(frame), frame.file), line=frame.line or 0)
                if mapping is not None:
                    # A reader that finds the files would look names up itself, also where no symbol covers an address.
                    mapping.has_functions = mapping.has_filenames = True
                    mapping.has_line_numbers = mapping.has_inline_frames = True
        return number

    def _function(self, name: str, file: str | None) -> int:
        number = self._functions.setdefault((name, file), len(self._functions) + 1)
        if number > len(self._profile.function):
            text = self._texts.place(name)
            self._profile.function.add(id=number, name=text, system_name=text, filename=self._texts.place(file))
        return number

    def _mapping_of(self, pid: int, frame: Frame) -> Any | None:
        """Return the mapping of a frame: its process's, or if that is gone the file without addresses."""
        if frame.module is None:
            return None
        call = frame.address - 1
        at = bisect_right(self._starts.get(pid, ()), call) - 1
        if at >= 0:
            file = self._mapped[pid][at]
            if call < file.end and file.path == frame.module:
                return self._mapping(file)
        return self._mapping(MappedFile(0, 0, 0, frame.module, frame.build_id))

    def _mapping(self, file: MappedFile) -> Any:
        made = self._mappings.get(file)
        if made is None:
            made = self._mappings[file] = self._profile.mapping.add(
                id=len(self._mappings) + 1, memory_start=file.start & _ADDRESS, memory_limit=file.end & _ADDRESS,
                file_offset=file.offset & _ADDRESS, filename=self._texts.place(file.path),
                build_id=self._texts.place(file.build_id))
        return made
