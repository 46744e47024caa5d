"""Following real processes: each new one is told of while it is held, and goes on unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tracer.attach.conftest import children_of, status_of, threads_of
from tracer.attach import ptrace
from tracer.attach.follow import Follower
from tracer.attach.spawn import HeldCommand
from tracer.attach.stopping import StoppedThread
from tracer.errors import CannotTrace

pytestmark = pytest.mark.usefixtures("within_limit")

#: State of a thread that a debugger holds (proc_pid_status(5)).
HELD = "t"


@dataclass
class Recorder:
    """An owner that writes down what it was told, and how each process was at that time."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    last: list[tuple[int, int]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    maps: dict[str, str] = field(default_factory=dict)
    #: Whether a program that another one has become is followed further.
    wants: bool = True
    on_mapped: Callable[[int], object] = lambda pid: None

    def _note(self, kind: str, pid: int, *more: Any) -> None:
        self.events.append((kind, pid, *more))
        self.states.append(status_of(pid, "State"))
        with suppress(OSError):
            self.maps[kind] = Path(f"/proc/{pid}/maps").read_text()

    def made(self, pid: int, parent: int | None, *, shares_memory: bool) -> None:
        self._note("made", pid, parent, shares_memory)

    def executed(self, pid: int) -> bool:
        self._note("executed", pid)
        return self.wants

    def came_late(self, pid: int) -> None:
        self._note("came_late", pid)

    def changed_leader(self, pid: int) -> None:
        self._note("changed_leader", pid)

    def mapped(self, pid: int) -> None:
        self._note("mapped", pid)
        self.on_mapped(pid)

    def exiting(self, pid: int) -> None:
        self._note("exiting", pid)

    def leaving(self, pid: int, tid: int, ended: Sequence[StoppedThread]) -> None:
        self.last.append((pid, tid))

    def ended(self, pid: int, status: int) -> None:
        self.events.append(("ended", pid, status))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]

    def kinds(self, pid: int) -> list[str]:
        """Return what was told of one process, mappings once."""
        kinds = [event[0] for event in self.events if event[1] == pid]
        return [kind for at, kind in enumerate(kinds) if kind != "mapped" or kinds[:at][-1:] != ["mapped"]]


class World:
    """A follower, and the actors that it follows."""

    def __init__(self, actor: Path, folder: Path) -> None:
        self.actor, self.out = actor, folder / "out"
        self.owner = Recorder()
        self.follower = Follower(self.owner, forks=True)
        self.started: list[subprocess.Popen[bytes]] = []
        self.commands: list[HeldCommand] = []
        #: Where the last command reads from.
        self.writer = -1
        self._closed = False

    def start(self, *steps: str) -> int:
        """Start an actor that does its steps when it is told to go on."""
        # In a group of its own, so that none of its children survives the test.
        process = subprocess.Popen([self.actor, self.out, "w", *steps], stdin=subprocess.PIPE, process_group=0)
        self.started.append(process)
        until(lambda: self.out.exists())
        return process.pid

    def go(self) -> None:
        """Let the last actor begin its steps."""
        stdin = self.started[-1].stdin
        assert stdin is not None
        stdin.write(b"x")
        stdin.flush()

    def run(self, *steps: str) -> int:
        """Follow an actor through its steps to its end."""
        pid = self.start(*steps)
        self.follower.seize(pid)
        self.go()
        self.serve_until_ended(pid)
        return pid

    def adopt(self, *steps: str, forks: bool = True) -> HeldCommand:
        """Start an actor that is held at its exec, and have it followed."""
        if not forks:
            self.close()
            self.follower, self._closed = Follower(self.owner, forks=False), False
        # Its input comes to no end, so that one that waits for some runs until it is ended.
        (reader, self.writer), before = os.pipe(), os.dup(0)
        os.dup2(reader, 0)
        try:
            command = HeldCommand([str(self.actor), str(self.out), *steps])
        finally:
            os.dup2(before, 0)
            os.close(before)
            os.close(reader)
        self.commands.append(command)
        self.follower.adopt(command.pid)
        return command

    def serve(self, done: Callable[[], bool]) -> None:
        """Serve until something is so."""
        while not done():
            if not self.follower.serve():
                self.follower.wait(0.05)

    def serve_until_ended(self, pid: int) -> None:
        self.serve(lambda: any(each == pid for each, _ in self.owner.of("ended")))

    def loads(self, pid: int) -> bool:
        """Return whether a program has not come to its own code yet."""
        thread = self.follower._threads.get(pid)
        return thread is not None and thread.loading is not None

    def said(self) -> list[str]:
        return self.out.read_text().splitlines() if self.out.exists() else []

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.follower.close()

    def end(self) -> None:
        """Kill all that is left, and let go whatever the follower has not: it would never end."""
        groups = [process.pid for process in self.started]
        held = [command.pid for command in self.commands if command.status is None]
        for kill, pid in [(os.killpg, pid) for pid in groups] + [(os.kill, pid) for pid in held]:
            with suppress(OSError):
                kill(pid, signal.SIGKILL)
        self.close()
        last = time.monotonic() + 5
        while time.monotonic() < last and any(status_of(pid, "State") not in ("", "Z") for pid in groups + held):
            stop = ptrace.next_stop()
            if stop is not None:
                with suppress(OSError):
                    ptrace.request(ptrace.DETACH, stop.tid)
            time.sleep(0.001)
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            if process.stdin:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        for pid in held:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def until(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.001)


