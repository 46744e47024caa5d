"""Runs a trace with the full-screen view: the trace has a thread of its own, screen and signals have the main one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from tracer.cli.recorded import Record
from tracer.cli.saying import say
from tracer.errors import CannotTrace, ExitCode, LeaktraceError, UsageError
from tracer.listener import Listener
from tracer.report import text
from tracer.report.model import Report
from tracer.report.terminal_look import laid_out_writer

if TYPE_CHECKING:
    from tracer.kernel_settings import KernelSettings
    from tracer.live.app import LiveView
    from tracer.settings import Settings

#: Seconds between reports, at least.
LEAST = 0.25
#: Seconds that one thread has before the other gets its turn: what the kernel side sends must not wait for a drawing.
TURN = 0.001


class Traces(Protocol):
    """A session, of processes or of the kernel."""

    def reports(self) -> Iterator[Report]:
        """Give reports until it is over."""

    def stop(self) -> None:
        """Have it end with a last report."""

    def ask(self) -> None:
        """Have it give one more at once."""


#: Begins a session that tells a listener.
Begin = Callable[[Listener], AbstractContextManager[Any]]


def require_screen(settings: Settings | KernelSettings) -> None:
    """Raise UsageError where there is nothing to draw on, somebody else draws there too, or nobody could follow."""
    if settings.command:
        raise UsageError("--live and the command would both use this terminal.",
                         "Start the command elsewhere, and name it with -p or --comm.")
    if settings.format != "text":
        raise UsageError(f"--live is for people, and --format {settings.format} is not.", "Leave one of them out.")
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("--live needs a terminal, and this is none.", "Leave it out to have reports as text.")
    if settings.interval < LEAST:
        raise UsageError(f"--live cannot show a report every {settings.interval:g} s.", f"{LEAST:g} s is the least.")


class Feed:
    """A session in a thread of its own, for which it is the only one: ptrace knows threads, not processes."""

    def __init__(self, begin: Begin, settings: Any, record: str | None) -> None:
        """record: the file to record to. Raises UsageError."""
        self._begin, self._settings = begin, settings
        self._record = Record(record, settings)
        self._path = record
        self._failed_records = 0
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._session: Traces | None = None
        self._stopped = False
        self._view: LiveView | None = None
        self.last: Report | None = None
        self.problem: BaseException | None = None
        self.notices: list[str] = []
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def start(self) -> None:
        """Return when all is attached. Raises LeaktraceError."""
        self._thread.start()
        self._begun.wait()
        self.check()

    def check(self) -> None:
        """Raise what stopped the trace, if anything did. Raises LeaktraceError."""
        if isinstance(self.problem, LeaktraceError):
            raise self.problem
        if self.problem is not None:
            raise CannotTrace(f"The trace has stopped: {type(self.problem).__name__}: {self.problem}.",
                              "Trace without --live to see more of it, and report it.")

    def show_on(self, view: LiveView) -> None:
        """Give the view what there is, and from now on what comes."""
        with self._lock:
            self._view = view
            if self.last is not None:
                self._tell_report(self.last)
            if self._begun.is_set() and not self._thread.is_alive():
                self._tell_over()

    def stop(self) -> None:
        """End the trace with a last report, and wait for it."""
        self._stopped = True
        if self._session is not None:
            with suppress(OSError):
                self._session.stop()
        self._thread.join()
        self._record.close()

    def record(self) -> str | None:
        """Begin a recording, and return its file; where one is under way, end it and return None. Raises OSError."""
        with self._lock:
            if self._path is not None:
                self._close_record()
                return None
            path = os.path.abspath(time.strftime("leaktrace-%Y%m%d-%H%M%S.leaktrace"))
            try:
                self._record = Record(path, self._settings)
            except UsageError as problem:
                raise OSError(0, problem.message) from None
            self._path = path
            if self.last is not None and self.last.last:
                # No other report will come.
                self._write(self.last)
                self._close_record()
            return self._path

    def exit_code(self) -> int:
        """Return the exit code of a trace that has ended well."""
        return ExitCode.INCOMPLETE if self._failed_records else ExitCode.DONE

    def _close_record(self) -> None:
        self._record.close()
        if self._path is not None:
            self._say(f"recorded to {self._path}")
        self._path = None

    def _write(self, report: Report) -> None:
        if self._path is None:
            return
        self._record.write(report)
        if self._record.exit_code(ExitCode.DONE) != ExitCode.DONE:
            self._failed_records += 1
            self._say(f"the recording {self._path} ends here: it cannot be written any more")
            self._path = None

    def _run(self) -> None:
        try:
            listener = Listener(progress=self._say, notice=self._say)
            with self._begin(listener) as session:
                self._session = session
                self._begun.set()
                if self._stopped:
                    session.stop()
                for report in session.reports():
                    with self._lock:
                        self._write(report)
                        self.last = report
                        self._tell_report(report)
        except BaseException as problem:
            self.problem = problem
        finally:
            self._begun.set()
            self._tell_over()

    def _say(self, line: str) -> None:
        if self._view is None and not self._begun.is_set():
            say(line)
            return
        self.notices.append(line)
        if self._view is not None:
            from tracer.live.messages import Said

            self._view.post_message(Said(line))

    def _tell_report(self, report: Report) -> None:
        if self._view is not None:
            from tracer.live.messages import Arrived

            self._view.post_message(Arrived(report))

    def _tell_over(self) -> None:
        if self._view is not None:
            from tracer.live.messages import Over

            self._view.post_message(Over(failed=self.problem is not None))


def run_live(begin: Begin, settings: Any, record: str | None) -> int:
    """Show a trace until the user has seen enough, then its last report on stdout; return the exit code.

    settings: interval, color and exact_bytes are of this. Raises LeaktraceError.
    """
    feed = Feed(begin, settings, record)
    before = sys.getswitchinterval()
    try:
        feed.start()
        sys.setswitchinterval(TURN)
        view = _view(feed, settings, record)
        view.run()
    finally:
        feed.stop()
        sys.setswitchinterval(before)
    for line in feed.notices:
        say(line)
    feed.check()
    if view.problem is not None:
        raise CannotTrace(f"The live view has stopped: {type(view.problem).__name__}: {view.problem}.",
                          "Trace without --live, and report it.")
    if feed.last is not None:
        write = laid_out_writer(sys.stdout, settings.color, settings.exact_bytes) or text.write
        write(feed.last, sys.stdout)
        sys.stdout.flush()
    return feed.exit_code()


def trace_live(settings: Settings, record: str | None) -> int:
    """Show a trace of processes. Return the exit code. Raises LeaktraceError."""
    require_screen(settings)
    if settings.trace_events:
        raise UsageError("-t prints lines, for which --live leaves no room.", "Leave one of them out.")

    def begin(listener: Listener) -> AbstractContextManager[Any]:
        from tracer.attach.start import prepare
        from tracer.session import Session

        session = Session(settings, listener, prepare(settings))
        session.ends_with_process = True
        return session

    return run_live(begin, settings, record)


def kernel_live(settings: KernelSettings, record: str | None) -> int:
    """Show a trace of the kernel. Return the exit code. Raises LeaktraceError."""
    require_screen(settings)
    from tracer.kernel_session import KernelSession

    return run_live(lambda listener: KernelSession(settings, listener), settings, record)


def _view(feed: Feed, settings: Any, record: str | None) -> LiveView:
    from tracer.live.app import LiveView
    from tracer.live.head import State
    from tracer.live.look import look

    view_look = look(os.environ, settings.color)
    if not view_look.colours:
        os.environ["NO_COLOR"] = "1"
    return LiveView(feed, view_look, State(settings.interval, recording=record), feed.show_on)
