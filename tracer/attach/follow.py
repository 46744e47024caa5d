"""Follows processes through fork, clone and exec: holds each new one until its probes sit, then lets it go on.

Every thread of a followed process is seized (ptrace(2)): the kernel stops a new process before its first instruction,
an exec before the new program's first, and a process before its memory goes. If leaktrace dies, the kernel lets all of
them go on.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tracer.attach import ptrace
from tracer.attach.child_signals import ChildSignals
from tracer.attach.kernel import CAPABILITIES
from tracer.attach.loading import Loading
from tracer.attach.owner import Owner
from tracer.attach.processors import step_aside
from tracer.attach.ptrace import Event, Option, Stop
from tracer.attach.stopping import Stand, StoppedThread, ended_thread, interrupted
from tracer.attach.thread_status import has_ended, status_number, threads_of, tracer_of
from tracer.errors import CannotTrace

STAY = Option.SYSGOOD | Option.CLONE | Option.EXEC | Option.EXIT
FOLLOW = STAY | Option.FORK | Option.VFORK
#: Until a program is loaded.
WATCH = Option.SYSGOOD | Option.EXEC
#: Seconds between looks where no signal tells of stops: outside of the main thread.
PAUSE = 0.0005
#: Seconds, after which somebody else gets a turn.
LONGEST_SERVICE = 0.2
#: Seconds between looks for threads that ended without a word: one killed where it was held does.
SEARCH = 0.2
#: Seconds that a thread may take to stop before it is left as it is: one in an uninterruptible sleep does not.
RELEASE_PATIENCE = 2.0


@dataclass(slots=True)
class _Thread:
    pid: int
    loading: Loading | None = None
    #: It has made this thread, and goes on when that has come.
    waits_for: int = 0
    #: It was caught on its way, and is taken for a new program when it stops.
    caught: bool = False


class Follower:
    """All threads that are held and let go; one thread of ours may do so."""

    def __init__(self, owner: Owner, *, forks: bool, stays: bool = False) -> None:
        """forks: follow new processes, and each to its end. stays: follow to its end, but no new processes.

        Without either, a program is watched until it is loaded.
        """
        self._owner = owner
        self._stays = forks or stays
        self._options = FOLLOW if forks else STAY if stays else WATCH
        self._threads: dict[int, _Thread] = {}
        self._ending: set[int] = set()
        self._arrived: dict[int, Stop] = {}
        #: By process: threads that have ended with it, while others have still to.
        self._ended: dict[int, list[StoppedThread]] = {}
        self._searched = 0.0
        self._unborn: set[int] = set()
        self._signals = ChildSignals() if self._stays else None

    @property
    def fileno(self) -> int | None:
        """What becomes readable when there may be something to serve; None: look now and then."""
        return self._signals.fd if self._signals else None

    @property
    def watches(self) -> bool:
        """Whether a program is watched until it is loaded."""
        if self._stays:
            return any(thread.loading is not None for thread in self._threads.values())
        return bool(self._threads)

    def follows(self, pid: int) -> bool:
        """Return whether a process is followed."""
        return pid in self._threads or pid in self._ending

    def seize(self, pid: int) -> None:
        """Begin to follow a process that runs, with all its threads. Raises CannotTrace."""
        known: set[int] = set()
        while fresh := threads_of(pid) - known:
            for tid in fresh:
                self._seize_thread(tid, pid)
            # Threads that were made meanwhile, by threads that were not seized yet.
            known |= fresh

    def _seize_thread(self, tid: int, pid: int) -> None:
        if tid in self._threads:
            return
        try:
            ptrace.request(ptrace.SEIZE, tid, self._options)
        except ProcessLookupError:
            return
        except PermissionError:
            if tracer_of(tid) == threading.get_native_id() or has_ended(tid):
                return
            raise CannotTrace(
                f"Process {pid} cannot be followed: it runs under another debugger, or leaktrace lacks permission.",
                f"End strace or gdb, run leaktrace with sudo, or give it {CAPABILITIES}.") from None
        self._threads[tid] = _Thread(pid)

    def catch(self, pid: int) -> None:
        """Begin to follow a process that has just run another program. Raises CannotTrace."""
        if self._stays:
            self.seize(pid)
        else:
            self._seize_thread(pid, pid)
        if pid in self._threads:
            self._threads[pid].caught = True
            with suppress(ProcessLookupError):
                ptrace.request(ptrace.INTERRUPT, pid)

    def adopt(self, pid: int) -> None:
        """Take over a process that is seized and stopped at its exec, and let it run on."""
        self._threads[pid] = _Thread(pid)
        if self._stays:
            ptrace.request(ptrace.SETOPTIONS, pid, self._options)
        self._owner.mapped(pid)
        self._threads[pid].loading = Loading(pid)
        self._settle(pid)

    def serve(self) -> bool:
        """Handle every stop and end there is now, for a limited time; return whether there was any."""
        if self._signals:
            self._signals.clear()
        found, until = False, time.monotonic() + LONGEST_SERVICE
        while time.monotonic() < until and (stop := ptrace.next_stop()) is not None:
            found = True
            with suppress(ProcessLookupError):
                self._handle(stop)
        if self._signals and time.monotonic() >= until:
            # The signals of those that are left have been cleared.
            self._signals.again()
        self._adopt_orphans()
        return self._reap() or found

    @contextmanager
    def paused(self, pid: int) -> Iterator[Stand]:
        """Hold all threads of a process that is followed, and let them go on in the end."""
        mine = {tid: thread for tid, thread in self._threads.items() if thread.pid == pid}
        standing = {tid for tid, thread in mine.items() if thread.waits_for}
        stops: tuple[Stop, ...] = ()
        try:
            with interrupted(pid, mine.keys() - standing, standing) as stand:
                stops = stand.stops
                yield stand
        finally:
            for stop in stops:
                with suppress(ProcessLookupError):
                    self._handle(stop)

    def wait(self, timeout: float) -> None:
        """Sleep until there may be something to serve, at most timeout seconds."""
        if self._signals and self._signals.fd is not None:
            select.select([self._signals.fd], [], [], timeout)
        else:
            time.sleep(min(PAUSE, timeout))

    def _handle(self, stop: Stop) -> None:
        thread = self._threads.get(stop.tid)
        if thread is None:
            self._arrive(stop)
        elif stop.event in (Event.FORK, Event.VFORK, Event.CLONE):
            child = ptrace.event_message(stop.tid)
            if child in self._arrived:
                self._admit(child, thread.pid)
                self._resume(stop.tid)
            elif child in self._threads or child in self._ending:
                self._resume(stop.tid)
            else:
                # It goes on when its child has come: so what it holds does not change meanwhile.
                thread.waits_for = child
        elif stop.event is Event.EXEC or thread.caught:
            self._execute(stop.tid, at_exec=stop.event is Event.EXEC)
        elif stop.event is Event.EXIT:
            if stop.tid == thread.pid:
                self._owner.exiting(thread.pid)
            self._ending.add(stop.tid)
            if self._is_last(stop.tid, thread.pid):
                self._owner.leaving(thread.pid, stop.tid, self._ended.pop(thread.pid, ()))
            elif ended := ended_thread(stop.tid):
                self._ended.setdefault(thread.pid, []).append(ended)
            self._resume(stop.tid)
        elif stop.event is Event.STOP:
            self._rest(stop)
        elif stop.signal == ptrace.SYSCALL_STOP:
            self._load(stop.tid, thread)
        else:
            self._resume(stop.tid, 0 if stop.event else stop.signal)

    def _is_last(self, tid: int, pid: int) -> bool:
        """Return whether no other thread of a process goes on: the one that execs ends the others, and does so."""
        return all(each.pid != pid or other == tid or other in self._ending for other, each in self._threads.items())

    def _arrive(self, stop: Stop) -> None:
        """Take in a thread that is new, when the one that made it says so."""
        if tracer_of(stop.tid) != threading.get_native_id():
            return
        if stop.event is Event.EXIT:
            # Killed before it began: nobody needs to be told, and its process does not end before it.
            self._arrived.pop(stop.tid, None)
            self._ending.add(stop.tid)
            self._resume(stop.tid)
        else:
            self._arrived[stop.tid] = stop
        for tid, maker in self._threads.items():
            if maker.waits_for == stop.tid:
                maker.waits_for = 0
                if stop.tid in self._arrived:
                    self._admit(stop.tid, maker.pid)
                self._resume(tid)
                return

    def _adopt_orphans(self) -> None:
        """Let threads go on whose maker was killed before it could tell of them."""
        for tid in list(self._arrived):
            maker = status_number(tid, "Tgid") if status_number(tid, "Tgid") != tid else status_number(tid, "PPid")
            if not any(thread.pid == maker for thread in self._threads.values()):
                self._admit(tid, None)

    def _admit(self, tid: int, maker: int | None) -> None:
        del self._arrived[tid]
        pid = status_number(tid, "Tgid")
        self._threads[tid] = _Thread(pid or tid)
        if pid == tid:
            shares = maker is not None and ptrace.share_memory(tid, maker) is True
            self._owner.made(tid, maker, shares_memory=shares)
        self._resume(tid)

    def _execute(self, tid: int, *, at_exec: bool) -> None:
        """A program was replaced: its other threads are gone, and the one that did it has the process's number."""
        self._ended.pop(tid, None)
        for other in [other for other, thread in self._threads.items() if thread.pid == tid and other != tid]:
            del self._threads[other]
            self._ending.add(other)
        self._ending.discard(tid)
        if at_exec and ptrace.event_message(tid) != tid:
            self._owner.changed_leader(tid)
        was_caught, self._threads[tid].caught = self._threads[tid].caught, False
        self._begin_program(tid, came_late=was_caught and not at_exec)

    def _begin_program(self, pid: int, *, came_late: bool = False) -> None:
        if not self._owner.executed(pid):
            del self._threads[pid]
            ptrace.request(ptrace.DETACH, pid)
            return
        loading = self._threads[pid].loading = Loading(pid)
        if came_late and not loading.is_at(ptrace.syscall_info(pid).ip):
            self._owner.came_late(pid)
        self._settle(pid)

    def _load(self, tid: int, thread: _Thread) -> None:
        if thread.loading is not None:
            if thread.loading.at_syscall(ptrace.syscall_info(tid)):
                self._owner.mapped(thread.pid)
            self._settle(tid)
        else:
            self._resume(tid)

    def _settle(self, tid: int) -> None:
        """Let a program go on; for good if it is loaded and nothing more is wanted of it."""
        thread = self._threads[tid]
        if thread.loading is not None and thread.loading.is_over:
            thread.loading = None
            if not self._stays:
                del self._threads[tid]
                ptrace.request(ptrace.DETACH, tid)
            else:
                self._resume(tid)
            step_aside(tid)
        else:
            self._resume(tid)

    def _rest(self, stop: Stop) -> None:
        """At a stop that is not of leaktrace's making, the process stays stopped until it is continued."""
        if stop.signal in ptrace.STOPPING:
            ptrace.request(ptrace.LISTEN, stop.tid)
        else:
            self._resume(stop.tid)

    def _resume(self, tid: int, number: int = 0) -> None:
        thread = self._threads.get(tid)
        loads = thread is not None and thread.loading is not None
        with suppress(ProcessLookupError):
            ptrace.request(ptrace.SYSCALL if loads else ptrace.CONT, tid, number)

    def _reap(self, on_stop: Callable[[Stop], None] | None = None) -> bool:
        """Take the ends of threads that have said that they end; of a process, it is that of its last thread."""
        found, now = False, time.monotonic()
        searched = self._ending
        if now - self._searched > SEARCH:
            self._searched, searched = now, self._ending | self._threads.keys()
            self._forget_unborn()
        for tid in list(searched):
            try:
                gone, status = os.waitpid(tid, os.WNOHANG | ptrace.WALL)
            except ChildProcessError:
                gone, status = tid, 0
            if not gone:
                continue
            if os.WIFSTOPPED(status):
                with suppress(ProcessLookupError):
                    (on_stop or self._handle)(ptrace.decode(tid, status))
                continue
            found = True
            self._ending.discard(tid)
            thread = self._threads.pop(tid, None)
            if thread is not None and thread.caught:
                # It was ending already.
                self._owner.came_late(tid)
            if thread is not None and thread.pid == tid:
                self._ended.pop(tid, None)
                self._owner.ended(tid, status)
        return found

    def _forget_unborn(self) -> None:
        """Let threads go on that wait for one which was killed before it came."""
        for tid, maker in self._threads.items():
            if maker.waits_for and status_number(maker.waits_for, "TracerPid") == 0:
                with suppress(ChildProcessError):
                    os.waitpid(maker.waits_for, os.WNOHANG | ptrace.WALL)
                maker.waits_for = 0
                self._resume(tid)

    def close(self, *, interrupt: bool = True) -> None:
        """Let all go that are held; and with interrupt all others too.

        Each is stopped for a moment then, as a debugger's leave needs it, and waits with a time-out end early in some
        (EINTR). Without, the kernel lets them go when this thread ends, which should be soon: nobody serves them.
        """
        until = time.monotonic() + RELEASE_PATIENCE
        for tid in [*self._arrived, *(tid for tid, thread in self._threads.items() if thread.waits_for)]:
            self._unborn.add(self._threads[tid].waits_for if tid in self._threads else 0)
            self._let_go(tid)
        self._arrived.clear()
        while (stop := ptrace.next_stop()) is not None:
            self._release(stop)
        if not interrupt:
            self._threads.clear()
        for tid in self._threads:
            with suppress(OSError):
                ptrace.request(ptrace.INTERRUPT, tid)
        me = threading.get_native_id()
        while (self._threads or any(tracer_of(each) == me for each in self._unborn)) and time.monotonic() < until:
            stop = ptrace.next_stop()
            if stop is not None:
                self._release(stop)
                continue
            self._reap(self._release)
            time.sleep(PAUSE)
        if self._signals:
            self._signals.close()

    def _release(self, stop: Stop) -> None:
        """Let a thread go that has stopped: with its signal, if that is why."""
        if stop.event in (Event.FORK, Event.VFORK, Event.CLONE):
            with suppress(OSError):
                self._unborn.add(ptrace.event_message(stop.tid))
        self._let_go(stop.tid, stop.signal if stop.event is Event.NONE and stop.signal != ptrace.SYSCALL_STOP else 0)

    def _let_go(self, tid: int, number: int = 0) -> None:
        with suppress(OSError):
            ptrace.request(ptrace.DETACH, tid, number)
        self._threads.pop(tid, None)