@pytest.fixture
def world(actor: Path, tmp_path: Path) -> Iterator[World]:
    made = World(actor, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize(("step", "shares", "kinds", "said"), [
    ("f", False, ["made", "exiting", "ended"], f"f {7 << 8}"),
    ("v", True, ["made", "executed", "mapped", "exiting", "ended"], f"v {9 << 8}"),
    ("s", True, ["made", "executed", "mapped", "exiting", "ended"], f"s {9 << 8}"),
    ("m", True, ["made", "exiting", "ended"], f"m {5 << 8}"),
])  # fmt: skip
def test_ways_to_make_a_process(world: World, step: str, shares: bool, kinds: list[str], said: str) -> None:
    """fork, vfork, posix_spawn and clone: whose child it is and whether it works in its parent's memory, and all else in order."""
    pid = world.run(step)
    ((child, parent, shares_memory),) = world.owner.of("made")
    assert (parent, shares_memory) == (pid, shares) and world.owner.kinds(child) == kinds
    assert world.said() == [said], "its parent saw another end than without being followed"
    assert dict(world.owner.of("ended")) == {child: int(said.split()[1]), pid: 0}
    assert world.owner.kinds(pid) == ["exiting", "ended"]


def test_a_process_is_held_while_it_is_told_of(world: World) -> None:
    """Whoever is told of a process can look at it, and attach to it, as long as it needs."""
    world.run("f", "v", "g")
    assert len(world.owner.states) > 10 and set(world.owner.states) == {HELD}


def test_nothing_has_run_of_a_new_program(world: World) -> None:
    """When an exec is told of, not even the loader has run; when the end is, the memory is still there."""
    world.run("s")
    assert "/actor" in world.owner.maps["executed"] and "libc" not in world.owner.maps["executed"]
    assert "libc" in world.owner.maps["mapped"] and "libc" in world.owner.maps["exiting"]


def test_threads_are_no_processes(world: World) -> None:
    """A thread is followed, for what it may make, and nobody is told of it."""
    pid = world.run("t", "t")
    assert world.said() == ["t", "t"] and world.owner.kinds(pid) == ["exiting", "ended"]
    assert {event[1] for event in world.owner.events} == {pid}


def test_a_process_made_by_a_thread(world: World) -> None:
    """Its parent is the process, whichever thread made it."""
    pid = world.run("T2", "g")
    made = world.owner.of("made")
    assert [parent for _, parent, _ in made] == [pid, made[0][0]]
    assert world.said() == ["T", f"g {4 << 8}"]


def test_grandchildren(world: World) -> None:
    """Processes are followed to any depth, each with its own parent and end."""
    pid = world.run("g")
    (child, first, _), (grandchild, second, _) = world.owner.of("made")
    assert (first, second) == (pid, child)
    assert dict(world.owner.of("ended")) == {grandchild: 3 << 8, child: 4 << 8, pid: 0}
    assert world.said() == [f"g {4 << 8}"]


@pytest.mark.parametrize("step", ["e", "d"])
def test_exec_by_another_thread(world: World, step: str) -> None:
    """The thread that executes takes the process's number, and all others go, also if the first one had ended before."""
    pid = world.run("T3", step)
    assert world.said() == ["T", f"p {pid}"]
    assert world.owner.of("executed") == [(pid,)] and world.owner.of("ended") == [(pid, 0)]
    assert world.owner.kinds(pid)[-3:] == ["mapped", "exiting", "ended"]
    assert not world.follower.follows(pid)


def test_a_sibling(world: World) -> None:
    """With CLONE_PARENT the maker is not the parent that the kernel names: it is the maker's code and memory all the same."""
    pid = world.start("P")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: len(world.owner.of("ended")) == 2)
    assert [parent for _, parent, _ in world.owner.of("made")] == [pid]


