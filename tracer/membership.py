"""Processes coming and going while a trace runs: what is attached in them, what they leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from tracer.attach.follow import Follower
from tracer.attach.links import Detacher, Links
from tracer.attach.open_files import room_for_processes
from tracer.attach.program import Program
from tracer.attach.seccomp import would_end
from tracer.attach.selection import Selection
from tracer.attach.stopping import StoppedThread
from tracer.attach.target import Process, find_process
from tracer.attach.thread_status import has_ended
from tracer.attach.tracee import Inherited, Tracee
from tracer.collect.rule_table import RuleTable
from tracer.collect.sites import SiteReader
from tracer.errors import CannotTrace
from tracer.events import KernelEvents
from tracer.holdings import Holdings
from tracer.listener import Listener
from tracer.looks import Looks
from tracer.losses import loss_index
from tracer.roster import Roster
from tracer.settings import Settings

#: Why a process is not traced that should be.
NO_SLOT = "more processes at the same time than leaktrace has room for"
NO_FILES = "more processes at the same time than this user may open files for (ulimit -Hn)"
GONE = "it ended before it could be attached to"
LATE = loss_index("late")
FILTERED = "a seccomp filter would end it at its first probe"


class Membership:
    """Who is traced, from one moment to the next. Tells attach.follow what to do with each (its Owner)."""

    def __init__(self, settings: Settings, program: Program, table: RuleTable, roster: Roster, reader: SiteReader,
                 holdings: Holdings, listener: Listener, looks: Looks) -> None:
        self._settings = settings
        self._program = program
        self._table = table
        self._roster = roster
        self._reader = reader
        self._holdings = holdings
        self._listener = listener
        self._looks = looks
        self._detacher = Detacher()
        self._room = room_for_processes(program.way)
        self._events: KernelEvents | None = None
        self._follower: Follower | None = None
        self.selection: Selection | None = None
        self._let_go: set[int] = set()
        self._refused: set[int] = set()
        self._waiting: list[Tracee] = []
        self._in_report = False
        #: Processes that should be traced and are not, by reason.
        self.untraced: Counter[str] = Counter()
        #: Called with the number of a process whose end is known.
        self.on_end: Callable[[int, int], None] = lambda pid, status: None

    def hear(self, events: KernelEvents) -> None:
        """Take the consumer of the kernel side's events, which needs this object first."""
        self._events = events

    def select(self, selection: Selection | None, follower: Follower | None) -> None:
        """Take whom to trace for what they are, and who holds processes."""
        self.selection, self._follower = selection, follower
        if selection is not None:
            self._program.select(selection.comms, selection.levels())

    def drain(self) -> bool:
        """Handle what the kernel side has sent; return whether there was anything."""
        return self._events.drain(self.look_again) if self._events else False

    def bind(self, tracee: Tracee) -> None:
        """Begin to trace a process; what it has mapped is attached with look_again()."""
        tracee.bind(self._program, self._table, bare=self._settings.bare_traps)

    def look_again(self, tracee: Tracee) -> None:
        """Read the mappings, attach what is new there, and tell the kernel side."""
        if not tracee.alive:
            return
        tracee.read_mappings()
        self._attach(tracee)
        tracee.publish(self._program)

    def _attach(self, tracee: Tracee) -> None:
        def attach() -> None:
            for attached in tracee.attach():
                self._listener.attached(attached)

        self._guard(attach)

    def _guard(self, attach: Callable[[], None]) -> None:
        """Attach; of many processes, one in which that is refused does not end the trace."""
        try:
            attach()
        except (ProcessLookupError, FileNotFoundError):
            # It is just ending; that will be said.
            pass
        except CannotTrace as problem:
            if not self._settings.follows:
                raise
            self.untraced[problem.message] += 1

    def admit(self, pid: int) -> Tracee | None:
        """Begin to trace a process that was not; None, counted, where that cannot be."""
        tracee = None
        try:
            process = find_process(pid)
            reason = self._refusal(process)
            tracee = None if reason else self._roster.admit(process)
        except CannotTrace as problem:
            reason = problem.message
        except ProcessLookupError:
            reason = GONE
        except OSError as problem:
            reason = f"{problem.strerror} (errno {problem.errno})"
        if tracee is None:
            self._refuse(pid, reason or NO_SLOT)
        else:
            self.bind(tracee)
        return tracee

    def _refuse(self, pid: int, reason: str) -> None:
        """Count a process that is not traced, once, though it is tried again when it runs another program."""
        if pid not in self._refused:
            self._refused.add(pid)
            self.untraced[reason] += 1

    def _refusal(self, process: Process) -> str | None:
        if self._roster.running_count >= self._room:
            return NO_FILES
        return FILTERED if would_end(process.folder, self._program.way) else None

    # --- what followed processes do (attach.follow.Owner); each is held meanwhile

    def made(self, pid: int, parent: int | None, *, shares_memory: bool) -> None:
        """Trace a new process, before its first instruction."""
        mother = self._roster.by_pid(parent) if parent is not None else None
        if mother is None and parent is not None:
            # Its parent is not traced, and it is the same program.
            return
        tracee = self.admit(pid)
        if tracee is None:
            return
        if mother is None:
            self.look_again(tracee)
            return
        mother.followed += 1
        tracee.inherit(mother, shares_memory=shares_memory)
        if not shares_memory:
            live, count = self._reader.live_of(mother.image)
            before = mother.inherited or Inherited(0, 0)
            tracee.inherited = Inherited(live + before.bytes, count + before.count)
        self._guard(lambda: tracee.attach_as(mother))
        # What its parent had not searched yet when it was made.
        self._attach(tracee)
        tracee.publish(self._program)

    def executed(self, pid: int) -> bool:
        """Trace another program, before its first instruction; return whether it is still one to be traced."""
        tracee, known = self._roster.by_pid(pid), True
        if self.selection and not self._settings.follow_forks and not self.selection.matches(pid):
            if tracee is not None:
                self._dismiss(tracee)
            return False
        if tracee is None:
            tracee, known = self.admit(pid), False
        if tracee is None:
            return True
        if known:
            while self.drain():
                pass
            tracee.stops_at_exec += 1
            if self._events and tracee.execs < tracee.stops_at_exec:
                # The ring had no room to say so, or the kernel side did not know the process.
                self._events.follow_exec(tracee, tracee.image_after_exec())
        tracee.allow_checks(from_start=True)
        self.look_again(tracee)
        return True

    def changed_leader(self, pid: int) -> None:
        """Attach anew: the kernel has tied what is attached to the thread that was the first, and is gone."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None:
            tracee.detach()
            tracee.links = Links(self._program, bare=self._settings.bare_traps)

    def _dismiss(self, tracee: Tracee) -> None:
        """Trace a process no more that has become something else."""
        # Before it goes on: what its probes would still count would be nobody's.
        tracee.detach()
        tracee.end()
        self._program.forget_process(tracee.process.pid)
        while self.drain():
            pass
        if not tracee.shares_memory:
            self._reader.drop_image(tracee.image)
        self._leave(tracee)
        self._roster.forget({tracee.uid})

    # --- processes that are selected (attach.selection)

    def wanted(self, pid: int, *, waits: bool) -> None:
        """Get a hold of a process that has just become one of the selection; waits: it does so until then."""
        if self.selection and self._follower and not self._follower.follows(pid) and self.selection.matches(pid):
            try:
                self._follower.catch(pid)
            except CannotTrace as problem:
                self._refuse(pid, problem.message)
        if waits:
            if self._follower and not self._follower.follows(pid) and has_ended(pid):
                self.untraced[GONE] += 1
            self._let(pid)

    def hold(self, pid: int) -> None:
        """Get a hold of a traced process that has just run another program, until that is loaded."""
        if self._follower is None or self._settings.stays:
            return
        # Where another debugger has it, its libraries are found when the loader tells of them.
        with suppress(CannotTrace):
            self._follower.catch(pid)
        self._let(pid)

    def _let(self, pid: int) -> None:
        self._program.let_go(pid)
        self._let_go.add(pid)

    def loaded(self) -> None:
        """All that was held is loaded and has gone on; the next exec waits again."""
        for pid in self._let_go:
            self._program.forget_held(pid)
        self._let_go.clear()

    def look_around(self) -> None:
        """Trace what is selected and not traced yet: it was moved to a group, or named otherwise, or came early."""
        if self.selection is None or self._follower is None:
            return
        for pid in self.selection.pids():
            if not self._follower.follows(pid) and self._roster.by_pid(pid) is None:
                self.join(pid)

    def join(self, pid: int) -> None:
        """Trace a process that runs, and what it makes."""
        tracee = self.admit(pid)
        if tracee is None:
            return
        if self._follower:
            self._guard(partial(self._follower.seize, pid))
        self.look_again(tracee)

    def begin(self, tracee: Tracee, *, required: bool) -> None:
        """Attach to a process of the start. Raises CannotTrace if it is required and cannot be followed."""
        pid = tracee.process.pid
        if self._follower and self._settings.follows:
            seize = partial(self._follower.seize, pid)
            if required:
                seize()
            else:
                self._guard(seize)
        self.look_again(tracee)

    def came_late(self, pid: int) -> None:
        """Take note that something of a process was missed."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None:
            tracee.allow_checks()
        self._reader.count_loss(LATE)

    def mapped(self, pid: int) -> None:
        """Attach to what the dynamic loader has mapped."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None:
            self.drain()
            self.look_again(tracee)

    def exiting(self, pid: int) -> None:
        """Read the mappings of a process for the last time: once its first thread has ended nobody tells of them."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None:
            tracee.read_mappings()

    def leaving(self, pid: int, tid: int, ended: Sequence[StoppedThread]) -> None:
        """Look at the memory of a process for the last time, if that is asked for."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None and self._settings.reachability and not tracee.shares_memory:
            # What its stacks miss is learnt from the ring, which tells of it in order.
            while self.drain():
                pass
            self._looks.look_at_end(tracee, tid, ended)

    def ended(self, pid: int, status: int) -> None:
        """Keep what a process left."""
        tracee = self._roster.by_pid(pid)
        if tracee is not None:
            tracee.status = status
            self.has_ended(tracee)
        self._refused.discard(pid)
        self.on_end(pid, status)

    # --- ends

    def has_ended(self, tracee: Tracee) -> None:
        """Keep what a process left; its number may come again for another, whose exec is none of ours."""
        if not tracee.alive:
            return
        tracee.end()
        self._program.forget_process(tracee.process.pid)
        self._roster.leave(tracee)
        self._waiting.append(tracee)
        if not self._in_report:
            self._settle()

    def begin_report(self) -> None:
        """Let what ends wait: a report is made of what there is."""
        self._in_report = True

    def end_report(self) -> None:
        """Keep what ended meanwhile."""
        self._in_report = False
        self._settle()

    def _settle(self) -> None:
        while self._waiting:
            tracee = self._waiting.pop()
            while self.drain():
                # What is on its way speaks of its slot.
                pass
            if not tracee.shares_memory:
                scanned = self._looks.last_of(tracee)
                older = self._settings.older_ns if not scanned else self._settings.older_ns or 0
                self._holdings.end(tracee.uid, self._reader.snapshot(
                    image=tracee.image, older_ns=older, keep_blocks=bool(scanned), scanned=scanned))
                self._reader.drop_image(tracee.image)
            self._leave(tracee)

    def _leave(self, tracee: Tracee) -> None:
        if tracee.links is not None:
            self._detacher.detach(tracee.links)
        if tracee.process.pid in self._let_go:
            self._program.forget_held(tracee.process.pid)
            self._let_go.discard(tracee.process.pid)
        tracee.close()
        self._roster.leave(tracee)
        self._roster.retire(tracee)

    def close(self) -> None:
        """Detach from everything that still runs."""
        for tracee in self._roster.everyone:
            if tracee.links is not None:
                self._detacher.detach(tracee.links)
        self._detacher.close()
