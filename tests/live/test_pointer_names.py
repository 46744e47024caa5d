"""Where pointers stand in real processes, in words: variables, frames, registers and thread-local memory."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.symbolizer import Symbolizer
from tracer.attach import ptrace
from tracer.attach.objects import Objects
from tracer.attach.target import find_process
from tracer.pointer_names import PointerNames

Build = Callable[..., Path]
#: Words of struct user_regs_struct (sys/user.h).
BP, IP, SP, FS_BASE = 4, 16, 19, 21


@contextmanager
def stopped(tid: int) -> Iterator[tuple[int, ...]]:
    """Hold one thread and give its registers."""
    ptrace.request(ptrace.SEIZE, tid)
    try:
        ptrace.request(ptrace.INTERRUPT, tid)
        os.waitpid(tid, ptrace.WALL)
        yield ptrace.general_registers(tid)
    finally:
        ptrace.request(ptrace.DETACH, tid)


@contextmanager
def held(pid: int) -> Iterator[tuple[PointerNames, dict[int, tuple[int, ...]]]]:
    """Give the names in a process that is held meanwhile, and the registers of each thread."""
    symbolizer = Symbolizer()
    objects, process = Objects(symbolizer), find_process(pid)
    with ExitStack() as stack:
        tids = [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]
        registers = {tid: stack.enter_context(stopped(tid)) for tid in tids}
        memory = stack.enter_context(open(f"/proc/{pid}/mem", "rb", buffering=0))
        space = AddressSpace.of(parse_maps(Path(f"/proc/{pid}/maps").read_bytes()))
        objects.hold(process, space)

        def read(address: int, size: int) -> bytes:
            try:
                return os.pread(memory.fileno(), size, address)
            except OSError:
                return b""

        names = PointerNames(symbolizer, space, objects, read)
        for tid, of in registers.items():
            names.add_thread(tid, sp=of[SP], bp=of[BP], ip=of[IP], fs_base=of[FS_BASE])
        stack.callback(symbolizer.close)
        yield names, registers


@pytest.fixture
def built(build: Build) -> Path:
    """The C program, with its library next to it."""
    library = build("points_library.c", "-shared", "-fPIC", name="libpoints.so")
    return build("points_variables.c", "-pthread", str(library), f"-Wl,-rpath,{library.parent}")


def said(program: Any) -> tuple[dict[str, str], dict[str, int], int]:
    """Have the program fill its places; return the words for each, the thread that each is of, and main's thread."""
    lines = program.work()
    with held(program.pid) as (names, _):
        words = {line["what"]: names.root(line["address"]).words() for line in lines if line["address"]}
        words["register"] = names.register(program.pid, "rbx").words()
    return words, {line["what"]: line["tid"] for line in lines if "tid" in line}, program.pid


def test_each_variable_and_frame_has_its_name(built: Path, run_program: Any) -> None:
    """Globals, statics, thread-local variables and locals are named, in the program, a library and two threads."""
    words, threads, main = said(run_program(built))
    worker = threads["serve_client"]
    assert worker != main
    assert words == {
        "registry+0x18": "global registry+0x18 [points_variables]",
        "initialised": "global initialised [points_variables]",
        "only_one": "global only_one [points_variables]",
        "library_table": "global library_table [libpoints.so]",
        "static_shelf+0x10": "global static_shelf+0x10 [libpoints.so]",
        "current_session": "thread-local current_session",
        "other_sessions+0x10": "thread-local other_sessions+0x10",
        "library_session+0x8": "thread-local library_session+0x8",
        "exported_session": "thread-local exported_session",
        "main": f"stack of thread {main} in main()",
        "[heap]": "untracked memory in [heap]",
        "thread current_session": "thread-local current_session",
        "thread other_sessions+0x20": "thread-local other_sessions+0x20",
        "thread library_session+0x8": "thread-local library_session+0x8",
        "thread exported_session": "thread-local exported_session",
        "serve_client": f"stack of thread {worker} in serve_client()",
        "middle": f"stack of thread {worker} in middle()",
        "wait_here": f"stack of thread {worker} in wait_here()",
        "register": words["register"],
    }
    assert words["register"].startswith(f"register rbx of thread {main} in "), words["register"]


def test_thread_local_places_say_whose_they_are(built: Path, run_program: Any) -> None:
    """The same variable in two threads is two places, each with its thread."""
    program = run_program(built)
    lines = {line["what"]: line for line in program.work()}
    with held(program.pid) as (names, _):
        for what in ("current_session", "library_session+0x8", "exported_session"):
            for line in (lines[what], lines[f"thread {what}"]):
                place = names.root(line["address"])
                assert (place.kind, getattr(place, "tid", None)) == ("thread-local", line["tid"])


def test_thread_specific_data_is_thread_local_memory(built: Path, run_program: Any) -> None:
    """What pthread_setspecific() keeps stands in the thread's own record, just above its thread pointer."""
    program = run_program(built)
    value = next(line["value"] for line in program.work() if line["what"] == "specific")
    with held(program.pid) as (names, registers), open(f"/proc/{program.pid}/mem", "rb", buffering=0) as memory:
        record = registers[program.pid][FS_BASE]
        words = struct.unpack("<256Q", os.pread(memory.fileno(), 2048, record))
        assert value in words, "the C library keeps it elsewhere: this test looks in the wrong place"
        where = record + 8 * words.index(value)
        assert names.root(where).words() == f"thread-local memory of thread {program.pid}"


