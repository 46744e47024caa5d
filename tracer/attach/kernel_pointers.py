"""Pointers of a process that the kernel keeps for it: what epoll and timers hand back when something happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

#: Files of a process that are looked at; each costs some 10 µs.
MOST_FILES = 4096
#: proc_pid_fdinfo(5): of an epoll file a line for each file it watches.
_EPOLL = re.compile(rb"^tfd:.* data: +([0-9a-f]{1,16})", re.MULTILINE)
#: proc_pid_timers(5): what the signal of a POSIX timer carries.
_TIMER = re.compile(rb"^signal: [0-9]+/(?:0x)?([0-9a-f]{1,16})", re.MULTILINE)


def kernel_pointers(folder: Path) -> np.ndarray:
    """Return the words that the kernel keeps for the process of /proc/PID, u64 (n,)."""
    found = [*_TIMER.findall(_read(folder / "timers"))]
    try:
        files = sorted((folder / "fd").iterdir(), key=lambda path: int(path.name))[:MOST_FILES]
    except OSError:
        files = []
    for file in files:
        try:
            is_epoll = "[eventpoll]" in str(file.readlink())
        except OSError:
            continue
        if is_epoll:
            found += _EPOLL.findall(_read(folder / "fdinfo" / file.name))
    return np.array([int(word, 16) for word in found], np.uint64)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
