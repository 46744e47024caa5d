"""The report for speedscope (https://github.com/jlfwong/speedscope, src/lib/file-format-spec.ts)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from symbolizer.frame import Frame
from tracer import VERSION
from tracer.report.flame_tree import NO_STACK, name_of, printable
from tracer.report.model import Finding, Report

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(report: Report, out: TextIO) -> None:
    """Write one report as one JSON document."""
    json.dump(document(report), out, separators=(",", ":"))
    out.write("\n")
    out.flush()


def document(report: Report) -> dict[str, Any]:
    """Return a profile of live bytes, one of live blocks and, where it is known, one of bytes gained, of one name."""
    figures: dict[str, tuple[str, Sequence[float]]] = {
        "live bytes": ("bytes", [finding.bytes for finding in report.findings]),
        "live blocks": ("none", [finding.count for finding in report.findings])}
    gained = [finding.gained_bytes or 0 for finding in report.findings]
    if any(bytes_ > 0 for bytes_ in gained):
        figures["bytes gained since the report before"] = "bytes", gained
    name = ", ".join(printable(f"{target.comm} {target.pid}") for target in report.targets[:3]) or "kernel"
    return profiles_of(f"{name}, {report.taken:%Y-%m-%d %H:%M:%S}", report.findings, figures)


def profiles_of(name: str, findings: Sequence[Finding],
                figures: Mapping[str, tuple[str, Sequence[float]]]) -> dict[str, Any]:
    """Return a document with a profile for each figure: its name, its unit, and its value for each finding."""
    frames = _Frames()
    stacks = [frames.of(finding) for finding in findings]
    profiles = [_profile(title, unit, stacks, weights) for title, (unit, weights) in figures.items()]
    return {"$schema": SCHEMA, "exporter": f"leaktrace@{VERSION}", "activeProfileIndex": 0,
            "name": printable(name), "shared": {"frames": frames.documents()}, "profiles": profiles}


def _profile(name: str, unit: str, stacks: Sequence[list[int]], weights: Sequence[float]) -> dict[str, Any]:
    """Return a profile of the stacks that weigh anything: a width cannot be negative."""
    kept = [(stack, weight) for stack, weight in zip(stacks, weights, strict=True) if weight > 0]
    return {"type": "sampled", "name": name, "unit": unit, "startValue": 0,
            "endValue": sum(weight for _, weight in kept),
            "samples": [stack for stack, _ in kept], "weights": [weight for _, weight in kept]}


class _Frames:
    """The frames of all profiles. speedscope takes each for another function, so they are by function, not by line."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._places: dict[tuple[str, str | None], int] = {}
        self._lines: list[int | None] = []

    def of(self, finding: Finding) -> list[int]:
        """Return the places of a site's frames, outermost first."""
        return [self._place(frame) for frame in reversed(finding.frames)] or [self._number(NO_STACK, None, None)]

    def _place(self, frame: Frame) -> int:
        place = self._known.get(id(frame))
        if place is None:
            place = self._known[id(frame)] = self._number(
                name_of(frame), frame.file or frame.module, frame.line if frame.file else None)
        return place

    def _number(self, name: str, file: str | None, line: int | None) -> int:
        place = self._places.setdefault((name, file), len(self._lines))
        if place == len(self._lines):
            self._lines.append(line)
        elif self._lines[place] != line:
            # The line of one call would be wrong for the others.
            self._lines[place] = None
        return place

    def documents(self) -> list[dict[str, Any]]:
        """Return the frames by place."""
        made: list[dict[str, Any]] = []
        for (name, file), line in zip(self._places, self._lines, strict=True):
            made.append({"name": name} | ({"file": printable(file)} if file else {}) | ({"line": line} if line else {}))
        return made