@pytest.mark.parametrize("flags", [("-no-pie",), ("-static-pie",), ("-static",), ("-O0",)])
def test_it_does_not_matter_how_a_program_is_linked(flags: tuple[str, ...], build: Build, run_program: Any) -> None:
    """Fixed addresses, no dynamic loader, and code with frame pointers give the same names."""
    program = build("points_variables.c", "-pthread", str(Path(__file__).parents[1] / "programs/points_library.c"), *flags)
    words, threads, main = said(run_program(program))
    worker = threads["serve_client"]
    assert words["registry+0x18"] == "global registry+0x18 [points_variables]"
    assert words["static_shelf+0x10"] == "global static_shelf+0x10 [points_variables]"
    assert words["current_session"] == words["thread current_session"] == "thread-local current_session"
    assert words["thread library_session+0x8"] == "thread-local library_session+0x8"
    assert words["main"] == f"stack of thread {main} in main()"
    assert words["serve_client"] == f"stack of thread {worker} in serve_client()"
    assert words["wait_here"] == f"stack of thread {worker} in wait_here()"


def test_names_of_cpp(build: Build, run_program: Any) -> None:
    """Variables in namespaces and classes, and static ones of functions, are named as in the source."""
    words, _, main = said(run_program(build("points_names.cpp")))
    words.pop("register")
    assert words.pop("stack store::serve(int)") == f"stack of thread {main} in store::serve(int)"
    assert words.pop("store::transaction") == "thread-local store::transaction"
    assert len(words) == 4
    for what, found in words.items():
        assert found == f"global {what} [points_names]"


def strip(program: Path, to: Path) -> Path:
    """Return a stripped copy."""
    if shutil.which("strip") is None:
        pytest.skip("needs strip")
    subprocess.run(["strip", "-o", str(to), str(program)], check=True)
    return to


def test_a_stripped_program_gives_sections(built: Path, run_program: Any, tmp_path: Path) -> None:
    """Without symbols there are the section and the module, and stacks are still told apart by frame."""
    words, threads, main = said(run_program(strip(built, tmp_path / "bare")))
    worker = threads["serve_client"]
    assert words["registry+0x18"].startswith("bare .bss+0x")
    assert words["initialised"].startswith("bare .data+0x")
    assert words["library_table"] == "global library_table [libpoints.so]"
    assert words["current_session"] == f"bare .tdata of thread {main}"
    assert words["thread other_sessions+0x20"].startswith("bare .tbss+0x")
    assert words["serve_client"].startswith(f"stack of thread {worker} in bare+0x")
    assert words["main"].startswith(f"stack of thread {main} in bare+0x")
    assert len({words[frame] for frame in ("serve_client", "middle", "wait_here")}) == 3


def test_without_section_headers_there_is_the_module(built: Path, run_program: Any, tmp_path: Path) -> None:
    """A program whose section headers are gone gives the module and the address in it."""
    data = bytearray(built.read_bytes())
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    bare = tmp_path / "bare"
    bare.write_bytes(data)
    bare.chmod(0o755)
    words, threads, main = said(run_program(bare))
    assert words["registry+0x18"].startswith("bare+0x")
    assert words["current_session"] == f"bare TLS of thread {main}"
    assert words["serve_client"].startswith(f"stack of thread {threads['serve_client']} in ")


def test_names_from_a_debug_file(built: Path, run_program: Any, tmp_path: Path) -> None:
    """Variables of a stripped program are named by the debug file that its link names."""
    if shutil.which("objcopy") is None:
        pytest.skip("needs objcopy")
    bare, debug = tmp_path / "served", tmp_path / "served.debug"
    subprocess.run(["objcopy", "--only-keep-debug", str(built), str(debug)], check=True)
    strip(built, bare)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", str(bare)], check=True)
    words, _, _ = said(run_program(bare))
    assert words["registry+0x18"] == "global registry+0x18 [served]"
    assert words["current_session"] == "thread-local current_session"


def test_musl(build: Build, run_program: Any) -> None:
    """The other C library has another thread vector and another record of its threads."""
    library = build("points_library.c", "-shared", "-fPIC", compiler="musl-gcc", name="libpoints.so")
    program = build("points_variables.c", str(library), f"-Wl,-rpath,{library.parent}", compiler="musl-gcc")
    words, threads, main = said(run_program(program))
    assert words["registry+0x18"] == "global registry+0x18 [points_variables]"
    assert words["static_shelf+0x10"] == "global static_shelf+0x10 [libpoints.so]"
    for what in ("current_session", "library_session+0x8", "exported_session"):
        assert words[what] == words[f"thread {what}"] == f"thread-local {what}"
    # Debian's musl has call frame information for a few functions only: no walk leaves the call that a thread waits in.
    assert words["main"].startswith(f"stack of thread {main}")
    assert words["serve_client"].startswith(f"stack of thread {threads['serve_client']}")
