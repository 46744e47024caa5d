"""Holds all threads of a process for a moment, without a signal (ptrace(2)), and says what their registers hold."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from symbolizer.printable import printable
from tracer.attach import ptrace
from tracer.attach.kernel import CAPABILITIES
from tracer.attach.ptrace import Event, Stop
from tracer.attach.target import PROC
from tracer.attach.thread_status import has_ended, threads_of, tracer_of
from tracer.errors import CannotTrace

#: Seconds for all threads together: one in an uninterruptible sleep, or in vfork(), stops only when that is over.
PATIENCE = 1.0
#: Seconds between looks for stops; most threads have stopped by the second one.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.00005, 0.001
#: Places in struct user_regs_struct (sys/user.h).
_BP, _ORIGINAL_AX, _IP, _SP, _FS_BASE = 4, 15, 16, 19, 21
#: The system call by which one thread ends (asm/unistd_64.h).
SYS_EXIT = 60


class BeingDebugged(CannotTrace):
    """Somebody else traces the process, so its threads are not leaktrace's to stop."""

    def __init__(self, pid: int, debugger: int, comm: str) -> None:
        super().__init__(f"The threads of process {pid} cannot be stopped: process {debugger} ({comm}) traces it.",
                         f"End {comm}, or do without a scan of the memory.")
        self.debugger = debugger
        self.comm = comm


@dataclass(frozen=True, slots=True)
class StoppedThread:
    """A thread that stands. registers: struct user_regs_struct, 27 words; vectors: xmm0 to xmm15, two words each."""

    tid: int
    registers: tuple[int, ...]
    vectors: tuple[int, ...] = ()

    @property
    def sp(self) -> int:
        """Its stack pointer."""
        return self.registers[_SP]

    @property
    def bp(self) -> int:
        """Its rbp."""
        return self.registers[_BP]

    @property
    def ip(self) -> int:
        """Its next instruction."""
        return self.registers[_IP]

    @property
    def fs_base(self) -> int:
        """Where its thread control block is, with its thread-local storage right below."""
        return self.registers[_FS_BASE]


@dataclass(frozen=True, slots=True)
class Stand:
    """A process that stands: its threads, those that did not stop in time, and the stops that came of it."""

    pid: int
    threads: tuple[StoppedThread, ...]
    not_stopped: tuple[int, ...] = ()
    stops: tuple[Stop, ...] = ()

    def is_intact(self) -> bool:
        """Return whether it still stands: whoever kills it, or has it run another program, sets all threads loose."""
        if not self.threads:
            return not has_ended(self.pid)
        return _state_of(self.threads[0].tid) == b"t"


@contextmanager
def stopped(pid: int, patience: float = PATIENCE) -> Iterator[Stand]:
    """Hold all threads of a process that this process does not trace yet, and let them go in the end.

    A signal that came meanwhile is delivered then, and a process that was stopped before stays so. If leaktrace dies,
    the kernel lets them go. patience: seconds. Raises BeingDebugged, CannotTrace without permission, and
    ProcessLookupError if the process is gone.
    """
    holder = _Holder(pid, patience)
    holder.start()
    try:
        yield holder.wait()
    finally:
        holder.let_go()


@contextmanager
def interrupted(pid: int, tids: Collection[int], standing: Collection[int] = (),
                patience: float = PATIENCE) -> Iterator[Stand]:
    """Hold threads of a process that this thread of ours has seized; whoever seized them lets them go.

    tids: those that run, or listen in a group stop; standing: those that stand already, and stay so. The stops of the
    result are for whoever seized the threads to handle afterwards, in that order, as if they had come then: each of
    tids, and each thread that one of them just made, has one there; but the stops of those in not_stopped come later.
    """
    waiting = {tid for tid in tids if _interrupt(tid)}
    stops: list[Stop] = []
    until = time.monotonic() + patience
    for stop in _stops_of(waiting, until):
        stops.append(stop)
        if stop.event is Event.CLONE:
            # It is seized from its birth, and comes to a stop before its first instruction.
            with suppress(OSError):
                made = ptrace.event_message(stop.tid)
                if made in threads_of(pid) and made not in standing:
                    waiting.add(made)
    seen = [*standing, *(stop.tid for stop in stops)]
    # A thread may be killed while it stands: then it has another stop, or none, and that is the caller's to see.
    yield Stand(pid, _registers_of(seen), tuple(sorted(waiting)), tuple(stops))


@contextmanager
def held_at_exit(tid: int, ended: Sequence[StoppedThread] = ()) -> Iterator[Stand]:
    """Give the last thread of a process that this thread of ours holds as it ends (Event.EXIT).

    ended: those that ended with it, with what they held then.
    """
    yield Stand(tid, (*_registers_of([tid]), *ended))


