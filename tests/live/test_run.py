"""leaktrace run: the command is traced from first to last instruction, and is what it would be without leaktrace."""

from __future__ import annotations

import grp
import json
import os
import pty
import pwd
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, PATIENCE, ROOT, RunningTool, site
from tests.live.test_command import early
from tests.live.test_options import WORDS, run_tool

Build = Callable[..., Path]
#: Often enough to see a race that is lost now and then; and what is done before a release.
RUNS = 200 if LONG else 6
#: Functions that the C runtime has outside main().
OF_RUNTIME = {"__libc_start_call_main", "__libc_start_main", "_start"}


def run(
    *command: str | Path, options: Sequence[str] = (), stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command under leaktrace to its end."""
    return run_tool("run", *options, "--", *map(str, command), stdin=stdin, environment=environment)


def run_to_json(folder: Path, *command: str | Path, options: Sequence[str] = ()) -> tuple[int, dict[str, Any]]:
    """Run a command under leaktrace to its end; return the exit code and the report."""
    path = folder / "report.json"
    answer = run(*command, options=("--format", "json", "--output", str(path), *options))
    assert path.read_text(), answer.stderr
    document: dict[str, Any] = json.loads(path.read_text())
    return answer.returncode, document


def test_a_short_life_is_seen_every_time(build: Build, tmp_path: Path) -> None:
    """A program of a few ms that keeps three blocks is reported with those three and no other, in each of many runs."""
    program = build("run_ends.c")
    found = []
    for _ in range(RUNS):
        code, report = run_to_json(tmp_path, program)
        found.append((code, report["complete"], [(each["bytes"], each["count"], [
            name for frame in each["frames"] if (name := frame["function"]) not in OF_RUNTIME]) for each in report["sites"]]))
    assert found == [(0, True, [(300, 3, ["keeps_three", "main"])])] * RUNS


@pytest.mark.parametrize(("way", "code"), [
    ("return", 0), ("exit", 5), ("_exit", 5), ("exit_group", 5), ("segv", 128 + signal.SIGSEGV),
    ("kill", 128 + signal.SIGKILL), ("abort", 128 + signal.SIGABRT),
])  # fmt: skip
def test_however_it_ends(build: Build, tmp_path: Path, way: str, code: int) -> None:
    """What is outstanding is reported, and the exit code is the command's own, also where no exit handler runs."""
    found, report = run_to_json(tmp_path, build("run_ends.c"), way)
    assert found == code
    assert site(report, "keeps_three").live == (300, 3)


def test_the_first_instructions_are_traced(build: Build, tmp_path: Path) -> None:
    """What a library's constructor and a global object's keep before main() is reported, at their own functions."""
    library = build("live_early.c", "-shared", "-fPIC", name="live_early.so")
    program = build("live_first.cpp", "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    _, report = run_to_json(tmp_path, program)
    assert early(report) == {"library_constructor": (1111, 1), "Early::Early": (2222, 1), "main": (3333, 1)}


def test_nothing_of_leaktrace_on_stdout() -> None:
    """stdin, stdout and stderr are the command's: cat gives back what it gets, to the byte."""
    text = "first\n\tsecond \nlast without an end"
    answer = run("cat", stdin=text)
    assert (answer.stdout, answer.returncode) == (text, 0)
    assert "outstanding" in answer.stderr
    answer = run("sh", "-c", "echo complaint >&2")
    assert answer.stdout == "" and "complaint" in answer.stderr.splitlines()


def test_the_report_goes_to_a_file(tmp_path: Path) -> None:
    """With --output, stderr too is the command's alone."""
    answer = run("sh", "-c", "echo complaint >&2", options=("--output", str(tmp_path / "report")))
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("leaktrace: compiling")]
    assert lines == ["complaint"] and "outstanding" in (tmp_path / "report").read_text()


@pytest.mark.parametrize("words", [("--", "sh", "-c", "echo $0 $1", "-v", "--help"), ("sh", "-c", "echo $0 $1", "-v", "--help")],
                         ids=["behind_dashes", "behind_its_first_word"])
def test_options_behind_the_command_are_its_own(words: tuple[str, ...]) -> None:
    """From the command's first word on, options are not leaktrace's, with -- and without."""
    answer = run_tool("run", *words)
    assert (answer.stdout, answer.returncode) == ("-v --help\n", 0), answer.stderr


# ---- signals and terminals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT])
def test_signals_reach_the_command(build: Build, start: Callable[..., RunningTool], number: signal.Signals) -> None:
    """A signal sent to leaktrace is the command's; leaktrace goes on to report when the command has ended by it."""
    tool = start("--", build("run_signals.c"), str(int(number)))
    tool.out.until(lambda line: line == "ready")
    tool.process.send_signal(number)
    tool.out.until(lambda line: line == f"signal {int(number)}")
    code, said = tool.wait()
    assert code == 9 and "waits_for_signals" in said and "100 bytes in 1 allocation" in said


def test_signals_reach_the_command_from_the_start(build: Build) -> None:
    """A signal that comes while the command is still held is the command's too, and does not end leaktrace."""
    library = build("run_early.c", "-shared", "-fPIC", name="run_early.so")
    program = build("run_signals.c", "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    answer = run(program, str(int(signal.SIGUSR1)))
    assert answer.returncode == 9 and f"signal {int(signal.SIGUSR1)}" in answer.stdout.splitlines(), answer.stderr


class Terminal:
    """A terminal, and a leaktrace that is the leader of its session, as in a terminal's window."""

    def __init__(self, *words: str, stdin: str | None = None) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(ROOT)
                if stdin is not None:
                    os.dup2(os.open(stdin, os.O_RDONLY), 0)
                os.execv(sys.executable, [*WORDS, *words])
            finally:
                os._exit(127)
        self.text = ""

    def until(self, wanted: str) -> None:
        """Read what is shown up to a text."""
        while wanted not in self.text:
            assert self._read(), self.text

    def rest(self) -> int:
        """Read to the end; return the exit code."""
        while self._read():
            pass
        return self._reap()

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        # The command, if it is still there, is hung up on.
        os.close(self.fd)

    def _reap(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def _read(self) -> bool:
        assert select.select([self.fd], [], [], PATIENCE)[0], f"nothing came for {PATIENCE} s: {self.text}"
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            # EIO: nobody has the terminal open any more.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    """Return a function that starts leaktrace in a terminal of its own, which is closed with the test."""
    terminals: list[Terminal] = []

    def begin(*words: str, stdin: str | None = None) -> Terminal:
        terminals.append(Terminal(*words, stdin=stdin))
        return terminals[-1]

    try:
        yield begin
    finally:
        for terminal in terminals:
            terminal.close()


def test_a_terminal_stays_a_terminal(build: Build, open_terminal: Callable[..., Terminal]) -> None:
    """The command's streams are the terminal, and Ctrl-C typed there reaches it once, and does not end leaktrace."""
    terminal = open_terminal("run", "--", str(build("run_signals.c")), str(int(signal.SIGQUIT)))
    terminal.until("ready")
    assert "terminals 111" in terminal.text
    os.write(terminal.fd, b"\x03")
    terminal.until("signal 2\r\n")
    os.write(terminal.fd, b"\x1c")
    assert terminal.rest() == 9
    assert (terminal.text.count("signal 2\r\n"), terminal.text.count("signal 3\r\n")) == (1, 1)
    assert "waits_for_signals" in terminal.text


def test_ctrl_c_comes_once_where_the_input_is_a_file(build: Build, open_terminal: Callable[..., Terminal]) -> None:
    """`leaktrace run program < file` in a terminal: the terminal has sent Ctrl-C to the command, leaktrace does not again."""
    terminal = open_terminal("run", "--", str(build("run_signals.c")), str(int(signal.SIGUSR1)), stdin="/dev/null")
    terminal.until("ready")
    assert "terminals 011" in terminal.text
    for _ in range(20):
        # leaktrace gets it at the same time, and passes on what comes after in their order.
        os.write(terminal.fd, b"\x03")
        terminal.until("signal 2\r\n")
        os.kill(terminal.pid, signal.SIGUSR2)
        terminal.until(f"signal {int(signal.SIGUSR2)}\r\n")
        assert terminal.text.count("signal 2\r\n") == 1, terminal.text
        terminal.text = ""
    os.kill(terminal.pid, signal.SIGUSR1)
    assert terminal.rest() == 9


# ---- under sudo


def an_account() -> pwd.struct_passwd:
    """Return the account, other than root, that is in most groups."""
    accounts = [each for each in pwd.getpwall() if each.pw_uid > 0]
    return max(accounts, key=lambda each: len({group.gr_gid for group in grp.getgrall() if each.pw_name in group.gr_mem}))


ACCOUNT = an_account()
SUDO = {"SUDO_UID": str(ACCOUNT.pw_uid), "SUDO_GID": str(ACCOUNT.pw_gid), "SUDO_USER": ACCOUNT.pw_name, "HOME": "/root",
        "SUDO_COMMAND": "/usr/bin/leaktrace"}
WHO = "id -u; id -g; id -G; echo $HOME; echo $USER; env | grep ^SUDO_; true"


def test_under_sudo_the_command_is_the_users() -> None:
    """Under sudo's variables the command has user, groups and home of who typed it, and no variable of sudo's."""
    answer = run("sh", "-c", WHO, environment=SUDO)
    uid, gid, groups, home, user, *of_sudo = answer.stdout.splitlines()
    assert (uid, gid, home, user, of_sudo) == (str(ACCOUNT.pw_uid), str(ACCOUNT.pw_gid), ACCOUNT.pw_dir, ACCOUNT.pw_name, [])
    assert set(map(int, groups.split())) == set(os.getgrouplist(ACCOUNT.pw_name, ACCOUNT.pw_gid))
    assert answer.returncode == 0 and "outstanding" in answer.stderr


def test_as_root_keeps_root() -> None:
    """--as-root leaves the command with root's rights and environment."""
    answer = run("sh", "-c", "id -u; echo $HOME", options=("--as-root",), environment=SUDO)
    assert answer.stdout.splitlines() == ["0", "/root"]


def test_sudos_own_environment_is_the_users(build: Build) -> None:
    """What sudo took from the environment is in that of sudo itself: the command gets it whole."""
    answer = subprocess.run(
        [build("run_sudo.c", name="sudo"), str(ACCOUNT.pw_uid), str(ACCOUNT.pw_gid), ACCOUNT.pw_name, *WORDS, "run", "--",
         "sh", "-c", "id -u; echo $HOME; echo $LIVE_TEST_WORD; echo $SUDO_USER."],
        env={**os.environ, "HOME": "/home/of/user", "LIVE_TEST_WORD": "here"}, cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert answer.stdout.splitlines() == [str(ACCOUNT.pw_uid), "/home/of/user", "here", "."], answer.stderr


def test_outputs_belong_to_the_user(tmp_path: Path) -> None:
    """Files that leaktrace makes for a user of sudo are that user's."""
    paths = {option: tmp_path / option[2:] for option in ("--output", "--junit", "--sarif")}
    options = [word for option, path in paths.items() for word in (option, str(path))]
    run("true", options=options, environment=SUDO)
    assert [(path.stat().st_uid, path.stat().st_gid) for path in paths.values()] == [(ACCOUNT.pw_uid, ACCOUNT.pw_gid)] * 3
    assert all(path.stat().st_size for path in paths.values())


def test_what_was_there_keeps_its_owner(tmp_path: Path) -> None:
    """An --output that exists, as /dev/null does, is written and not given to the user."""
    there, device = tmp_path / "there", tmp_path / "null"
    there.touch()
    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
    run("true", options=("--output", str(device), "--junit", str(there)), environment=SUDO)
    assert (device.stat().st_uid, there.stat().st_uid) == (0, 0) and there.stat().st_size


# ---- other programs


def test_exec_begins_again(build: Build, start: Callable[..., RunningTool]) -> None:
    """`sh -c 'exec program'`: the shell's blocks are dropped, which is said, and the program's are reported with names."""
    tool = start("--", "sh", "-c", f"exec {build('run_steps.c')} 2")
    tool.out.until(lambda line: line == "ready")
    said = tool.err.until(lambda line: "ran another program" in line)[-1]
    assert re.search(r"\d+ blocks of the old one \(\d+ bytes\) are gone and no longer counted", said)
    tool.go()
    code, said = tool.wait()
    assert code == 0 and re.search(r": 2000 bytes in 2 allocations from [12] sites? ", said), said
    assert "keeps_one" in said and "dash" not in said and "bash" not in said


@pytest.mark.alone
def test_exec_of_a_short_life(build: Build, tmp_path: Path) -> None:
    """A program that ends at once after exec has its names too."""
    code, report = run_to_json(tmp_path, "sh", "-c", f"exec {build('run_ends.c')}")
    assert code == 0 and (report["totals"]["live_bytes"], report["totals"]["live_count"]) == (300, 3)
    assert site(report, "keeps_three").live == (300, 3), report["sites"]


@pytest.mark.parametrize("options", [(), ("--follow-forks",)])
def test_a_library_that_is_unloaded_at_once(build: Build, tmp_path: Path, options: Sequence[str]) -> None:
    """Its functions have their names, though it is gone before anybody was told that it came."""
    library = build("run_unloads_library.c", "-shared", "-fPIC", name="run_unloads_library.so")
    code, report = run_to_json(tmp_path, build("run_unloads.c"), str(library), options=options)
    assert code == 0 and site(report, "lose_from_library").live == (600, 12), report["sites"]
    assert not report["losses"]


def test_the_report_is_about_the_last_program(build: Build, start: Callable[..., RunningTool]) -> None:
    """After exec, a report is about the program that then ran, by name, and not about the shell that began it."""
    tool = start("--", "sh", "-c", f"exec {build('run_steps.c')} 2")
    tool.out.until(lambda line: line == "ready")
    tool.err.until(lambda line: "ran another program" in line)
    tool.go()
    code, said = tool.wait()
    assert code == 0 and re.search(r"^run_steps \(pid \d+\): ", said, re.MULTILINE), said


def test_a_command_that_leaves_a_process_is_said_to(build: Build, start: Callable[..., RunningTool]) -> None:
    """A command that daemonizes is reported on up to there, and a sentence names the process that it left."""
    tool = start("--", build("run_leaves.c"))
    left = tool.out.until(lambda line: line.startswith("left "))[-1].split()[1]
    code, said = tool.wait()
    assert code == 0 and "keeps_before_leaving" in said
    (sentence,) = [line for line in said.splitlines() if "left" in line and "running" in line]
    assert re.search(r"\b1 process", sentence) and sentence.endswith(left) and "not traced" in sentence
    os.kill(int(left), 0)


def test_a_command_that_leaves_nothing_is_not_said_to(build: Build) -> None:
    """Processes that the command waited for are not left, nor are those that work for leaktrace."""
    answer = run("sh", "-c", f"{build('run_ends.c')}; true")
    assert answer.returncode == 0 and "running" not in answer.stderr