def test_a_child_that_is_killed(world: World) -> None:
    """A process that ends by SIGKILL is told to have ended so, to us and to its parent."""
    pid = world.run("k")
    ((child, *_),) = world.owner.of("made")
    assert world.said() == [f"k {signal.SIGKILL.value}"]
    assert dict(world.owner.of("ended")) == {child: signal.SIGKILL, pid: 0}


def test_children_that_are_killed_at_any_time(world: World) -> None:
    """Before their first instruction, while they are told of, later: each end is seen as what it was, and none is held up."""
    world.run("R300")
    assert world.said() == ["R 300"]
    ends = dict(world.owner.of("ended"))
    children = [child for child, *_ in world.owner.of("made")]
    assert {ends[child] for child in children} == {signal.SIGKILL}
    assert len(children) > 100


def test_a_child_that_is_killed_before_anybody_has_seen_it(world: World) -> None:
    """Its parent waits for it to come; it never does: the parent goes on all the same."""
    pid = world.start("F")
    world.follower.seize(pid)
    world.go()
    until(lambda: bool(children_of(pid)) and status_of(children_of(pid)[0], "State") == HELD)
    os.kill(children_of(pid)[0], signal.SIGKILL)
    world.serve_until_ended(pid)
    assert world.said()[-1] == f"F {signal.SIGKILL.value}"


def test_a_parent_that_is_killed_before_its_child_was_seen(world: World) -> None:
    """The child is told of as one whose parent is not known, and goes on."""
    pid = world.start("F")
    world.follower.seize(pid)
    world.go()
    until(lambda: bool(children_of(pid)) and status_of(children_of(pid)[0], "State") == HELD)
    (child,) = children_of(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: status_of(pid, "State") in ("Z", HELD))
    world.serve(lambda: bool(world.owner.of("made")) and status_of(child, "State") == "S")
    assert world.owner.of("made")[0][0] == child
    os.kill(child, signal.SIGTERM)
    world.serve_until_ended(child)
    assert dict(world.owner.of("ended")) == {child: signal.SIGTERM, pid: signal.SIGKILL}


def test_signals_arrive_unchanged(world: World) -> None:
    """A handler runs once for each signal, with the value and the sender that it had."""
    world.run("h", "q", "h")
    assert world.said() == ["h 1", "q 4711 1", "h 3"]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_job_control(world: World, number: signal.Signals) -> None:
    """A followed process can be stopped and continued, and its parent sees both, as a shell must."""
    world.run(f"j{number.value}")
    assert world.said() == [f"j stopped 1 {number.value}", "j continued 1", f"j {signal.SIGTERM.value}"]


