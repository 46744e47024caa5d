"""--live on a terminal: how it begins, ends and fails, and what of it other commands pay for."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.tracer.live import made_up
from tracer.cli.live import Feed, require_screen
from tracer.errors import ExitCode, UsageError
from tracer.listener import Listener
from tracer.recording import load
from tracer.settings import Settings

ROOT = Path(__file__).resolve().parents[4]
PATIENCE = 30.0
#: Of xterm: the other screen, the cursor, the mouse.
ENTERS, LEAVES, SHOWS_CURSOR, NO_MOUSE = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *words: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._slave = slave
        self.before = termios.tcgetattr(slave)
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environment = {**inherited, "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave,
                                        env=environment, start_new_session=True)
        self.seen = b""

    def until(self, wanted: bytes) -> None:
        """Read until something was written."""
        end = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < end and self._read(), self.seen[-3000:]

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Return the exit code; read what was written till then."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen[-3000:]
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    @property
    def left(self) -> str:
        """What was written after the screen was restored, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?<>=]*[a-z]|\r", "", self.seen.rpartition(LEAVES)[2].decode(), flags=re.I)

    def check_clean(self) -> None:
        """Assert that the terminal is as it was."""
        assert termios.tcgetattr(self._slave) == self.before
        assert self.seen.rfind(LEAVES) > self.seen.rfind(ENTERS) >= 0
        assert self.seen.rfind(SHOWS_CURSOR) > self.seen.rfind(b"\x1b[?25l")
        assert self.seen.rfind(NO_MOUSE) > self.seen.rfind(b"\x1b[?1003h")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._master)
        os.close(self._slave)

    def _read(self, patience: float = PATIENCE) -> bytes:
        if not select.select([self._master], [], [], patience)[0]:
            return b""
        found = os.read(self._master, 65536)
        self.seen += found
        return found


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[..., Terminal]:
    """Return a function that shows a made-up trace on a terminal of its own."""
    def start(*words: str, **environment: str) -> Terminal:
        terminal = Terminal("-m", "tests.unit.tracer.live.made_up", *words, **environment)
        request.addfinalizer(terminal.close)
        return terminal

    return start


def test_quit(show: Callable[..., Terminal]) -> None:
    """q restores the screen, then a last report as text stands on the terminal, and the exit code is 0."""
    terminal = show("goes on")
    terminal.until(b"leak_here")
    terminal.send("q")
    assert terminal.wait() == ExitCode.DONE
    terminal.check_clean()
    assert "leak_here" in terminal.left and "main" in terminal.left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(show: Callable[..., Terminal], number: signal.Signals) -> None:
    """A signal ends it in the same way."""
    terminal = show("goes on")
    terminal.until(b"leak_here")
    terminal.process.send_signal(number)
    assert terminal.wait() == ExitCode.DONE
    terminal.check_clean()
    assert "leak_here" in terminal.left


@pytest.mark.parametrize(("how", "said"), [("trace fails", "The trace has stopped: ZeroDivisionError: made up."),
                                           ("view fails", "The live view has stopped: ZeroDivisionError: made up.")])
def test_failures(show: Callable[..., Terminal], how: str, said: str) -> None:
    """When the trace or the view fails, the terminal is as it was, two sentences say why, and the exit code is 3."""
    terminal = show(how)
    assert terminal.wait() == ExitCode.CANNOT_TRACE
    terminal.check_clean()
    lines = terminal.left.strip().splitlines()
    assert len(lines) == 2 and lines[0] == f"leaktrace: {said}" and lines[1].startswith("Trace without --live")


def test_what_cannot_begin_has_no_screen(show: Callable[..., Terminal]) -> None:
    """Where the trace cannot begin, its own two sentences are all that is written."""
    terminal = show("not begun")
    assert terminal.wait() == ExitCode.CANNOT_TRACE
    assert terminal.seen.split() == b"leaktrace: It cannot be. Do something else.".split()


