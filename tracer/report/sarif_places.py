"""Places in SARIF: files, lines and functions. GitHub rejects a whole log for one result without a place."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import quote

from symbolizer.frame import Frame
from tracer.report.model import Target
from tracer.report.wording import below

#: The name that GitHub and others know for the folder of the sources.
SOURCE_ROOT = "%SRCROOT%"


def frame_of(frame: Frame, files: Files) -> dict[str, Any]:
    """Return a frame of a stack."""
    made: dict[str, Any] = {"location": place_of(frame, files.source(frame))}
    if frame.module:
        made["module"] = frame.module
    # As text: many readers have no 64-bit unsigned numbers, which addresses in the kernel are.
    made["properties"] = {"address": f"{frame.address:#x}", "offset": frame.offset, "build_id": frame.build_id,
                          "inlined": frame.inlined, "repeats": frame.repeats}
    return made


def place_of(frame: Frame | None, physical: dict[str, Any] | None) -> dict[str, Any]:
    """Return a location: the physical one if any, and the function, or a sentence on why it has no name."""
    place: dict[str, Any] = {"physicalLocation": physical} if physical else {}
    if frame and frame.function:
        place["logicalLocations"] = [{"fullyQualifiedName": frame.function, "kind": "function"}]
    elif frame:
        place["message"] = message(f"No name is known for this call: {(frame.why or 'unknown').replace('_', ' ')}.")
    return place


class Files:
    """Turns paths into SARIF's locations."""

    def __init__(self, folder: str, targets: dict[int, Target]) -> None:
        self._folder = folder
        self._targets = targets

    def blamed(self, frames: tuple[Frame, ...]) -> Frame | None:
        """Return the innermost frame in the sources; failing that in any known source, with a name, or at all.

        The standard library's headers are known sources too, and nobody looks there for a leak.
        """
        wishes = (lambda frame: below(self._folder, frame.file) and frame.line, lambda frame: frame.file and frame.line,
                  lambda frame: frame.function, lambda frame: True)
        return next((frame for wish in wishes for frame in frames if wish(frame)), None)

    def source(self, frame: Frame | None) -> dict[str, Any] | None:
        """Return file and line of a frame, None without either."""
        if not frame or not frame.file or not frame.line:
            return None
        return {"artifactLocation": self._artifact(frame.file), "region": {"startLine": frame.line}}

    def program(self, frames: tuple[Frame, ...], pid: int) -> dict[str, Any]:
        """Return something to point to where no source is known: GitHub rejects a whole log for one bare result."""
        target = self._targets.get(pid)
        module = next((frame.module for frame in frames if frame.module), None) or (target.exe if target else None)
        return {"artifactLocation": self._artifact(module or ".")}

    def _artifact(self, path: str) -> dict[str, Any]:
        relative = below(self._folder, path)
        if relative:
            return {"uri": _quoted(relative), "uriBaseId": SOURCE_ROOT}
        return {"uri": file_uri(posixpath.normpath(posixpath.join(self._folder, path)))}


def file_uri(path: str) -> str:
    """Return the URI of an absolute path."""
    # Two slashes at the start would name a host.
    return "file:///" + _quoted(path.lstrip("/"))


def _quoted(path: str) -> str:
    return quote(path, errors="replace")


def message(text: str) -> dict[str, str]:
    """Return a message that reads as the text: braces doubled (3.11.5), and `operator[](int)` no link (3.11.6)."""
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}
