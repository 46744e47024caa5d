"""The kernel's own events as tracefs describes them: which there are, their numbers, and where their fields lie.

Source: Documentation/trace/events.rst (`id` and `format` files), and ftrace.rst beside it (where it is mounted).
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import CannotTrace

TRACEFS = Path("/sys/kernel/tracing")
#: Where tracefs is found, the usual place first. Kernels before 4.1 have it below debugfs only.
PLACES = (TRACEFS, Path("/sys/kernel/debug/tracing"))

#: What brings the events of a category, where it is not the option that brings events at all.
_OPTIONS = {
    "syscalls": "CONFIG_FTRACE_SYSCALLS",
    "raw_syscalls": "CONFIG_HAVE_SYSCALL_TRACEPOINTS",
    "compaction": "CONFIG_COMPACTION",
    "page_pool": "CONFIG_PAGE_POOL",
    "bpf_trace": "CONFIG_BPF_EVENTS",
}
_EVERY_EVENT = "CONFIG_EVENT_TRACING"
_FIELD = re.compile(
    r"^\s*field:(?P<declaration>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);(?:\s*signed:(?P<signed>[01]);)?",
    re.MULTILINE)
_PRINT = "print fmt:"
_SUDO, _IS_TRACEFS = "Run leaktrace with sudo.", "Check that what is mounted there is tracefs."
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies in an event's record: offset and size in bytes, from the record's begin."""

    offset: int
    size: int
    signed: bool


def find_tracefs(places: Sequence[Path] = PLACES) -> Path | None:
    """Return the first of the places that holds events, None if none does. Raises CannotTrace if it may not be read."""
    for place in places:
        try:
            if (place / "events").is_dir():
                return place
        except PermissionError:
            raise CannotTrace(f"This user may not read the kernel's events in {place}.", _SUDO) from None
    return None


def tracefs(places: Sequence[Path] = PLACES, mount: Callable[[Path], None] | None = None) -> Path:
    """Return where the kernel's events are described; mounts tracefs at the first place if none of them has it.

    mount: mounts tracefs at a folder, or raises OSError. Raises CannotTrace where that does not help.
    """
    found = find_tracefs(places)
    if found is not None:
        return found
    where = places[0]
    try:
        (mount or mount_tracefs)(where)
    except OSError as problem:
        raise CannotTrace(f"The kernel's events are nowhere: tracefs is not mounted, and cannot be mounted at {where} "
                          f"({problem.strerror}).",
                          f"Run leaktrace with sudo, or mount it before (mount -t tracefs tracefs {where}); the kernel "
                          f"needs {_EVERY_EVENT}.") from None
    if find_tracefs(places) is None:
        raise CannotTrace(f"The tracefs at {where} has no events.", f"Use a kernel built with {_EVERY_EVENT}.")
    return where


def mount_tracefs(where: Path = TRACEFS) -> None:
    """Mount tracefs at a folder. It stays, as it would at boot. Raises OSError, source: mount(2)."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
    if mount(b"tracefs", bytes(where), b"tracefs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def exists(category: str, name: str, root: Path | None = None) -> bool:
    """Whether this kernel has the event. root: where tracefs is, found if not given. Raises CannotTrace without it."""
    path = _folder(category, name, root) / "format"
    try:
        return path.is_file()
    except PermissionError:
        raise CannotTrace(f"This user may not read {path}.", _SUDO) from None


def event_id(category: str, name: str, root: Path | None = None) -> int:
    """Return the number by which the kernel knows the event (perf_event_attr.config). Raises CannotTrace without it."""
    text = _read(category, name, "id", root).strip()
    if not text.isdecimal():
        raise CannotTrace(f"The number of the event {category}:{name} is none: {text[:40]!r}.", _IS_TRACEFS)
    return int(text)


def fields(category: str, name: str, root: Path | None = None) -> dict[str, Field]:
    """Return the fields of the event's record by name, in the order of the record, those that all events have included.

    Raises CannotTrace if there is no such event, or no field in its description.
    """
    found = parse_fields(description(category, name, root))
    if not found:
        raise CannotTrace(f"The description of the event {category}:{name} names no fields.", _IS_TRACEFS)
    return found


def description(category: str, name: str, root: Path | None = None) -> str:
    """Return the text of the event's format file. Raises CannotTrace that names the event and what brings it."""
    return _read(category, name, "format", root)


def parse_fields(text: str) -> dict[str, Field]:
    """Return the fields that a format file describes, passing over other lines. An array's size is the whole's."""
    found = {}
    for match in _FIELD.finditer(text):
        # `char comm[16]` and `__data_loc char[] name`: the name is the last word outside the brackets.
        words = re.findall(r"\w+", re.sub(r"\[[^\]]*\]", " ", match["declaration"]))
        if words:
            found[words[-1]] = Field(int(match["offset"]), int(match["size"]), match["signed"] == "1")
    return found


def print_format(text: str) -> str:
    """Return the part of a format file that tells how the event is printed: a C string and its arguments, or ""."""
    return text.partition(_PRINT)[2].strip()


def _folder(category: str, name: str, root: Path | None) -> Path:
    return (root if root is not None else tracefs()) / "events" / category / name


def _read(category: str, name: str, file: str, root: Path | None) -> str:
    path = _folder(category, name, root) / file
    try:
        return path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        raise CannotTrace(f"This kernel has no event {category}:{name}.",
                          f"Use a kernel that has it, built with {_OPTIONS.get(category, _EVERY_EVENT)}.") from None
    except OSError as problem:
        raise CannotTrace(f"The event {category}:{name} cannot be read from {path} ({problem.strerror}).",
                          _SUDO) from None
