import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbolizer import perf_map
from symbolizer.perf_map import JitNames, JitSymbol, PerfMap, jit_symbol

TICKS = os.sysconf("SC_CLK_TCK")
BOOTED = 1_700_000_000
MAP = b"7f0000001000 40 JS:*work /srv/a.js:12:7\n7f0000002000 20 py::f:/srv/f.py\n"

# One of each kind, as node 20.20 (--perf-basic-prof), JDK 17 (-XX:+DumpPerfMapAtExit) and Python 3.13 (-X perf) wrote them.
REAL = b"""\
18c4000 300 Builtin:DeoptimizationEntry_Eager
7f99e0005e40 448 RegExp:a+b(c|d)
7f99e0005b80 260 JS:*step /tmp/jit/a.js:1:44
0x00007f113497f380 0x00000000000001d0 I2C/C2I adapters
0x00007f112d40e540 0x00000000000001d0 void java.lang.String.<init>(byte[], byte)
7f0af79e3360 b py::<module>:<frozen site>
"""


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


def names_of(data: bytes, *addresses: int) -> list[str | None]:
    table = PerfMap.parse(data)
    return [found[0] if (found := table.find(address)) else None for address in addresses]


def test_lines_as_runtimes_write_them_are_found_from_their_first_to_their_last_byte() -> None:
    table = PerfMap.parse(REAL)
    assert (len(table), table.skipped) == (6, 0)
    for line in REAL.decode().splitlines():
        start, size, name = line.split(" ", 2)
        first, length = int(start, 16), int(size, 16)
        assert table.find(first) == (name, 0)
        assert table.find(first + length - 1) == (name, length - 1)
        assert table.find(first - 1) is None
        assert table.find(first + length) is None


@pytest.mark.parametrize(
    "line",
    [
        b"", b"1000", b"1000 10", b"1000 10 ", b"1000 10  ", b"xyz 10 bad", b"1000 xyz bad", b" 1000 10 bad", b"1000 0 empty",
        b"0x 10 bad", b"1000 0x bad", b"1000  10 bad", b"11112222333344445 10 too long", b"ffffffffffffff00 101 beyond the end",
        b"1000 10 " + b"x" * 4096, b"1000-10 bad", b"1000 10\0bad",
    ],
)  # fmt: skip
def test_a_bad_line_is_skipped_counted_and_harms_no_other(line: bytes) -> None:
    table = PerfMap.parse(b"500 10 before\n" + line + b"\n2000 10 after\n")
    assert [table.find(address) for address in (0x500, 0x1000, 0x2000)] == [("before", 0), None, ("after", 0)]
    assert table.skipped == 1


def test_a_last_line_that_is_being_written_is_ignored() -> None:
    assert names_of(b"1000 10 whole\n2000 10 hal", 0x1000, 0x2000) == ["whole", None]
    assert names_of(b"2000 10 hal", 0x2000) == [None]


def test_the_newest_line_wins_where_code_took_the_room_of_other_code() -> None:
    data = b"1000 100 old\n1040 20 inner\n10f0 20 tail\n"
    assert names_of(data, 0x1000, 0x103F, 0x1040, 0x105F, 0x1060, 0x10EF, 0x10F0, 0x110F, 0x1110) == [
        "old", "old", "inner", "inner", "old", "old", "tail", "tail", None,
    ]  # fmt: skip
    assert PerfMap.parse(data).find(0x1060) == ("old", 0x60)
    assert names_of(b"1040 20 inner\n1000 100 covers all\n", 0x1050) == ["covers all"]
    assert names_of(b"1000 10 first\n1000 10 second\n1000 10 third\n", 0x1008) == ["third"]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=40))
def test_overlaps_are_resolved_as_if_every_line_were_painted_over_the_ones_before(ranges: list[tuple[int, int]]) -> None:
    painted: dict[int, tuple[str, int]] = {}
    for number, (start, size) in enumerate(ranges):
        painted |= {address: (f"f{number}", address - start) for address in range(start, start + size)}
    table = PerfMap.parse(b"".join(b"%x %x f%d\n" % (start, size, n) for n, (start, size) in enumerate(ranges)))
    assert {address: found for address in range(100) if (found := table.find(address))} == painted
    assert np.all(table.end[:-1] <= table.start[1:])


def test_lines_are_the_same_wherever_a_block_of_the_parser_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"%x 8 name%d\n" % (0x1000 + number * 8, number) for number in range(50)) + b"y" * 200 + b"\n"
    data += b"1010 20 newer\n"
    whole = PerfMap.parse(data)
    for block in (20, 21, 33, 64, 100):
        monkeypatch.setattr(perf_map, "_BLOCK", block)
        pieces = PerfMap.parse(data)
        assert [pieces.find(0x1000 + n) for n in range(400)] == [whole.find(0x1000 + n) for n in range(400)]
        assert pieces.skipped == 1


def test_of_too_many_lines_the_newest_are_kept_and_the_rest_counted() -> None:
    table = PerfMap.parse(b"".join(b"%x 8 name%d\n" % (0x1000 + number * 8, number) for number in range(50)), most=10)
    assert (len(table), table.skipped) == (10, 40)
    assert table.find(0x1000) is None
    assert table.find(0x1000 + 49 * 8) == ("name49", 0)


