"""Processes as a made-up /proc shows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symbolizer.mappings import Mapping, parse_maps
from tracer.attach.target import PF_KTHREAD, Process, children, find_process, is_alive
from tracer.errors import CannotTrace, ExitCode

#: Has a child that a thread made which has ended since, and threads that come and go.
RESTLESS = """
import subprocess, threading
made = []
first = threading.Thread(target=lambda: made.append(subprocess.Popen(["sleep", "60"])))
first.start(); first.join()
print(made[0].pid, flush=True)
while True:
    some = [threading.Thread(target=int) for _ in range(8)]
    [each.start() for each in some]; [each.join() for each in some]
"""
ELF64, ELF32 = b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x01\x01"


def make_process(proc: Path, pid: int, *, comm: bytes = b"server", state: str = "S", flags: int = 0x400000,
                 started: int = 777, exe: bytes | None = ELF64, maps: bytes = b"") -> Path:
    """Write the files of proc_pid(5) that are read of one process."""
    folder = proc / str(pid)
    folder.mkdir()
    # Fields 4 to 22; each its own number, but the flags (9) and the start time (22).
    fields = [str(number) for number in range(4, 53)]
    fields[9 - 4], fields[22 - 4] = str(flags), str(started)
    (folder / "stat").write_bytes(b"%d (%s) %s %s\n" % (pid, comm, state.encode(), " ".join(fields).encode()))
    (folder / "maps").write_bytes(maps)
    if exe is not None:
        program = proc / f"program-{pid}"
        program.write_bytes(exe)
        (folder / "exe").symlink_to(program)
    return folder


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"server", "server"),
        (b"a b", "a b"),
        (b"(sd-pam)", "(sd-pam)"),
        (b") Z 1 (", ") Z 1 ("),
        (b"x) S 9 9 9", "x) S 9 9 9"),
        (b"", ""),
        (b"\x1b[2J\xff", r"\x1b[2J\udcff"),
        (b"two\nlines", r"two\x0alines"),
    ],
)  # fmt: skip
def test_names_with_anything_in_them(tmp_path: Path, comm: bytes, shown: str) -> None:
    """A process can call itself what it wants: its name ends at the last parenthesis, and is safe to print."""
    make_process(tmp_path, 42, comm=comm)
    assert find_process(42, tmp_path) == Process(42, shown, 777, tmp_path)


def test_no_such_process(tmp_path: Path) -> None:
    """A number that no process has cannot be traced, and the sentence names it."""
    with pytest.raises(CannotTrace, match="no process 42") as caught:
        find_process(42, tmp_path)
    assert caught.value.exit_code is ExitCode.CANNOT_TRACE and caught.value.remedy


def test_kernel_thread(tmp_path: Path) -> None:
    """A kernel thread is known by its flag, and has no heap."""
    make_process(tmp_path, 42, comm=b"kworker/0:1", flags=PF_KTHREAD | 0x40, exe=None)
    with pytest.raises(CannotTrace, match=r"42 \(kworker/0:1\) is a kernel thread"):
        find_process(42, tmp_path)


@pytest.mark.parametrize("state", ["Z", "X"])
def test_zombie(tmp_path: Path, state: str) -> None:
    """A process that has ended and waits for its parent is said to be that."""
    make_process(tmp_path, 42, state=state, exe=None)
    with pytest.raises(CannotTrace, match="ended already"):
        find_process(42, tmp_path)


@pytest.mark.parametrize("state", ["R", "S", "D", "T", "t", "I"])
def test_all_other_states(tmp_path: Path, state: str) -> None:
    """A process that runs, sleeps or is stopped can be traced."""
    make_process(tmp_path, 42, state=state)
    assert find_process(42, tmp_path).pid == 42


def test_32_bit_program(tmp_path: Path) -> None:
    """A 32-bit program passes its arguments in another way."""
    make_process(tmp_path, 42, exe=ELF32)
    with pytest.raises(CannotTrace, match="32-bit"):
        find_process(42, tmp_path)


def test_no_executable(tmp_path: Path) -> None:
    """A process whose executable has gone is just ending."""
    make_process(tmp_path, 42, exe=None)
    with pytest.raises(CannotTrace, match="just ending"):
        find_process(42, tmp_path)
    assert Process(42, "server", 777, tmp_path).exe is None


def test_path_of_the_executable_is_safe_to_print(tmp_path: Path) -> None:
    """The executable's path comes from whoever made the file."""
    folder = make_process(tmp_path, 42, exe=None)
    (folder / "exe").symlink_to("/tmp/\x1b[2J")
    assert Process(42, "server", 777, tmp_path).exe == r"/tmp/\x1b[2J"


