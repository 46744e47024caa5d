"""Runs a trace of the kernel for the command line, by itself or while a command runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tracer.cli import gated
from tracer.cli.exported import Exports
from tracer.cli.kernel import build_settings
from tracer.cli.recorded import Record
from tracer.cli.saying import LossTeller, say
from tracer.errors import ExitCode
from tracer.gate import Gate
from tracer.kernel_session import KernelSession, stop_on_signals
from tracer.kernel_settings import KernelSettings
from tracer.listener import Listener
from tracer.report import json, text
from tracer.report.model import Report
from tracer.report.terminal_look import laid_out_writer

WRITERS = {"text": text.write, "json": json.write}


def show(settings: KernelSettings, record: str | None, exports: Exports) -> int:
    """Print reports until the trace is over; record: the file to record to. Return the exit code.

    exports: where else each report goes.

    Raises LeaktraceError.
    """
    laid_out = settings.format == "text" and laid_out_writer(sys.stdout, settings.color, settings.exact_bytes)
    write = laid_out or WRITERS[settings.format]
    losses = LossTeller()
    with (exports, KernelSession(settings, Listener(progress=say if settings.verbose else lambda _: None)) as session,
          Record(record, settings) as recorded):
        stop_on_signals(session)
        say(f"tracing the kernel: {', '.join(settings.sources)}; Ctrl-C ends with a last report")
        for report in session.reports():
            write(report, sys.stdout)
            recorded.write(report)
            exports.write(report)
            if not (laid_out and sys.stderr.isatty()):
                losses.tell(report)
        if settings.verbose:
            by_rules, by_kernel = session.walks()
            say(f"{by_rules / max(1, by_rules + by_kernel):.1%} of {by_rules + by_kernel} stacks by learnt distances")
            say(f"the maps hold {session.kernel_bytes() / 1e6:.0f} MB of kernel memory")
    sys.stdout.flush()
    return recorded.exit_code(ExitCode.DONE)


def trace_command(options: dict[str, Any], gate: Gate, write: Callable[[Report], None]) -> tuple[Report | None, int]:
    """Trace the kernel while a command runs; return the last report, with all sites, and the command's exit code."""
    growth = any("growth_bytes_per_s" in each.needs for each in gate.budgets)
    settings = replace(build_settings(options), top=gated.ALL)
    if not growth and not options["record"]:
        settings = replace(settings, interval=gated.NEVER)
    last = None
    with (KernelSession(settings, Listener(progress=say if settings.verbose else lambda _: None)) as session,
          Record(options["record"], settings) as recorded):
        assert session.command is not None
        gated.pass_signals_on(session.command, [session.stop])
        signal.signal(gated.REPORT_NOW, lambda *_: session.ask())
        for report in session.reports():
            last = report
            recorded.write(report)
            if report.asked_for and not report.last:
                write(report)
        status = session.command.wait()
    return last, recorded.exit_code(status)
