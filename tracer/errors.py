"""Exceptions that carry an exit code and a remedy; the command line turns them into two sentences."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of every command means."""

    DONE = 0
    USAGE = 2
    CANNOT_TRACE = 3
    INCOMPLETE = 4
    LEAKS = 23


class LeaktraceError(Exception):
    """Base of everything that stops the work: a sentence that names the thing, and one that names the remedy."""

    exit_code = ExitCode.CANNOT_TRACE

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"


class UsageError(LeaktraceError):
    """The command line asks for something that has no meaning."""

    exit_code = ExitCode.USAGE


class CannotTrace(LeaktraceError):
    """The target or the kernel does not allow the trace."""
