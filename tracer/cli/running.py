"""Runs a session for the command line: reports to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from collections import Counter

from symbolizer.demangle import demangle
from tracer.report import json, text
from tracer.report.model import Report
from tracer.session import Listener, Session, TraceLine, stop_on_signals
from tracer.attach.tracee import Attached
from tracer.settings import AttachWay, Settings

WRITERS = {"text": text.write, "json": json.write}


class _Console:
    """What is said on stderr, and the lines of --trace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._way: AttachWay | None = None
        self._told: dict[str, int] = {}

    def listener(self) -> Listener:
        return Listener(
            attached=self.attached,
            progress=self.say,
            notice=self.say,
            traced=self.traced,
            timing=self.say if self._settings.verbose else lambda _: None,
        )

    def say(self, line: str) -> None:
        print(f"leaktrace: {line}", file=sys.stderr, flush=True)

    def attached(self, each: Attached) -> None:
        plan = each.plan
        names = ", ".join(demangle(probe.function.symbol) for probe in plan.probes)
        how = Counter("return instructions" if probe.entry.throws else "entry and return" if probe.entry.returns
                      else "entry" for probe in plan.probes)
        self.say(f"attached to {plan.allocator.kind} in {each.path} (pid {each.pid}): {names}")
        if self._settings.verbose:
            self.say("  " + ", ".join(f"{count} by {way}" for way, count in how.items()))
            for probe in plan.probes:
                cost = "emulated" if probe.site.emulated else "single-stepped"
                self.say(f"  {demangle(probe.function.symbol)}+{probe.site.offset:#x} {cost}"
                         + (f", {len(probe.exits)} return instructions" if probe.exits else ""))
        for symbol, reason in plan.skipped:
            self.say(f"not attached: {demangle(symbol)} in {each.path}: {reason}")

    def traced(self, line: TraceLine) -> None:
        what = f"alloc exited, size = {line.size}, result = {line.address:x}" if line.allocated else (
            f"free entered, address = {line.address:x}, size = {line.size}")
        print(f"({line.elapsed_s:.6f} pid {line.pid} tid {line.tid}) {what}")

    def losses(self, report: Report) -> None:
        """Say each loss when it has grown since it was last said."""
        for loss in report.losses:
            if self._told.get(loss.name) != loss.count:
                self._told[loss.name] = loss.count
                self.say(f"{loss.count} {loss.meaning}: {loss.remedy}")


def run_trace(settings: Settings) -> int:
    """Trace as settings say until it is over; return the exit code. Raises LeaktraceError."""
    console = _Console(settings)
    write = WRITERS[settings.format]
    with Session(settings, console.listener()) as session:
        stop_on_signals(session)
        console.say(f"attached ({session.way}), tracing; Ctrl-C for the last report")
        for report in session.reports():
            write(report, sys.stdout)
            console.losses(report)
        if settings.verbose:
            console.say(f"kernel memory of the maps: {session.kernel_bytes() >> 20} MB")
    sys.stdout.flush()
    return os.EX_OK