def test_a_process_stays_stopped_while_it_is_served(world: World) -> None:
    """A stop that somebody asked for is kept, until somebody asks for its end."""
    pid = world.start("p")
    world.follower.seize(pid)
    os.kill(pid, signal.SIGSTOP)
    world.go()
    before = time.monotonic()
    world.serve(lambda: time.monotonic() > before + 0.3)
    assert world.said() == []
    os.kill(pid, signal.SIGCONT)
    world.serve_until_ended(pid)
    assert world.said() == [f"p {pid}"]


def test_the_end_of_a_process_that_is_not_our_child(world: World) -> None:
    """Its parent, which is not followed, waits for it and gets its end."""
    world.start("F")
    world.go()
    until(lambda: len(world.said()) == 1)
    child = int(world.said()[0].split()[1])
    world.follower.seize(child)
    assert world.follower.follows(child)
    os.kill(child, signal.SIGTERM)
    world.serve_until_ended(child)
    assert world.owner.of("ended") == [(child, signal.SIGTERM)] and not world.follower.follows(child)
    until(lambda: len(world.said()) == 2)
    assert world.said()[1] == f"F {signal.SIGTERM.value}"


def test_ended_children_of_others_are_left_alone(world: World) -> None:
    """A child of this process that is not followed is its starter's to wait for, also if it is stopped meanwhile."""
    other = subprocess.Popen(["sh", "-c", "kill -STOP $$; exit 6"])
    until(lambda: status_of(other.pid, "State") == "T")
    world.run("f")
    other.send_signal(signal.SIGCONT)
    until(lambda: status_of(other.pid, "State") == "Z")
    world.follower.serve()
    assert other.wait() == 6
    assert other.pid not in {event[1] for event in world.owner.events}


def test_a_process_with_threads_is_seized_whole(world: World) -> None:
    """All threads of a process that runs are followed, not only its first, and go on running."""
    pid = world.start("T5", "E1", "w")
    world.go()
    until(lambda: "T" in world.said())
    world.follower.seize(pid)
    assert len(threads_of(pid)) == 6
    assert {status_of(tid, "TracerPid") for tid in threads_of(pid)} == {str(threading.get_native_id())}
    assert HELD not in {status_of(tid, "State") for tid in threads_of(pid)}


def test_a_process_that_makes_threads_all_the_time(world: World) -> None:
    """None of its threads slips through while it is seized, and none is told of as a process."""
    pid = world.start("c3", "w")
    world.go()
    until(lambda: "c" in world.said())
    world.follower.seize(pid)
    end = time.monotonic() + 0.5
    world.serve(lambda: time.monotonic() > end)
    tracers = {status_of(tid, "TracerPid") for tid in threads_of(pid)} - {""}
    assert tracers == {str(threading.get_native_id())} and world.owner.events == []
    os.kill(pid, signal.SIGKILL)
    world.serve_until_ended(pid)
    assert world.owner.of("ended") == [(pid, signal.SIGKILL)]


def test_a_process_with_a_debugger(world: World) -> None:
    """One that somebody else traces cannot be followed: that is said, with what to do."""
    world.start("A")
    world.go()
    until(lambda: len(world.said()) == 1)
    pid = int(world.said()[0].split()[1])
    with pytest.raises(CannotTrace, match=f"{pid} cannot be followed.*debugger"):
        world.follower.seize(pid)
    assert not world.follower.follows(pid)


def test_a_process_that_is_gone(world: World) -> None:
    """One that ended before it was seized, waited for or not, is not followed, and that is no error."""
    gone = subprocess.Popen(["true"])
    until(lambda: status_of(gone.pid, "State") == "Z")
    world.follower.seize(gone.pid)
    assert not world.follower.follows(gone.pid)
    gone.wait()
    world.follower.seize(gone.pid)
    assert not world.follower.follows(gone.pid) and not world.follower.serve()


