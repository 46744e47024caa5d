"""What /proc says of threads (proc_pid_status(5), proc_pid_stat(5))."""

from __future__ import annotations

import os

from tracer.attach.target import PROC


def threads_of(pid: int) -> set[int]:
    """Return the threads of a process, none once it is gone."""
    try:
        return {int(name) for name in os.listdir(PROC / str(pid) / "task")}
    except OSError:
        return set()


def status_number(tid: int, field: str) -> int:
    """Return a number of /proc/TID/status, 0 if the thread is gone."""
    try:
        with open(PROC / str(tid) / "status", encoding="ascii", errors="replace") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
    except OSError:
        return 0


def has_ended(tid: int) -> bool:
    """Return whether a thread is gone, or only its end has not been taken notice of."""
    try:
        with open(PROC / str(tid) / "stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in b"ZX"
    except OSError:
        return True


def tracer_of(tid: int) -> int:
    """Return the thread that traces a thread, 0 if none does."""
    return status_number(tid, "TracerPid")
