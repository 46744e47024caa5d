"""A session at the terminal: reports to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from symbolizer.demangle import demangle
from tracer.attach.links import PlannedProbe
from tracer.attach.start import Prepared
from tracer.attach.tracee import Attached
from tracer.cli.exported import Exports
from tracer.cli.recorded import Record
from tracer.cli.saying import LossTeller, say
from tracer.errors import ExitCode
from tracer.listener import Listener, TraceLine
from tracer.report import json, text
from tracer.report.model import Report
from tracer.report.terminal_look import laid_out_writer
from tracer.session import Session, stop_on_signals
from tracer.settings import Settings

WRITERS = {"text": text.write, "json": json.write}


class Console:
    """What is said on stderr, and the lines of --trace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._losses = LossTeller()

    def listener(self, *, quiet: bool = False) -> Listener:
        """Return who is told by the session; quiet: not where it attached."""
        return Listener(
            attached=(lambda _: None) if quiet else self.attached,
            progress=self.say,
            notice=self.say,
            traced=self.traced,
            timing=self.say if self._settings.verbose else lambda _: None,
        )

    def say(self, line: str) -> None:
        """Write one line to stderr."""
        say(line)

    def attached(self, each: Attached) -> None:
        """Say what was attached to one file, and with -v where each probe sits."""
        plan = each.plan
        self.say(f"{plan.allocator.kind} in {each.path} (pid {each.pid}): {summary(plan.probes)}")
        if self._settings.verbose:
            for probe in plan.probes:
                self.say(f"  {describe_probe(probe)}")
        for symbol, reason in plan.skipped:
            self.say(f"not attached: {demangle(symbol)} in {each.path}: {reason}")

    def traced(self, line: TraceLine) -> None:
        """Print one line of --trace."""
        what = (
            f"alloc exited, size = {line.size}, result = {line.address:x}"
            if line.allocated
            else f"free entered, address = {line.address:x}, size = {line.size}"
        )
        print(f"({line.elapsed_s:.6f} pid {line.pid} tid {line.tid}) {what}")

    def losses(self, report: Report) -> None:
        """Say each loss when it has grown since it was last said."""
        self._losses.tell(report)


def summary(probes: Iterable[PlannedProbe]) -> str:
    """Return the names of probed functions; the twenty forms of operator new and delete are one."""
    names = [probe.function.symbol for probe in probes]
    plain = [name for name in names if not name.startswith(("_Zn", "_Zd"))]
    operators = len(names) - len(plain)
    return ", ".join(plain) + (f" and {operators} forms of operator new and delete" if operators else "")


def describe_probe(probe: PlannedProbe) -> str:
    """Return where a probe sits, and what that costs."""
    cost = "" if probe.site.emulated else ", single-stepped"
    exits = f", and at {len(probe.exits)} return instructions" if probe.exits else ""
    returns = ", and its return" if probe.by_return else ""
    return f"{demangle(probe.function.symbol)}+{probe.site.offset:#x}{cost}{returns}{exits}"


def show_trace(settings: Settings, prepared: Prepared, record: str | None, exports: Exports) -> int:
    """Run the session that was prepared until it is over; record: the file to record to. Return the exit code.

    exports: where else each report goes.

    Raises LeaktraceError.
    """
    console = Console(settings)
    laid_out = settings.format == "text" and laid_out_writer(sys.stdout, settings.color, settings.exact_bytes)
    write = laid_out or WRITERS[settings.format]
    with Session(settings, console.listener(), prepared) as session, Record(record, settings) as recorded:
        stop_on_signals(session)
        session.ends_with_process = True
        console.say(f"attached by {session.way}; Ctrl-C ends with a last report")
        for report in session.reports():
            write(report, sys.stdout)
            recorded.write(report)
            exports.write(report)
            if not (laid_out and sys.stderr.isatty()):
                console.losses(report)
        if settings.verbose:
            console.say(f"the maps hold {session.kernel_bytes() / 1e6:.0f} MB of kernel memory")
    sys.stdout.flush()
    return recorded.exit_code(ExitCode.DONE)