@pytest.mark.parametrize("turn", range(5))
def test_close_lets_everything_run_on(world: World, turn: int) -> None:
    """Whatever its threads are at, after close() no one holds them or hears of them, and the program works as before."""
    pid = world.start("T3", "c2", "w", "f", "x5")
    world.go()
    until(lambda: "c" in world.said())
    world.follower.seize(pid)
    end = time.monotonic() + 0.02 * turn
    world.serve(lambda: time.monotonic() > end)
    world.close()
    until(lambda: HELD not in {status_of(tid, "State") for tid in threads_of(pid)})
    assert {status_of(tid, "TracerPid") for tid in threads_of(pid)} - {""} == {"0"}
    world.go()
    assert world.started[-1].wait() == 5
    assert world.said()[-1] == f"f {7 << 8}"


def test_close_while_a_child_is_about_to_be_told_of(world: World) -> None:
    """Parents that wait for a child, and children that came, are let go as well."""
    pid = world.start("f", "f", "x5")
    world.follower.seize(pid)
    world.go()
    until(lambda: bool(children_of(pid)) and status_of(children_of(pid)[0], "State") == HELD)
    begin = time.monotonic()
    world.close()
    assert time.monotonic() - begin < 1.0, "it was waited for what cannot come"
    assert world.started[-1].wait() == 5 and world.said() == [f"f {7 << 8}"] * 2


@pytest.mark.parametrize("known", ["parent", "child"])
def test_close_while_one_of_two_has_come(world: World, known: str) -> None:
    """Of a parent and its child, one has been seen and waits for the other: both are let go."""
    pid = world.start("f", "x5")
    world.follower.seize(pid)
    world.go()
    until(lambda: bool(children_of(pid)) and HELD == status_of(children_of(pid)[0], "State") == status_of(pid, "State"))
    tid = pid if known == "parent" else children_of(pid)[0]
    world.follower._handle(ptrace.decode(*os.waitpid(tid, ptrace.WALL)))
    world.close()
    assert world.started[-1].wait() == 5 and world.said() == [f"f {7 << 8}"]


def test_close_leaves_a_stopped_process_stopped(world: World) -> None:
    """One that somebody has stopped stays so, and can be continued."""
    pid = world.start("x5")
    world.follower.seize(pid)
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 0.1
    world.serve(lambda: time.monotonic() > end)
    world.close()
    until(lambda: status_of(pid, "State") == "T")
    assert status_of(pid, "TracerPid") == "0"
    world.go()
    time.sleep(0.05)
    assert status_of(pid, "State") == "T"
    os.kill(pid, signal.SIGCONT)
    assert world.started[-1].wait() == 5


def test_close_delivers_a_signal_that_was_on_its_way(world: World) -> None:
    """A signal that the follower has not passed on yet arrives all the same."""
    pid = world.start("w", "h")
    world.follower.seize(pid)
    os.kill(pid, signal.SIGUSR1)
    until(lambda: status_of(pid, "State") == HELD)
    world.close()
    world.go()
    world.go()
    assert world.started[-1].wait() == 0 and world.said() == ["h 2"]


def test_waiting_calls_are_not_disturbed(world: World) -> None:
    """What a thread waits in goes on waiting, when it is seized and when it is left: epoll_wait(2) would fail with EINTR."""
    world.start("E8")
    world.go()
    until(lambda: world.said() == ["E waits"])
    pid = world.started[-1].pid
    traced: list[str] = []

    def follow_for_a_while() -> None:
        follower = Follower(world.owner, forks=True)
        follower.seize(pid)
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            follower.serve()
            follower.wait(0.01)
        traced.append(status_of(pid, "TracerPid"))
        follower.close(interrupt=False)

    # The kernel lets all go that a thread has seized when it ends, as when leaktrace ends.
    thread = threading.Thread(target=follow_for_a_while)
    thread.start()
    thread.join()
    assert traced != ["0"]
    until(lambda: status_of(pid, "TracerPid") == "0")
    assert world.started[-1].wait() == 0 and world.said()[1] == "E 0 0"


