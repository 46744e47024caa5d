"""The kernel's own account of its memory by line of source, where it keeps one: /proc/allocinfo, from Linux 6.10 on.

Source: Documentation/mm/allocation-profiling.rst, the entry of allocinfo in Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tracer.attach.target import PROC
from tracer.errors import CannotTrace

_LINE = re.compile(
    r"^\s*(?P<bytes>-?\d+)\s+(?P<calls>\d+)\s+(?P<file>\S+):(?P<line>\d+)\s+"
    r"(?:(?:\[(?P<module>[^\]\s]+)\]|module:(?P<named>\S+))\s+)?func:(?P<function>\S+)(?P<rest>.*)$")
#: From version 2.0 on: the kernel missed some of this line's allocations.
_INACCURATE = "accurate:no"
_OPTION = "CONFIG_MEM_ALLOC_PROFILING"


class Profiling(StrEnum):
    """Whether the kernel counts."""

    ON = "on"
    OFF = "off"
    """It does not, and can be told to."""
    FIXED_OFF = "off for good"
    """It does not until it is started with another command line (never)."""
    ABSENT = "absent"
    """It was built without, or is too old."""


@dataclass(frozen=True, slots=True)
class TaggedSite:
    """What the allocations of one line of the kernel's source hold now. module: None for the kernel itself.

    bytes, calls: held and not yet freed; objects count with the whole slot. bytes may be negative for a moment, as it
    is a sum over processors. accurate: False where the kernel says that it missed some.
    """

    file: str
    line: int
    function: str
    module: str | None
    bytes: int
    calls: int
    accurate: bool = True


def profiling(proc: Path = PROC) -> Profiling:
    """Return whether this kernel counts its allocations by line. It counts only what was allocated while it did."""
    switch = proc / "sys" / "vm" / "mem_profiling"
    try:
        on = switch.read_text().strip() == "1"
        # Root passes every permission check, so the mode is asked, not access(2).
        writable = bool(switch.stat().st_mode & 0o200)
    except OSError:
        return Profiling.ON if (proc / "allocinfo").exists() else Profiling.ABSENT
    if on:
        return Profiling.ON
    return Profiling.OFF if writable else Profiling.FIXED_OFF


def read_alloc_info(proc: Path = PROC) -> tuple[TaggedSite, ...]:
    """Return what the kernel holds by line of source. Raises CannotTrace where it does not or may not be asked."""
    state = profiling(proc)
    if state is not Profiling.ON:
        raise CannotTrace(*_why_not(state))
    path = proc / "allocinfo"
    try:
        return parse_alloc_info(path.read_bytes())
    except OSError as problem:
        raise CannotTrace(f"The kernel's account of its allocations cannot be read from {path} ({problem.strerror}).",
                          "Run leaktrace with sudo.") from None


def parse_alloc_info(data: bytes) -> tuple[TaggedSite, ...]:
    """Return the lines of /proc/allocinfo in their order; other lines, as the two of its header, are passed over."""
    found = []
    for text in data.decode(errors="replace").split("\n"):
        match = _LINE.match(text)
        if match is not None:
            module = match["module"] or match["named"]
            accurate = _INACCURATE not in match["rest"].split()
            found.append(TaggedSite(match["file"], int(match["line"]), match["function"], module,
                                    int(match["bytes"]), int(match["calls"]), accurate))
    return tuple(found)


def _why_not(state: Profiling) -> tuple[str, str]:
    if state is Profiling.ABSENT:
        return ("This kernel keeps no account of its allocations by line of source.",
                f"Use Linux 6.10 or newer, built with {_OPTION}.")
    if state is Profiling.OFF:
        return ("The kernel's account of its allocations by line of source is switched off.",
                "Switch it on (sysctl vm.mem_profiling=1); it counts what is allocated from then on.")
    return ("The kernel's account of its allocations by line of source is off, and fixed so until it is started anew.",
            "Start the kernel with sysctl.vm.mem_profiling=1 on its command line.")