def test_a_number_that_is_used_again(tmp_path: Path) -> None:
    """A process with the same number and another start time is another process."""
    make_process(tmp_path, 42, started=777)
    make_process(tmp_path, 43, state="Z")
    assert is_alive(Process(42, "server", 777, tmp_path))
    assert not is_alive(Process(42, "server", 778, tmp_path))
    assert not is_alive(Process(43, "server", 777, tmp_path))
    assert not is_alive(Process(44, "server", 777, tmp_path))


MAPS = b"""\
400000-401000 r-xp 00000000 08:01 11 /usr/bin/server
7fffffffe000-7ffffffff000 --xp 00000000 00:00 0 [uprobes]
"""


def test_mappings(tmp_path: Path) -> None:
    """Mappings are read from its folder, the trampoline is the start of [uprobes]; a process that is gone has none."""
    make_process(tmp_path, 42, maps=MAPS)
    make_process(tmp_path, 43, maps=MAPS.splitlines()[0])
    process = find_process(42, tmp_path)
    space = process.read_space()
    assert [mapping.path for mapping in space.mappings] == ["/usr/bin/server", "[uprobes]"]
    assert process.trampoline(space) == 0x7FFFFFFFE000
    assert process.trampoline(find_process(43, tmp_path).read_space()) is None
    with pytest.raises(ProcessLookupError):
        Process(44, "gone", 1, tmp_path).read_space()


def mapping_of(inode: int, path: str) -> Mapping:
    return parse_maps(b"1000-2000 r-xp 00000000 08:01 %d %s\n" % (inode, path.encode()))[0]


def test_mapped_files(tmp_path: Path) -> None:
    """A mapped file is opened through map_files, else through the process's root if it is still the same file."""
    folder = make_process(tmp_path, 42)
    process = find_process(42, tmp_path)
    library = folder / "root" / "lib.so"
    library.parent.mkdir()
    library.write_bytes(b"by root")
    same, other = mapping_of(library.stat().st_ino, "/lib.so"), mapping_of(library.stat().st_ino + 1, "/lib.so")
    assert bytes(process.open_mapped(same)) == b"by root"
    with pytest.raises(FileNotFoundError):
        process.file_path(other)
    (folder / "map_files").mkdir()
    (folder / "map_files" / "1000-2000").write_bytes(b"by map")
    assert bytes(process.open_mapped(other)) == b"by map"


def test_the_vdso_is_read_from_memory(tmp_path: Path) -> None:
    """The vdso is no file: its bytes are those at its address."""
    folder = make_process(tmp_path, 42)
    (folder / "mem").write_bytes(b"-" * 0x1000 + b"v" * 0x1000 + b"-")
    assert find_process(42, tmp_path).open_mapped(mapping_of(0, "[vdso]")) == b"v" * 0x1000


def test_children_of_threads_that_end() -> None:
    """A child is found at each look, though threads that were counted are gone when they are asked for theirs."""
    with subprocess.Popen([sys.executable, "-c", RESTLESS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert [children(process.pid) for _ in range(2000)] == [[child]] * 2000
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()
    assert children(process.pid) == []


def test_children_where_none_are_told(tmp_path: Path) -> None:
    """A kernel without that file (CONFIG_PROC_CHILDREN) tells of none, rather than for ever."""
    (tmp_path / "7" / "task" / "7").mkdir(parents=True)
    assert children(7, tmp_path) == []


def test_children_that_change_hands_during_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a thread that ends as it is asked is found with the thread that has it then, though that was asked before."""
    tasks = tmp_path / "7" / "task"
    (tasks / "7").mkdir(parents=True)
    (tasks / "7" / "children").write_text("8 ")
    def ended(task: Path) -> bool:
        assert task == tasks / "9"
        (tasks / "7" / "children").write_text("8 10 ")
        return False

    # 9 is listed, and gone.
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", lambda _: iter([tasks / "7", tasks / "9"]))
        patched.setattr(Path, "exists", ended)
        found = children(7, tmp_path)
    assert found == [8, 10]