def test_a_name_cannot_disturb_the_terminal() -> None:
    assert names_of("1000 10 \x1b[31mred \u202e\n".encode() + b"2000 10 caf\xc3\xa9 \xff\r\n", 0x1000, 0x2000) == [
        r"\x1b[31mred \u202e", r"café \xff",
    ]  # fmt: skip


@settings(deadline=500)
@given(st.binary(max_size=400) | st.text("0123456789abcfx \n\t", max_size=400).map(str.encode), st.integers(-2, 2**64 + 2))
def test_garbage_never_raises(data: bytes, address: int) -> None:
    table = PerfMap.parse(data)
    for probe in (address, 0, 2**64 - 1, *table.start[:5].tolist()):
        found = table.find(probe)
        assert found is None or (found[0].isprintable() and found[1] >= 0)


def test_a_hundred_thousand_lines_take_no_noticeable_time() -> None:
    apart = b"".join(b"%x 260 JS:*function%d /srv/app/x%d.js:9:9\n" % (0x7F0000000000 + n * 640, n, n) for n in range(100_000))
    began = time.process_time()
    assert len(PerfMap.parse(apart)) == 100_000
    assert time.process_time() - began < 1  # 0.05 s here; other tests may share the processor
    overlapping = b"".join(b"%x 400 f%d\n" % (0x7F0000000000 + n * 7919 % 100_000 * 640, n) for n in range(100_000))
    began = time.process_time()
    assert len(PerfMap.parse(overlapping)) >= 100_000
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("LazyCompile:*work /srv/a.js:12:7", JitSymbol("work", "/srv/a.js", 12)),
        ("LazyCompile:~work /srv/a.js:12", JitSymbol("work", "/srv/a.js", 12)),
        ("JS:^step /tmp/jit/a.js:1:44", JitSymbol("step", "/tmp/jit/a.js", 1)),
        ("JS:+'step /tmp/jit/a.js:1:44", JitSymbol("step", "/tmp/jit/a.js", 1)),
        ("JS:work /srv/a.js:3:1", JitSymbol("work", "/srv/a.js", 3)),
        ("JS:~ /tmp/jit/a.js:5:21", JitSymbol("<anonymous>", "/tmp/jit/a.js", 5)),
        ("JS:~Module._initPaths node:internal/modules/cjs/loader:1733:29", JitSymbol("Module._initPaths", "node:internal/modules/cjs/loader", 1733)),
        ("Script:~ file:///tmp/jit/[eval1]:1:1", JitSymbol("<anonymous>", "file:///tmp/jit/[eval1]", 1)),
        ("JS:~vmf evalmachine.<anonymous>:1:14", JitSymbol("vmf", "evalmachine.<anonymous>", 1)),
        # Blanks in names and files.
        ("JS:*get prop /tmp/sp ace/b c.js:1:18", JitSymbol("get prop", "/tmp/sp ace/b c.js", 1)),
        ("JS:~vmf2 my file.js:1:15", JitSymbol("vmf2 my file.js:1:15")),
        ("Eval:~ /tmp/jit/sp ace/b c.js:1:1", JitSymbol("<anonymous>", "/tmp/jit/sp ace/b c.js", 1)),
        # Code made from a string has no file.
        ("JS:~evd :1:14", JitSymbol("evd")),
        ("Eval:~ :1:1", JitSymbol("<anonymous>")),
        ("JS:~", JitSymbol("JS:~")),
        ("Function:~plain", JitSymbol("plain")),
        # V8's own code says so.
        ("Builtin:ArrayPush", JitSymbol("Builtin:ArrayPush")),
        ("BytecodeHandler:LdaZero", JitSymbol("BytecodeHandler:LdaZero")),
        ("RegExp:a+b:1:2", JitSymbol("RegExp:a+b:1:2")),
        ("py::f.<locals>.<genexpr>:/usr/lib/python3.13/a b:c.py", JitSymbol("f.<locals>.<genexpr>", "/usr/lib/python3.13/a b:c.py")),
        ("py::<module>:<frozen site>", JitSymbol("<module>", "<frozen site>")),
        ("py::", JitSymbol("py::")),
        ("void T.main(java.lang.String[])", JitSymbol("void T.main(java.lang.String[])")),
        ("Lpkg/Class;::method", JitSymbol("Lpkg/Class;::method")),
        ("instance void [app] N.C::M(int32)[Tier0]", JitSymbol("instance void [app] N.C::M(int32)[Tier0]")),
    ],
)  # fmt: skip
def test_a_runtimes_name_gives_function_file_and_line_where_they_are_certain(name: str, symbol: JitSymbol) -> None:
    assert jit_symbol(name) == symbol


@given(st.text(max_size=60) | st.text(":~* /a1", max_size=60).map("JS:".__add__))
def test_every_name_gives_some_function(name: str) -> None:
    symbol = jit_symbol(name)
    assert (symbol.function != "") == (name != "")


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
    monkeypatch.setattr(perf_map, "LONGEST_FILE", len(MAP) + 3)
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
