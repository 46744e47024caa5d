"""ptrace(2) on children of this process: what a stop says, and whose stops and ends are taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tracer.attach.conftest import end, status_of
from tracer.attach import ptrace
from tracer.attach.ptrace import Event, Option, Stop

pytestmark = pytest.mark.usefixtures("within_limit")
LSEEK = 8


@pytest.fixture
def sleeper() -> Iterator[int]:
    """Return a child that waits."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    end(process.pid)
    process.wait()


def next_stop() -> Stop:
    """Wait for a stop."""
    while (stop := ptrace.next_stop()) is None:
        time.sleep(0.001)
    return stop


def until_state(pid: int, state: str) -> None:
    while status_of(pid, "State") != state:
        time.sleep(0.001)


@pytest.mark.parametrize(("status", "expected"), [
    (signal.SIGUSR1 << 8 | 0x7F, Stop(7, signal.SIGUSR1, Event.NONE)),
    (signal.SIGTRAP << 8 | 0x7F | 1 << 16, Stop(7, signal.SIGTRAP, Event.FORK)),
    (signal.SIGTRAP << 8 | 0x7F | 6 << 16, Stop(7, signal.SIGTRAP, Event.EXIT)),
    (signal.SIGSTOP << 8 | 0x7F | 128 << 16, Stop(7, signal.SIGSTOP, Event.STOP)),
    ((signal.SIGTRAP | 0x80) << 8 | 0x7F, Stop(7, ptrace.SYSCALL_STOP, Event.NONE)),
])
def test_what_a_status_says(status: int, expected: Stop) -> None:
    """The signal and the event of a stop, as ptrace(2) lays them out in a wait status."""
    assert ptrace.decode(7, status) == expected


def test_without_children() -> None:
    """Nothing to wait for is no stop, and no error."""
    assert ptrace.next_stop() is None


def test_a_seized_thread_is_not_stopped(sleeper: int) -> None:
    """To seize a thread does it nothing; it is held when it is asked for, and goes on when it is let go."""
    ptrace.request(ptrace.SEIZE, sleeper, Option.SYSGOOD)
    time.sleep(0.02)
    assert ptrace.next_stop() is None and status_of(sleeper, "State") == "S"
    ptrace.request(ptrace.INTERRUPT, sleeper)
    assert next_stop() == Stop(sleeper, signal.SIGTRAP, Event.STOP) and status_of(sleeper, "State") == "t"
    assert ptrace.next_stop() is None, "a stop was taken twice"
    ptrace.request(ptrace.DETACH, sleeper)
    until_state(sleeper, "S")
    assert status_of(sleeper, "TracerPid") == "0"


def test_requests_that_fail(sleeper: int) -> None:
    """A thread that is gone, or is not held, is ProcessLookupError; one that has a debugger is PermissionError."""
    with pytest.raises(ProcessLookupError):
        ptrace.request(ptrace.CONT, sleeper)
    ptrace.request(ptrace.SEIZE, sleeper)
    with pytest.raises(ProcessLookupError):
        ptrace.request(ptrace.CONT, sleeper)
    with pytest.raises(PermissionError):
        ptrace.request(ptrace.SEIZE, sleeper)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(ProcessLookupError):
        ptrace.request(ptrace.SEIZE, gone.pid)


def test_ends_are_not_taken(sleeper: int) -> None:
    """A child that has ended is its starter's to wait for, and does not stand in the way of a stop."""
    ended = subprocess.Popen(["sh", "-c", "exit 6"])
    until_state(ended.pid, "Z")
    ptrace.request(ptrace.SEIZE, sleeper)
    ptrace.request(ptrace.INTERRUPT, sleeper)
    assert next_stop().tid == sleeper and ptrace.next_stop() is None
    assert ended.wait() == 6


def test_a_stop_that_turns_into_an_end(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is killed just when its stop is looked at has ended: its end is left for whoever waits for it."""
    ptrace.request(ptrace.SEIZE, sleeper)
    ptrace.request(ptrace.INTERRUPT, sleeper)
    until_state(sleeper, "t")
    look = os.waitid

    def killed_meanwhile(kind: int, pid: int, options: int) -> object:
        found = look(kind, pid, options)
        if status_of(sleeper, "State") == "t":
            os.kill(sleeper, signal.SIGKILL)
            until_state(sleeper, "Z")
        return found

    monkeypatch.setattr(os, "waitid", killed_meanwhile)
    ptrace.next_stop()
    monkeypatch.undo()
    assert os.waitpid(sleeper, os.WNOHANG) == (sleeper, signal.SIGKILL)


def test_system_calls() -> None:
    """At a call's entry its number and third argument are known, at its exit that it is one; where the program is, at both."""
    child = subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1); os.lseek(0, 5, 77)"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    call = Path(f"/proc/{child.pid}/syscall")
    while not call.read_text().startswith("0 0x0 "):
        time.sleep(0.001)
    ptrace.request(ptrace.SEIZE, child.pid, Option.SYSGOOD)
    ptrace.request(ptrace.INTERRUPT, child.pid)
    next_stop()
    child.stdin.write(b"x")
    child.stdin.flush()
    while True:
        ptrace.request(ptrace.SYSCALL, child.pid)
        assert next_stop() == Stop(child.pid, ptrace.SYSCALL_STOP, Event.NONE)
        info = ptrace.syscall_info(child.pid)
        assert info.arch == ptrace.ARCH_X86_64 and info.ip > 0x1000
        if (info.number, info.third) == (LSEEK, 77):
            break
    ptrace.request(ptrace.SYSCALL, child.pid)
    next_stop()
    assert ptrace.syscall_info(child.pid).number == -1
    end(child.pid)
    child.stdin.close()


def test_whom_an_event_speaks_of() -> None:
    """The thread that a fork made is named at the fork, and begins held."""
    child = subprocess.Popen(["sh", "-c", "read x; (exit 3); exit 4"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    ptrace.request(ptrace.SEIZE, child.pid, Option.FORK | Option.VFORK | Option.CLONE)
    child.stdin.write(b"x\n")
    child.stdin.close()
    stops = [next_stop(), next_stop()]
    (fork,) = (stop for stop in stops if stop.tid == child.pid)
    (began,) = (stop for stop in stops if stop.tid != child.pid)
    assert fork.event in (Event.FORK, Event.CLONE, Event.VFORK) and began.event is Event.STOP
    assert ptrace.event_message(child.pid) == began.tid
    for tid in (began.tid, child.pid):
        ptrace.request(ptrace.DETACH, tid)
    assert child.wait() == 4


def test_who_shares_memory(sleeper: int) -> None:
    """A process shares memory with itself, not with a child; of one that is gone nothing is known."""
    assert ptrace.share_memory(os.getpid(), os.getpid()) is True
    assert ptrace.share_memory(sleeper, os.getpid()) is False
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert ptrace.share_memory(gone.pid, os.getpid()) is None
