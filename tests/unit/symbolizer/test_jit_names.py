import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbolizer import jit_names
from symbolizer.jit_names import JitNames
from symbolizer.jit_symbol import jit_symbol
from symbolizer.perf_map import PerfMap

TICKS = os.sysconf("SC_CLK_TCK")
BOOTED = 1_700_000_000
MAP = b"7f0000001000 40 JS:*work /srv/a.js:12:7\n7f0000002000 20 py::f:/srv/f.py\n"


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeProcess:
    """A /proc/PID of files, with a root folder that holds tmp/perf-12.map."""

    def __init__(self, folder: Path, uid: int = 0, started: int = 1000) -> None:
        self.folder = folder / "4321"
        self.tmp = self.folder / "root" / "tmp"
        self.tmp.mkdir(parents=True)
        self.map = self.tmp / "perf-12.map"
        (folder / "stat").write_text(f"cpu 1 2\nbtime {BOOTED}\n")
        self.identify(uid, started)
        self.clock = Clock()

    def identify(self, uid: int = 0, started: int = 1000) -> None:
        (self.folder / "status").write_text(f"Name:\tx: y\nUid:\t1\t{uid}\t2\t{uid + 5}\nNSpid:\t4321\t12\n")
        (self.folder / "stat").write_text(f"4321 (a ) b) S {' '.join('0' for _ in range(18))} {started * TICKS} 0\n")

    def names(self) -> JitNames:
        return JitNames(self.folder, self.clock)


@pytest.fixture
def process(tmp_path: Path) -> FakeProcess:
    return FakeProcess(tmp_path)


def test_the_file_is_the_one_of_the_processs_own_number_and_root(process: FakeProcess) -> None:
    process.map.write_bytes(MAP)
    names = process.names()
    assert names.find(0x7F0000001004) == ("JS:*work /srv/a.js:12:7", 4)
    assert (names.path, names.why_not) == ("/tmp/perf-12.map", None)


def test_a_process_without_such_a_file_is_nothing_to_explain(process: FakeProcess) -> None:
    names = process.names()
    assert (names.find(0x1000), names.why_not) == (None, None)
    process.map.write_bytes(MAP)
    process.clock.now += 1
    assert names.find(0x7F0000001000) is not None


def test_what_was_written_since_is_read_but_not_looked_for_at_every_address(process: FakeProcess) -> None:
    process.map.write_bytes(MAP)
    names = process.names()
    with open(process.map, "ab") as file:
        file.write(b"9000 10 new\n")
    process.clock.now += 0.09
    assert names.find(0x9000) is None
    process.clock.now += 0.02
    assert names.find(0x9000) == ("new", 0)
    table = names.table
    process.clock.now += 1
    assert names.find(0x9000) == ("new", 0)
    assert names.table is table


