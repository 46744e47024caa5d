"""The memory limit a process runs under, and how close it is: its control group and those above (cgroup-v2.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tracer.attach.cgroup import Cgroup, Hierarchy, hierarchies
from tracer.attach.target import PROC
from tracer.errors import UsageError

#: Version 1 writes "no limit" as the largest number of pages that fits; nothing has so much memory.
_UNLIMITED = 1 << 60
#: Events of memory.events that are shown, the worst first.
EVENTS = ("oom_kill", "oom", "max", "high")


@dataclass(frozen=True, slots=True)
class Pressure:
    """The group whose limit is closest, and how things stand in it; sizes in bytes.

    limit is None where nothing limits the process; then usage, events and stall are those of its own group.
    kind: the file that the limit stands in. events: those of memory.events that have occurred, by name.
    stall: the share of the last 10 s in which some task waited for memory, in percent; None where it is not told.
    """

    path: str
    usage: int
    limit: int | None = None
    kind: str = ""
    events: tuple[tuple[str, int], ...] = ()
    stall: float | None = None


def read_pressure(pid: int, proc: Path = PROC) -> Pressure | None:
    """Return how close a process is to a limit, None where no control group counts its memory."""
    try:
        text = (proc / str(pid) / "cgroup").read_bytes()
        mounted = hierarchies(proc)
    except (OSError, UsageError):
        return None
    for version, path in memory_groups(text):
        for mount in mounted:
            if mount.version != version or (version == 1 and "memory" not in mount.controllers):
                continue
            below = mount.below_root(path)
            group = mount.group(below) if below is not None else None
            found = _closest(group, mount) if group is not None else None
            if found is not None:
                return found
    return None


def memory_groups(text: bytes) -> list[tuple[int, str]]:
    """Return version and path of the groups in /proc/PID/cgroup that may count memory, that of version 2 first."""
    found = []
    for line in text.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, separator, path = rest.partition(b":")
        if not separator or not path.startswith(b"/"):
            continue
        version = 2 if number == b"0" and not controllers else 1
        if version == 2 or b"memory" in controllers.split(b","):
            found.append((version, path.decode("utf-8", "surrogateescape").removesuffix(" (deleted)")))
    return sorted(found, reverse=True)


def parse_size(text: bytes) -> int | None:
    """Return a size in bytes as memory.max and memory.limit_in_bytes have it, None for no limit or no number."""
    text = text.strip()
    if not text.isdigit() or len(text) > 20:
        return None
    size = int(text)
    return size if size < _UNLIMITED else None


def parse_events(text: bytes) -> tuple[tuple[str, int], ...]:
    """Return the events of memory.events that have occurred, in the order of EVENTS."""
    counts = {match[1].decode(): int(match[2]) for match in re.finditer(rb"^(\w+) (\d{1,20})$", text, re.MULTILINE)}
    return tuple((name, counts[name]) for name in EVENTS if counts.get(name))


def parse_stall(text: bytes) -> float | None:
    """Return avg10 of the "some" line of memory.pressure, in percent (Documentation/accounting/psi.rst)."""
    match = re.search(rb"^some avg10=(\d{1,3}(?:\.\d{1,4})?) ", text, re.MULTILINE)
    return float(match[1]) if match else None


def _closest(own: Cgroup, mount: Hierarchy) -> Pressure | None:
    """Return the group, of one and those above it, in which the least is left until a limit."""
    read = _read_second if mount.version == 2 else _read_first
    folders = [own.folder, *(folder for folder in own.folder.parents if folder.is_relative_to(mount.point))]
    found = []
    for folder in folders:
        below = folder.relative_to(mount.point).as_posix()
        path = f"{mount.root.rstrip('/')}/{below if below != '.' else ''}"
        found += [each for each in [read(folder, path.rstrip("/") or "/")] if each is not None]
    limited = [each for each in found if each.limit is not None]
    if limited:
        return min(limited, key=lambda each: (each.limit or 0) - each.usage)
    # The root group of version 2 has no usage of its own, so the process's own group is the first here.
    return found[0] if found else None


def _read_second(folder: Path, path: str) -> Pressure | None:
    usage = parse_size(_read(folder / "memory.current"))
    if usage is None:
        return None
    limits = [(size, name) for name in ("memory.max", "memory.high")
              if (size := parse_size(_read(folder / name))) is not None]
    limit, kind = min(limits, default=(None, ""))
    return Pressure(path, usage, limit, kind, parse_events(_read(folder / "memory.events")),
                    parse_stall(_read(folder / "memory.pressure")))


def _read_first(folder: Path, path: str) -> Pressure | None:
    usage = parse_size(_read(folder / "memory.usage_in_bytes"))
    if usage is None:
        return None
    limit = parse_size(_read(folder / "memory.limit_in_bytes"))
    events = parse_events(_read(folder / "memory.oom_control"))
    failures = parse_size(_read(folder / "memory.failcnt"))
    return Pressure(path, usage, limit, "memory.limit_in_bytes" if limit is not None else "",
                    events + ((("max", failures),) if failures else ()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