def test_the_targets_end(show: Callable[..., Terminal]) -> None:
    """When the target ends the view says so, and stays until q."""
    terminal = show("ends")
    terminal.until(b"has ended")
    assert terminal.process.poll() is None
    terminal.send("q")
    assert terminal.wait() == ExitCode.DONE
    terminal.check_clean()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "vt100"}])
def test_without_colour(show: Callable[..., Terminal], environment: dict[str, str]) -> None:
    """With NO_COLOR, and on a terminal from before colour, no sequence sets one."""
    terminal = show("goes on", **environment)
    terminal.until(b"leak_here")
    terminal.send("q")
    assert terminal.wait() == ExitCode.DONE
    colours = [code for codes in re.findall(rb"\x1b\[([0-9;]*)m", terminal.seen) for code in codes.split(b";")
               if re.fullmatch(rb"3[0-8]|4[0-8]|9[0-7]|10[0-7]", code)]
    assert colours == []


def test_record(show: Callable[..., Terminal], tmp_path: Path) -> None:
    """--record works beside it, and the recording has what was shown."""
    path = tmp_path / "made.leaktrace"
    terminal = show("goes on", str(path))
    terminal.until(b"records made.leaktrace")
    terminal.send("q")
    assert terminal.wait() == ExitCode.DONE
    report = load(str(path)).report()
    assert report.last and report.findings[0].frames[1].function == "leak_here"


def test_record_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording begun in the middle has the reports from then on; one begun after the end has the last report."""
    monkeypatch.chdir(tmp_path)
    feed = Feed(lambda _: made_up.Session(), Settings(interval=0.25), None)
    feed.start()
    path = feed.record()
    assert path is not None and Path(path).parent == tmp_path
    time.sleep(0.3)
    assert feed.record() is None
    found = load(path)
    assert len(found) >= 2 and not found.report().last
    feed.stop()
    Path(path).unlink()
    assert feed.record() is None
    late = [name for name in os.listdir(tmp_path) if name.endswith(".leaktrace")]
    assert len(late) == 1 and load(late[0]).report().last
    assert any(late[0] in notice for notice in feed.notices)


def test_a_recording_that_cannot_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the trace goes on, the view is told once, and the exit code says that it is not whole."""
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracer.recorder.Recorder.write", full)
    feed = Feed(lambda _: made_up.Session(ends=4), Settings(interval=0.25), str(tmp_path / "made.leaktrace"))
    feed.start()
    feed.stop()
    assert feed.last is not None and feed.last.last and len(feed.notices) == 1
    assert feed.exit_code() == ExitCode.INCOMPLETE


def test_the_trace_has_a_thread_of_its_own() -> None:
    """The session is begun in the thread that its reports are made in: ptrace lets no other one in."""
    begun: list[str] = []

    def begin(_: Listener) -> made_up.Session:
        begun.append(threading.current_thread().name)
        return made_up.Session(ends=2)

    feed = Feed(begin, Settings(interval=0.25), None)
    feed.start()
    feed.stop()
    assert begun == ["trace"] and feed.last is not None and feed.last.last


@pytest.mark.parametrize(("changes", "said"), [
    ({"format": "json"}, "--format json is not"),
    ({"command": ("true",)}, "would both use this terminal"),
    ({}, "needs a terminal"),
])
def test_refusals(changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not go with a full screen is refused as wrong usage, with what to do."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(UsageError, match=said) as caught:
        require_screen(Settings(**changes))  # type: ignore[arg-type]
    assert caught.value.remedy


def test_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads ten screens a second."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda: True)
    with pytest.raises(UsageError, match=r"every 0\.1 s"):
        require_screen(Settings(interval=0.1))


@pytest.mark.parametrize("words", [["--help"], ["report", "--help"], ["kernel", "--help"], ["run", "--help"]])
def test_other_commands_do_not_pay_for_it(words: list[str]) -> None:
    """No other command imports textual."""
    script = ("import sys; from tracer.cli import main; main(sys.argv[1:]); import tracer.cli.console, tracer.cli.live; "
              "sys.exit('textual' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