def test_a_reading_that_takes_long_is_not_repeated_at_once(process: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    process.map.write_bytes(MAP)
    names = process.names()
    parse = PerfMap.parse

    def slow(data: bytes) -> PerfMap:
        process.clock.now += 3
        return parse(data)

    monkeypatch.setattr(PerfMap, "parse", slow)
    process.map.write_bytes(MAP + b"9000 10 new\n")
    process.clock.now += 1
    assert names.find(0x9000) == ("new", 0)
    process.map.write_bytes(MAP + b"9000 10 newer\n")
    process.clock.now += 29
    assert names.find(0x9000) == ("new", 0)
    process.clock.now += 2
    assert names.find(0x9000) == ("newer", 0)


@pytest.mark.parametrize("lost", ["process", "file", "root"])
def test_names_outlive_the_process_and_the_file(process: FakeProcess, lost: str) -> None:
    process.map.write_bytes(MAP)
    names = process.names()
    if lost == "file":
        process.map.unlink()
    else:
        shutil.rmtree(process.folder if lost == "process" else process.folder / "root")
    process.clock.now += 1
    assert names.find(0x7F0000001000) is not None
    assert names.why_not is None


def test_another_process_with_the_same_number_names_nothing(process: FakeProcess) -> None:
    process.map.write_bytes(MAP)
    names = process.names()
    process.identify(started=2000)
    process.map.write_bytes(b"9000 10 stranger\n")
    process.clock.now += 1
    assert names.find(0x9000) is None
    assert names.find(0x7F0000001000) is not None


def test_a_file_left_by_an_earlier_process_of_that_number_is_not_believed(process: FakeProcess) -> None:
    process.map.write_bytes(MAP)
    os.utime(process.map, (BOOTED + 990, BOOTED + 990))
    names = process.names()
    assert names.find(0x7F0000001000) is None
    assert names.why_not == "/tmp/perf-12.map was written before the process started, so its names are not believed."
    os.utime(process.map, (BOOTED + 1000, BOOTED + 1000))
    process.clock.now += 1
    assert names.find(0x7F0000001000) is not None
    assert names.why_not is None


@pytest.mark.parametrize(("owner", "believed"), [(0, True), (1000, True), (1005, True), (1, False), (2, False), (999, False)])
def test_the_file_must_belong_to_the_user_the_process_acts_as_or_to_root(tmp_path: Path, owner: int, believed: bool) -> None:
    process = FakeProcess(tmp_path, uid=1000)
    process.map.write_bytes(MAP)
    os.chown(process.map, owner, owner)
    names = process.names()
    assert (names.find(0x7F0000001000) is not None) is believed
    reason = f"/tmp/perf-12.map belongs to user {owner}, who is neither the process's user nor root, so its names are not believed."
    assert names.why_not == (None if believed else reason)


@pytest.mark.parametrize(("mode", "believed"), [(0o600, True), (0o644, True), (0o664, False), (0o602, False)])
def test_a_file_that_others_may_write_is_not_believed(process: FakeProcess, mode: int, believed: bool) -> None:
    process.map.write_bytes(MAP)
    process.map.chmod(mode)
    names = process.names()
    assert (names.find(0x7F0000001000) is not None) is believed
    assert names.why_not == (None if believed else "/tmp/perf-12.map is writable by others, so its names are not believed.")


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_what_is_no_regular_file_is_neither_read_nor_waited_for(process: FakeProcess, kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        process.map.mkdir()
    elif kind == "fifo":
        os.mkfifo(process.map)
    else:
        (process.tmp / "real").write_bytes(MAP)
        process.map.symlink_to("real")
    names = process.names()
    assert names.find(0x7F0000001000) is None
    what = "is a symbolic link" if kind == "link" else "is not a regular file"
    assert names.why_not == f"/tmp/perf-12.map {what}, so its names are not believed."


def test_a_link_in_the_processs_tree_leads_to_its_own_files_and_never_to_ours(process: FakeProcess, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "perf-12.map").write_bytes(MAP)
    for target in (str(tmp_path / "host"), "../../../host"):
        process.tmp.rmdir() if not process.tmp.is_symlink() else process.tmp.unlink()
        process.tmp.symlink_to(target)
        assert process.names().find(0x7F0000001000) is None
    process.tmp.unlink()
    process.tmp.symlink_to("/var/tmp")
    (process.folder / "root" / "var" / "tmp").mkdir(parents=True)
    (process.folder / "root" / "var" / "tmp" / "perf-12.map").write_bytes(MAP)
    assert process.names().find(0x7F0000001000) is not None


def test_of_a_file_that_is_too_long_the_newest_names_are_read_and_that_is_said(
    process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_names, "LONGEST_FILE", len(MAP) + 3)
    process.map.write_bytes(b"9000 10 old\n" + MAP)
    names = process.names()
    assert names.find(0x9000) is None
    assert names.find(0x7F0000001000) is not None
    assert names.why_not is not None
    assert "only its newest names are known" in names.why_not
    process.clock.now += 1
    names.find(0)
    assert names.why_not is not None


def test_a_process_that_never_was_names_nothing(tmp_path: Path) -> None:
    names = JitNames(tmp_path / "77")
    assert (names.find(0x1000), names.path, names.why_not) == (None, "/tmp/perf-77.map", None)


@contextmanager
def running(folder: Path, *command: str) -> Iterator[int]:
    """Give the number of a program that runs in the folder, has written a line, and then waits."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()
        Path(f"/tmp/perf-{child.pid}.map").unlink(missing_ok=True)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_a_real_nodes_functions_are_named(tmp_path: Path) -> None:
    program = "function work(n) { let s = 0; for (let i = 0; i < n; i++) s += i % 7; return s }\n"
    program += "for (let i = 0; i < 3000; i++) work(1000); console.log('ready'); setInterval(() => {}, 1000)"
    with running(tmp_path, "node", "--perf-basic-prof", "-e", program) as pid:
        clock = Clock()
        names = JitNames(Path(f"/proc/{pid}"), clock)
        assert (names.why_not, names.table.skipped) == (None, 0)
        assert len(names.table) > 1000
        found = [names.find(int(start)) for start in names.table.start]
        symbols = {jit_symbol(each[0]) for each in found if each is not None}
        assert any(symbol.function == "work" and symbol.line == 1 for symbol in symbols)
    clock.now += 1
    assert names.find(int(names.table.start[0])) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_look_into_the_process_is_told_so() -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(write_end, str(JitNames(Path("/proc/1")).why_not).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with open(read_end) as answer:
        assert answer.read() == "/tmp/perf-1.map could not be opened: Permission denied."


def test_another_process_is_read_through_the_real_proc(tmp_path: Path) -> None:
    program = "import os, sys\nwith open(f'/tmp/perf-{os.getpid()}.map', 'w') as f: f.write('1000 10 own name\\n')\n"
    with running(tmp_path, sys.executable, "-c", program + "print('ready', flush=True); sys.stdin.read()") as pid:
        names = JitNames(Path(f"/proc/{pid}"))
        assert (names.find(0x1008), names.why_not, names.path) == (("own name", 8), None, f"/tmp/perf-{pid}.map")