def test_a_command_from_its_exec(world: World) -> None:
    """A command that was held is another program first, is loaded, and is followed to its end, with what it makes."""
    command = world.adopt("f", "x5")
    assert world.owner.events == [("mapped", command.pid)] and world.loads(command.pid)
    world.serve(lambda: not world.loads(command.pid))
    assert world.said() == [], "code of the program ran before all was mapped"
    assert "libc" in world.owner.maps["mapped"]
    world.serve_until_ended(command.pid)
    assert world.owner.kinds(command.pid) == ["mapped", "exiting", "ended"]
    assert len(world.owner.of("made")) == 1
    assert dict(world.owner.of("ended"))[command.pid] == 5 << 8


def test_a_command_is_let_go_when_it_is_loaded(world: World) -> None:
    """Without following, a command is watched until its libraries are mapped, and then runs as if there was nobody."""
    command = world.adopt("w", "f", "x5", forks=False)
    assert world.follower.fileno is None and world.follower.watches
    world.serve(lambda: not world.loads(command.pid))
    assert status_of(command.pid, "TracerPid") == "0" and not world.follower.follows(command.pid)
    assert not world.follower.watches
    assert world.owner.kinds(command.pid) == ["mapped"] and "libc" in world.owner.maps["mapped"]
    os.close(world.writer)
    assert command.wait() == 5 and world.owner.of("made") == []


def test_a_static_command_is_let_go_at_once(world: World, tmp_path: Path) -> None:
    """There is nothing to load."""
    (tmp_path / "main.c").write_text("int main(void) { return 4; }")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    world.close()
    world.follower, world._closed = Follower(world.owner, forks=False), False
    command = HeldCommand([str(tmp_path / "main")])
    world.commands.append(command)
    world.follower.adopt(command.pid)
    assert not world.loads(command.pid) and command.wait() == 4
    assert world.owner.events == [("mapped", command.pid)]


@pytest.mark.parametrize("served", [False, True])
def test_a_command_that_is_followed_can_be_ended(world: World, served: bool) -> None:
    """What goes wrong between its exec and its first steps ends the command; nobody waits for ever."""
    command = world.adopt("w")
    if served:
        world.serve(lambda: not world.loads(command.pid))
    command.kill()
    assert command.wait() == 128 + signal.SIGKILL


def test_a_program_that_is_not_wanted(world: World) -> None:
    """An exec can make of a process what nobody wants to follow: it is let go there, and runs on to its end."""
    world.owner.wants = False
    world.start("s", "w", "x5")
    world.follower.seize(world.started[-1].pid)
    world.go()
    world.serve(lambda: bool(world.said()))
    ((child, *_),) = world.owner.of("made")
    assert world.said() == [f"s {9 << 8}"] and world.owner.kinds(child) == ["made", "executed"]
    assert not world.follower.follows(child)


def test_a_program_that_was_caught_on_its_way(world: World) -> None:
    """One that begins to be followed after its exec is told of as a new program, and that it came late; then as any other."""
    world.start("w", "f")
    pid = world.started[-1].pid
    world.follower.catch(pid)
    world.serve(lambda: bool(world.owner.of("came_late")))
    assert world.owner.kinds(pid) == ["executed", "came_late"] and set(world.owner.states) == {HELD}
    world.go()
    world.go()
    world.serve_until_ended(pid)
    assert world.said() == [f"f {7 << 8}"] and world.owner.kinds(pid)[-2:] == ["exiting", "ended"]
    assert world.owner.kinds(pid).count("executed") == 1


def test_an_end_before_the_first_instruction(world: World) -> None:
    """A command that is killed where it is held at its exec has ended, and does not go on loading."""
    world.owner.on_mapped = lambda pid: os.kill(pid, signal.SIGKILL)
    command = world.adopt("w")
    world.serve_until_ended(command.pid)
    assert world.owner.of("ended") == [(command.pid, signal.SIGKILL)] and not world.loads(command.pid)


