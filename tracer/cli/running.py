"""Runs a trace for the command line; what takes long to import is imported while the compiler works."""

from __future__ import annotations

from tracer.attach.start import prepare
from tracer.settings import Settings


def run_trace(settings: Settings) -> int:
    """Trace as settings say until it is over; return the exit code. Raises LeaktraceError."""
    prepared = prepare(settings)
    from tracer.cli.console import show_trace

    return show_trace(settings, prepared)