def ended_thread(tid: int) -> StoppedThread | None:
    """Return what a thread holds that is held as its process ends; None if it ends by itself, and its stack with it."""
    for thread in _registers_of([tid]):
        if thread.registers[_ORIGINAL_AX] != SYS_EXIT:
            return thread
    return None


class _Holder(threading.Thread):
    """A thread of ours for one stop: the kernel lets go of all that it traces when it ends, come what may.

    That matters for threads that do not stop in time: nobody can let go of one before it stops (ptrace(2)), and it
    would stand for ever if it did so later.
    """

    def __init__(self, pid: int, patience: float) -> None:
        super().__init__(name=f"holds {pid}", daemon=True)
        self._pid, self._patience = pid, patience
        self._stands, self._go = threading.Event(), threading.Event()
        self._stand: Stand | None = None
        self._problem: Exception | None = None
        self._stops: dict[int, Stop] = {}

    def wait(self) -> Stand:
        """Return the process once it stands. Raises what made that impossible."""
        self._stands.wait()
        if self._problem is not None:
            raise self._problem
        assert self._stand is not None
        return self._stand

    def let_go(self) -> None:
        """Return when its threads run on, and are free for the next who stops them."""
        self._go.set()
        self.join()
        # Python counts a thread as ended a little before the kernel does, which then lets go of what it still traces.
        while self.native_id in threads_of(os.getpid()):
            time.sleep(SHORTEST_PAUSE)

    def run(self) -> None:
        try:
            self._stand = self._stop_all()
        except Exception as problem:
            self._problem = problem
        self._stands.set()
        if self._problem is None:
            self._go.wait()
        self._detach()

    def _stop_all(self) -> Stand:
        until = time.monotonic() + self._patience
        known: set[int] = set()
        waiting: set[int] = set()
        # Threads that were made meanwhile, by threads that did not stand yet, come with the next look.
        while fresh := threads_of(self._pid) - known:
            known |= fresh
            waiting |= {tid for tid in sorted(fresh) if self._seize(tid) and _interrupt(tid)}
            for stop in _stops_of(waiting, until):
                self._stops[stop.tid] = stop
        if not known or not (self._stops or waiting):
            raise ProcessLookupError(f"Process {self._pid} is gone.")
        late = tuple(tid for tid in sorted(waiting) if not has_ended(tid))
        return Stand(self._pid, _registers_of(self._stops), late, tuple(self._stops.values()))

    def _seize(self, tid: int) -> bool:
        try:
            ptrace.request(ptrace.SEIZE, tid)
        except ProcessLookupError:
            return False
        except PermissionError:
            # An ended one stays for its last tracer to take notice, perhaps the thread of ours that held it before.
            if has_ended(tid):
                return False
            debugger = tracer_of(tid)
            if debugger:
                raise BeingDebugged(self._pid, debugger, _comm_of(debugger)) from None
            raise CannotTrace(f"The threads of process {self._pid} may not be stopped.",
                              f"Run leaktrace with sudo, or give it {CAPABILITIES}.") from None
        return True

    def _detach(self) -> None:
        for tid, stop in self._stops.items():
            # One that was killed is let go, and its end told to whom it concerns, when this thread ends.
            with suppress(OSError):
                ptrace.request(ptrace.DETACH, tid, stop.signal if stop.event is Event.NONE else 0)


def _interrupt(tid: int) -> bool:
    try:
        ptrace.request(ptrace.INTERRUPT, tid)
    except OSError:
        return False
    return True


def _stops_of(waiting: set[int], until: float) -> Iterator[Stop]:
    """Give the first stop of each of these threads as it comes, and take it out of the set, until the time is over."""
    pause = SHORTEST_PAUSE
    while waiting:
        for tid in sorted(waiting):
            try:
                # Stops only: an end is somebody else's to wait for.
                found = os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | ptrace.WALL)
            except ChildProcessError:
                waiting.discard(tid)
                continue
            if found is not None and found.si_pid:
                waiting.discard(tid)
                yield Stop(tid, found.si_status & 0xFF, Event(found.si_status >> 8 & 0xFF))
            elif pause == LONGEST_PAUSE and has_ended(tid):
                waiting.discard(tid)
        if waiting:
            if time.monotonic() > until:
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _registers_of(tids: Collection[int]) -> tuple[StoppedThread, ...]:
    found = []
    for tid in tids:
        # One that was killed meanwhile has none.
        with suppress(OSError):
            found.append(StoppedThread(tid, ptrace.general_registers(tid), ptrace.vector_registers(tid)))
    return tuple(found)


def _state_of(tid: int) -> bytes:
    """Return a thread's state, a letter of proc_pid_stat(5); empty once it is gone."""
    try:
        return (PROC / str(tid) / "stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return b""


def _comm_of(tid: int) -> str:
    try:
        return printable((PROC / str(tid) / "comm").read_text(errors="replace").strip())
    except OSError:
        return "ended meanwhile"
