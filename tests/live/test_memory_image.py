"""Scans of real processes: what is found, and that the target goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.live.conftest import PATIENCE, ROOT, RunningProgram
from tracer.attach import ptrace
from tracer.attach.memory_image import ImageResult, MemoryReader
from tracer.attach.ptrace import Event, Option
from tracer.attach.stopping import BeingDebugged, interrupted, stopped
from tracer.attach.thread_status import threads_of, tracer_of

pytestmark = pytest.mark.alone
#: Bytes; more than the programs have.
ENOUGH = 1 << 30
#: In a process of its own: seize, and wait to be killed.
HOLD = "import time; from tracer.attach.stopping import stopped\nwith stopped({pid}): print('stands', flush=True); time.sleep(60)"
SEIZE = "import time; from tracer.attach import ptrace\nptrace.request(ptrace.SEIZE, {pid}); print('seized', flush=True); time.sleep(60)"


@pytest.fixture
def places(build: Callable[..., Path], run_program: Callable[..., RunningProgram]) -> RunningProgram:
    return run_program(build("image_places.c", "-pthread"))


@pytest.fixture
def threads(build: Callable[..., Path], run_program: Callable[..., RunningProgram]) -> RunningProgram:
    return run_program(build("image_threads.c", "-pthread"))


def state(tid: int) -> str:
    return Path(f"/proc/{tid}/stat").read_text().rpartition(") ")[2][0]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.001)


def counted(program: RunningProgram) -> int:
    """Return how far the program's thread has counted."""
    return int(program.work()[0]["count"])


def goes_on(program: RunningProgram) -> bool:
    """Return whether the program answers, and its thread counts."""
    before = counted(program)
    wait_until(lambda: counted(program) > before)
    return True