def test_what_tells_of_stops(world: World) -> None:
    """In the main thread there is something to poll that is readable when a process waits; closed, all is as before."""
    pid = world.start("f")
    world.follower.seize(pid)
    assert world.follower.fileno is not None and not world.follower.serve()
    world.go()
    begin = time.monotonic()
    world.follower.wait(20.0)
    assert time.monotonic() - begin < 10.0 and world.follower.serve()
    world.close()
    assert world.follower.fileno is None
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1


def test_in_another_thread(actor: Path, tmp_path: Path) -> None:
    """Where no signal tells, the follower looks now and then, and works alike."""
    worlds: list[World] = []

    def work() -> None:
        one = World(actor, tmp_path)
        worlds.append(one)
        assert one.follower.fileno is None
        one.run("f", "v")
        one.end()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and worlds[0].said() == [f"f {7 << 8}", f"v {9 << 8}"]
    assert len(worlds[0].owner.of("made")) == 2 and len(worlds[0].owner.of("ended")) == 3


def stay(world: World) -> None:
    """Have the world follow processes to their ends, and no new ones."""
    world.close()
    world.follower, world._closed = Follower(world.owner, forks=False, stays=True), False


def test_staying_to_the_end_without_children(world: World) -> None:
    """Its threads are held on to, its end is told while the memory is there, and its children are nobody's concern."""
    stay(world)
    pid = world.run("T2", "t", "f", "s", "v")
    assert world.owner.kinds(pid) == ["exiting", "ended"] and {event[1] for event in world.owner.events} == {pid}
    assert world.owner.states == [HELD] and "/actor" in world.owner.maps["exiting"]
    assert world.said() == ["T", "t", f"f {7 << 8}", f"s {9 << 8}", f"v {9 << 8}"], "its children ran otherwise than alone"


def test_staying_with_threads_that_come_and_go(world: World) -> None:
    """A thread that is made later is seized from its birth, and gone from the books when it ends."""
    stay(world)
    pid = world.start("T1", "t", "T2", "w", "x3")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: world.said() == ["T", "t", "T"])
    world.serve(lambda: world.follower._threads.keys() == threads_of(pid))
    assert len(threads_of(pid)) == 4
    assert {status_of(tid, "TracerPid") for tid in threads_of(pid)} == {str(threading.get_native_id())}
    world.go()
    world.serve_until_ended(pid)
    assert world.owner.of("ended") == [(pid, 3 << 8)] and not world.follower.follows(pid)


def test_staying_with_a_child_that_lives_on(world: World) -> None:
    """A child that outlives its parent is not held, not even for a moment, nor followed."""
    stay(world)
    pid = world.start("F", "p")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: bool(world.said()))
    child = int(world.said()[0].split()[1])
    assert status_of(child, "TracerPid") == "0" and not world.follower.follows(child)
    os.kill(child, signal.SIGTERM)
    world.serve_until_ended(pid)
    assert world.said()[1:] == [f"F {signal.SIGTERM.value}", f"p {pid}"] and world.owner.of("made") == []


def test_staying_through_an_exec(world: World) -> None:
    """Another program is told of and followed on, with the code that it maps, to its end."""
    stay(world)
    pid = world.run("T3", "e")
    assert [kind for kind in world.owner.kinds(pid) if kind != "exiting"] == ["changed_leader", "executed", "mapped", "ended"]
    assert world.owner.kinds(pid)[-2:] == ["exiting", "ended"] and world.said() == ["T", f"p {pid}"]


@pytest.mark.parametrize("step", ["e", "d"])
def test_the_end_of_the_first_thread_is_not_that_of_its_process(world: World, step: str) -> None:
    """Where another thread goes on, or runs another program, the end is told once, when it comes."""
    stay(world)
    pid = world.run("T3", step)
    assert world.owner.last == [(pid, pid)]


