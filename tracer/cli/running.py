"""Runs a trace for the command line; what takes long to import is imported while the compiler works."""

from __future__ import annotations

from tracer.attach.start import prepare
from tracer.settings import Settings


def run_trace(settings: Settings, record: str | None = None) -> int:
    """Trace as settings say until it is over; record: the file to record to. Return the exit code.

    Raises LeaktraceError.
    """
    prepared = prepare(settings)
    from tracer.cli.console import show_trace

    return show_trace(settings, prepared, record)