@contextmanager
def other_process(script: str, pid: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", script.format(pid=pid)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout and one.stdout.readline()
        try:
            yield one
        finally:
            one.kill()


class Image:
    """All that a scan handed on."""

    def __init__(self, pid: int, max_bytes: int = ENOUGH) -> None:
        self.pieces: dict[int, np.ndarray] = {}
        self.result: ImageResult[int] = MemoryReader(pid, max_bytes).read(lambda: 1, self._consume)

    def _consume(self, address: int, words: np.ndarray) -> None:
        self.pieces[address] = words.copy()

    def word(self, address: int) -> int | None:
        for start, words in self.pieces.items():
            if start <= address < start + words.nbytes:
                return int(words[(address - start) // 8])
        return None


def within(address: int, ranges: np.ndarray) -> bool:
    return any(start <= address < end for start, end in ranges.tolist())


@pytest.mark.parametrize("max_bytes", [ENOUGH, 64 << 10])
def test_each_word_is_found(places: RunningProgram, max_bytes: int) -> None:
    """Words in each kind of memory and in a register are read where the program says they are, guards or not; 1 TB that
    is reserved costs no time, and the program goes on."""
    head, *rest = places.work()
    *told, dead = rest
    image = Image(places.pid, max_bytes)
    assert len(told) == 9
    assert [image.word(each["place"]) for each in told] == [each["word"] for each in told]
    assert any(head["value"] + 10 in thread.registers for thread in image.result.facts.threads)
    assert image.word(dead["dead"]) == head["value"] + 9
    assert [within(each["place"], image.result.facts.dead_stack) for each in told] == [False] * 9
    assert within(dead["dead"], image.result.facts.dead_stack)
    assert [within(told[at]["place"], image.result.facts.heap_ranges) for at in (1, 2, 8)] == [True, False, True]
    assert (image.result.bytes_unreadable, image.result.facts.not_stopped) == (0, ())
    assert image.result.streamed == (max_bytes < ENOUGH)
    assert image.result.bytes_read < 16 << 20
    assert image.result.stopped_s < 0.5
    assert goes_on(places)


def test_all_threads_stand_and_no_other(threads: RunningProgram) -> None:
    """While threads are made and end, a stop holds every one there is, again and again, and then lets all go."""
    for _ in range(200):
        with stopped(threads.pid) as stand:
            there = threads_of(threads.pid)
            assert {thread.tid for thread in stand.threads} == {tid for tid in there if state(tid) == "t"}
            assert [state(tid) for tid in there if state(tid) not in "tZX"] == []
            assert stand.is_intact()
    wait_until(lambda: all(tracer_of(tid) == 0 for tid in threads_of(threads.pid)))
    seen = threads_of(threads.pid)
    wait_until(lambda: bool(threads_of(threads.pid) - seen))


def test_a_thread_that_ended_while_traced_is_nobodys_debugging(threads: RunningProgram) -> None:
    """A thread that stays only until its tracer takes notice of its end does not keep the others from being held."""
    before = threads_of(threads.pid)
    time.sleep(0.1)
    lasting = before & threads_of(threads.pid)
    tid = 0

    def seizes_one() -> bool:
        nonlocal tid
        for tid in threads_of(threads.pid) - lasting:
            with suppress(OSError):
                ptrace.request(ptrace.SEIZE, tid)
                return True
        return False

    wait_until(seizes_one)
    wait_until(lambda: state(tid) == "Z")
    with stopped(threads.pid) as stand:
        assert tid not in [thread.tid for thread in stand.threads]
        assert stand.threads
    os.waitid(os.P_PID, tid, os.WEXITED | ptrace.WALL)


def test_a_thread_that_cannot_be_stopped_is_named(threads: RunningProgram) -> None:
    """One that waits in vfork() is left as it is, its memory is read all the same, and it does not stop later."""
    child = threads.work()[0]["child"]
    with stopped(threads.pid, patience=0.1) as stand:
        assert stand.not_stopped == (threads.pid,)
        assert stand.threads
    image = MemoryReader(threads.pid, ENOUGH, hold=lambda: stopped(threads.pid, patience=0.1))
    result = image.read(lambda: 1, lambda *_: None)
    assert result.bytes_read and not len(result.facts.dead_stack)
    assert os.path.exists(f"/proc/{child}")
    assert threads.work() == [{"exit_code": 5}]


def test_the_target_goes_on_if_leaktrace_is_killed(places: RunningProgram) -> None:
    """SIGKILL in the middle of a stop: the kernel lets the threads go."""
    with other_process(HOLD, places.pid) as holder:
        assert {state(tid) for tid in threads_of(places.pid)} == {"t"}
        holder.kill()
        holder.wait(PATIENCE)
    assert goes_on(places)


def test_signals_arrive(places: RunningProgram) -> None:
    """Of a storm of signals that are queued, and so can be counted, each is delivered once, whenever a stop comes."""
    sent = 0

    def storm() -> None:
        nonlocal sent
        while sent < 20_000 and not done.is_set():
            os.kill(places.pid, signal.SIGRTMIN + 1)
            sent += 1
            if sent % 500 == 0:
                # No more than the queue holds.
                time.sleep(0.005)

    done = threading.Event()
    sender = threading.Thread(target=storm)
    sender.start()
    try:
        for _ in range(100):
            with stopped(places.pid):
                pass
    finally:
        done.set()
        sender.join()
    wait_until(lambda: bool(places.work()[0]["signals"] >= sent))
    assert places.work()[0]["signals"] == sent


def test_a_stopped_process_stays_stopped(places: RunningProgram) -> None:
    """A scan of a process that SIGSTOP has stopped reads it and leaves it stopped; SIGCONT then lets it go on."""
    places.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: {state(tid) for tid in threads_of(places.pid)} == {"T"})
    assert Image(places.pid).result.bytes_read
    wait_until(lambda: {state(tid) for tid in threads_of(places.pid)} == {"T"})
    time.sleep(0.05)
    assert {state(tid) for tid in threads_of(places.pid)} == {"T"}
    places.process.send_signal(signal.SIGCONT)
    assert goes_on(places)


def test_a_debugger_is_named(places: RunningProgram) -> None:
    """Where somebody else traces the process the error says who, and no thread is left standing."""
    with other_process(SEIZE, places.pid) as debugger:
        with pytest.raises(BeingDebugged, match=rf"process {debugger.pid} \(python") as caught:
            Image(places.pid)
        assert caught.value.debugger == debugger.pid
        assert goes_on(places)


@pytest.mark.parametrize("max_bytes", [ENOUGH, 64 << 10])
def test_a_process_that_is_killed_meanwhile(places: RunningProgram, max_bytes: int) -> None:
    """Its end in the middle of a scan is an error that says so, not an image of half of it, and its parent sees it."""
    with pytest.raises(ProcessLookupError):
        MemoryReader(places.pid, max_bytes).read(lambda: os.kill(places.pid, signal.SIGKILL), lambda *_: None)
    assert places.process.wait(PATIENCE) == -signal.SIGKILL


def test_threads_that_are_seized_already(threads: RunningProgram) -> None:
    """With threads that are followed, every stop comes back to the follower, who lets all go on from there."""
    options = Option.CLONE | Option.EXIT
    followed = [tid for tid in threads_of(threads.pid) if _seized(tid, options)]
    try:
        with interrupted(threads.pid, followed) as stand:
            assert {thread.tid for thread in stand.threads} >= {threads.pid}
            assert all(state(thread.tid) == "t" for thread in stand.threads)
            assert stand.not_stopped == () and stand.is_intact()
        assert {stop.tid for stop in stand.stops} >= set(followed)
        kinds = {stop.event for stop in stand.stops}
        assert kinds <= {Event.STOP, Event.CLONE, Event.EXIT}
        for stop in stand.stops:
            ptrace.request(ptrace.DETACH, stop.tid)
        _let_all_go(threads.pid)
        assert threads.work()[0]["child"]
        assert threads.work() == [{"exit_code": 5}]
    finally:
        threads.process.kill()
        _let_all_go(threads.pid)


def _seized(tid: int, options: Option) -> bool:
    try:
        ptrace.request(ptrace.SEIZE, tid, options)
    except OSError:
        return False
    return True


def _let_all_go(pid: int) -> None:
    """Detach from what is left: threads that were made by those that are followed."""
    until = time.monotonic() + 1
    while any(tracer_of(tid) for tid in threads_of(pid)) and time.monotonic() < until:
        stop = ptrace.next_stop()
        if stop is not None:
            _detach(stop.tid)


def _detach(tid: int) -> None:
    try:
        ptrace.request(ptrace.DETACH, tid)
    except OSError:
        return