def test_a_command_that_is_stayed_with(world: World) -> None:
    """One that is held at its exec is loaded, and then followed on, where it would else be let go."""
    stay(world)
    command = world.adopt("f", "x4")
    assert world.follower.watches
    world.serve_until_ended(command.pid)
    assert not world.follower.watches and world.owner.of("made") == []
    assert [kind for kind in world.owner.kinds(command.pid) if kind != "mapped"] == ["exiting", "ended"]
    assert world.owner.of("ended") == [(command.pid, 4 << 8)] and world.said() == [f"f {7 << 8}"]


@pytest.mark.parametrize("forks", [True, False])
def test_a_pause(world: World, forks: bool) -> None:
    """All threads stand meanwhile, with their registers, and go on afterwards as if nothing had been."""
    if not forks:
        stay(world)
    pid = world.start("T3", "w", "t", "f", "x5")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: world.said() == ["T"])
    for _ in range(3):
        with world.follower.paused(pid) as stand:
            assert {status_of(tid, "State") for tid in threads_of(pid)} == {HELD} and stand.is_intact()
            assert {thread.tid for thread in stand.threads} == threads_of(pid) and not stand.not_stopped
            assert all(thread.sp and thread.ip and thread.fs_base for thread in stand.threads)
        until(lambda: HELD not in {status_of(tid, "State") for tid in threads_of(pid)})
    world.go()
    world.serve_until_ended(pid)
    assert world.said() == ["T", "t", f"f {7 << 8}"] and (pid, 5 << 8) in world.owner.of("ended")
    assert len(world.owner.of("made")) == forks


def test_a_pause_of_one_that_makes_threads_all_the_time(world: World) -> None:
    """Threads that come in that moment stand as well, and none is left standing or forgotten."""
    stay(world)
    pid = world.start("c2", "w")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: "c" in world.said())
    for _ in range(10):
        with world.follower.paused(pid):
            # One that is being made may need a moment until it stands, before its first instruction.
            until(lambda: {status_of(tid, "State") for tid in threads_of(pid)} <= {HELD, "Z", "X", ""})
        again = time.monotonic() + 0.01
        world.serve(lambda until=again: time.monotonic() > until)  # type: ignore[misc]
    assert world.owner.events == []
    os.kill(pid, signal.SIGKILL)
    world.serve_until_ended(pid)


def test_what_comes_during_a_pause_is_not_lost(world: World) -> None:
    """A signal that arrives while the process stands reaches it, and a stop stays one."""
    pid = world.start("T2", "w", "p")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: world.said() == ["T"])
    with world.follower.paused(pid):
        os.kill(pid, signal.SIGSTOP)
    before = time.monotonic()
    world.serve(lambda: time.monotonic() > before + 0.1)
    # All of its threads have stopped by now.
    world.go()
    world.serve(lambda: time.monotonic() > before + 0.2)
    assert world.said() == ["T"]
    with world.follower.paused(pid) as stand:
        assert len(stand.threads) == 3
    os.kill(pid, signal.SIGCONT)
    world.serve_until_ended(pid)
    assert world.said() == ["T", f"p {pid}"]


def test_an_error_in_a_pause(world: World) -> None:
    """Whatever happens to who asked for it, the process goes on."""
    pid = world.start("p")
    world.follower.seize(pid)
    with pytest.raises(ZeroDivisionError), world.follower.paused(pid):
        raise ZeroDivisionError
    world.go()
    world.serve_until_ended(pid)
    assert world.said() == [f"p {pid}"]


def test_an_end_in_a_pause(world: World) -> None:
    """A process that is killed while it stands is kept by nobody, and its end is told as ever."""
    pid = world.start("T2", "w")
    world.follower.seize(pid)
    world.go()
    world.serve(lambda: world.said() == ["T"])
    with world.follower.paused(pid):
        os.kill(pid, signal.SIGKILL)
    world.serve_until_ended(pid)
    assert world.owner.of("ended") == [(pid, signal.SIGKILL)] and not world.follower.follows(pid)
