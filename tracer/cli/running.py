"""Runs a trace for the command line; what takes long to import is imported while the compiler works."""

from __future__ import annotations

from tracer.attach.start import prepare
from tracer.cli.exported import Exports
from tracer.settings import Settings


def run_trace(settings: Settings, record: str | None = None, *, live: bool = False,
              exports: Exports | None = None) -> int:
    """Trace as settings say until it is over; record: the file to record to. Return the exit code.

    live: show it on the whole screen. exports: where else each report goes.

    Raises LeaktraceError.
    """
    if live:
        from tracer.cli.live import trace_live

        return trace_live(settings, record)
    with exports or Exports() as exported:
        prepared = prepare(settings)
        from tracer.cli.console import show_trace

        return show_trace(settings, prepared, record, exported)
