"""A command is held at its exec, and its end is known, whoever waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.tracer.attach.conftest import end, status_of
from tracer.attach import ptrace
from tracer.attach.ptrace import Event
from tracer.attach.spawn import HeldCommand
from tracer.errors import CannotTrace

pytestmark = pytest.mark.usefixtures("within_limit")
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def hold() -> Iterator[Callable[..., HeldCommand]]:
    """Return a function that starts a command held."""
    made: list[HeldCommand] = []

    def start(*words: str) -> HeldCommand:
        made.append(HeldCommand(words))
        return made[-1]

    yield start
    for command in made:
        if command.status is None:
            end(command.pid)


def let_go(command: HeldCommand) -> None:
    ptrace.request(ptrace.DETACH, command.pid)


def until_state(pid: int, *states: str) -> None:
    while status_of(pid, "State") not in states:
        time.sleep(0.001)


def test_held_at_its_exec(hold: Callable[..., HeldCommand], tmp_path: Path) -> None:
    """The process is the command already, and nothing of it has run: not even the loader has mapped a library."""
    command = hold("touch", str(tmp_path / "made"))
    assert os.readlink(f"/proc/{command.pid}/exe").endswith(("touch", "coreutils", "busybox"))
    assert "libc" not in Path(f"/proc/{command.pid}/maps").read_text()
    time.sleep(0.02)
    assert status_of(command.pid, "State") == "t" and not (tmp_path / "made").exists()
    let_go(command)
    assert command.wait() == 0 and (tmp_path / "made").exists()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
def test_its_end(hold: Callable[..., HeldCommand], script: str, code: int) -> None:
    """The exit code is that which a shell gives, however often it is asked for."""
    command = hold("sh", "-c", script)
    let_go(command)
    assert (command.wait(), command.wait()) == (code, code)


def test_there_is_no_such_command() -> None:
    """What cannot be found is said by name, before anything is started."""
    with pytest.raises(CannotTrace, match="no command 'no-such-command-at-all'"):
        HeldCommand(["no-such-command-at-all"])


def test_a_command_that_cannot_be_executed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that the kernel does not take is said not to have started, with its reason, and leaves no process."""
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x7fELF" + bytes(60))
    junk.chmod(0o755)
    with pytest.raises(CannotTrace, match="junk' could not be started"):
        HeldCommand([str(junk)])
    assert "Exec format error" in capfd.readouterr().err
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_script(hold: Callable[..., HeldCommand], tmp_path: Path) -> None:
    """The kernel executes its interpreter in the same exec."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 5\n")
    script.chmod(0o755)
    command = hold(str(script))
    let_go(command)
    assert command.wait() == 5


def test_a_command_that_is_held_can_be_ended(hold: Callable[..., HeldCommand]) -> None:
    """One that is not wanted after all is gone at once, without having run; to end it twice is no error."""
    command = hold("sleep", "60")
    command.kill()
    assert command.wait() == 128 + signal.SIGKILL and not Path(f"/proc/{command.pid}").exists()
    command.kill()
    command.send(signal.SIGTERM)


def test_a_command_that_runs_can_be_ended(hold: Callable[..., HeldCommand]) -> None:
    """So is one that was let go."""
    command = hold("sleep", "60")
    let_go(command)
    command.kill()
    assert command.status == signal.SIGKILL


def test_poll(hold: Callable[..., HeldCommand]) -> None:
    """Its end is noticed once it has come, and not waited for."""
    command = hold("sh", "-c", "exit 3")
    command.poll()
    assert command.status is None
    let_go(command)
    until_state(command.pid, "Z")
    command.poll()
    assert command.status == 3 << 8
    command.poll()
    assert command.wait() == 3


def test_poll_takes_no_stop(hold: Callable[..., HeldCommand]) -> None:
    """Where the command has stopped, whoever follows it must see that; polling leaves it there."""
    command = hold("sleep", "60")
    ptrace.request(ptrace.SYSCALL, command.pid)
    # Not the look of next_stop(), which this test is about as well.
    os.waitid(os.P_PID, command.pid, os.WSTOPPED | os.WNOWAIT)
    command.poll()
    stop = ptrace.next_stop()
    assert command.status is None and stop is not None and (stop.tid, stop.signal) == (command.pid, ptrace.SYSCALL_STOP)


def test_an_end_that_somebody_else_took(hold: Callable[..., HeldCommand]) -> None:
    """Whoever follows the command has waited for it: polling does not fail."""
    command = hold("true")
    let_go(command)
    os.waitpid(command.pid, 0)
    command.poll()
    assert command.status is None
    command.status = 0


def test_signals_that_python_ignores(hold: Callable[..., HeldCommand]) -> None:
    """The command does not inherit that Python ignores SIGPIPE."""
    command = hold("sh", "-c", "kill -PIPE $$; exit 1")
    let_go(command)
    assert command.wait() == 128 + signal.SIGPIPE


def test_it_outlives_leaktrace_once_it_is_let_go(hold: Callable[..., HeldCommand]) -> None:
    """What would have killed it with its starter is taken back before it runs."""
    prctl = "import ctypes as c; n = c.c_int(9); c.CDLL(None).prctl(2, c.byref(n), 0, 0, 0); raise SystemExit(n.value)"
    command = hold(sys.executable, "-c", prctl)
    let_go(command)
    assert command.wait() == 0


def test_it_does_not_outlive_leaktrace_where_it_is_held() -> None:
    """If leaktrace dies before the command has begun, it never begins: there is nobody to run it for."""
    script = ("import os; from tracer.attach.spawn import HeldCommand; "
              "print(HeldCommand(['sleep', '60']).pid, flush=True); os._exit(0)")
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    until_state(int(answer.stdout), "", "Z")


def test_a_command_of_a_debugger_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be seized that is said, and the command, which has not begun, is ended."""
    started: list[int] = []
    make = ptrace.request

    def refuse(kind: int, tid: int, data: int = 0, address: int = 0) -> int:
        if kind != ptrace.SEIZE:
            return make(kind, tid, data, address)
        started.append(tid)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(ptrace, "request", refuse)
    with pytest.raises(CannotTrace, match="cannot be held: Operation not permitted") as caught:
        HeldCommand(["sleep", "60"])
    assert "CAP_SYS_PTRACE" in caught.value.remedy and not Path(f"/proc/{started[0]}").exists()


def test_events_before_its_exec(hold: Callable[..., HeldCommand]) -> None:
    """It is the exec that it is held at, not a stop before it."""
    command = hold("sleep", "60")
    assert ptrace.next_stop() is None
    ptrace.request(ptrace.INTERRUPT, command.pid)
    ptrace.request(ptrace.CONT, command.pid)
    until_state(command.pid, "t")
    stop = ptrace.next_stop()
    assert stop is not None and stop.event is Event.STOP
