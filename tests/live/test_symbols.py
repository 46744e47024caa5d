"""Names of a program that was stripped, replaced, ended or means harm: its own, from wherever they lie, and safe to print."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, PROGRAMS, Starter, functions
from tests.live.test_options import run_tool

Build = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("nothing_known")
#: Bytes of the block of symbols_debug, and the functions that lead to it, innermost first.
BYTES = 3001
LEADING = ["stack", "store", "shelve", "main_step", "main"]
#: Both lines that a program waits for, sent ahead: it does its work and ends.
AT_ONCE = "\n\n"
TO_THE_END = ("--format", "json", "--raw-stacks", "-T", "10000", "3600")


def require(*tools: str) -> None:
    """Skip where one of the tools is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def run(*words: str | Path) -> str:
    """Run a tool that has to work, and return what it says."""
    answer = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, f"{words}: {answer.stderr}"
    return answer.stdout


def has_symbols(file: Path) -> bool:
    """Whether a file, or its debug file in the usual place, has all its functions' names."""
    identity = build_id(file)
    debug = Path("/usr/lib/debug/.build-id", identity[:2], f"{identity[2:]}.debug")
    return debug.exists() or ".symtab" in run("readelf", "-SW", file)


def require_symbols_of_libc() -> None:
    """Skip without the C library's debug package: main()'s caller has a name only there."""
    with open("/proc/self/maps") as maps:
        libc = next(Path(line.split()[-1]) for line in maps if "/libc.so" in line)
    if not has_symbols(libc):
        pytest.skip("needs the package libc6-dbg")


def line_of(mark: str, source: str = "symbols_debug.cpp") -> int:
    """Return the number of the line that bears a mark."""
    lines = (PROGRAMS / source).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if f"/* line: {mark} */" in line)


def build_id(program: Path) -> str:
    """Return a file's build id as readelf finds it."""
    text = run("readelf", "-n", program)
    return text.partition("Build ID: ")[2].split()[0]


def frames_of(report: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Return the frames of the one site whose blocks are of that size, innermost first."""
    (found,) = [one for one in report["sites"] if one["bytes"] == size * one["count"]]
    frames: list[dict[str, Any]] = found["frames"]
    return frames


def run_to_the_end(*words: str | Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Trace a command that does its work and ends; return the report."""
    command = shlex.join(str(word) for word in words)
    answer = run_tool("-c", command, *options, *TO_THE_END, stdin=AT_ONCE)
    assert answer.returncode == 0, answer.stderr
    (report,) = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith('{"schema"')]
    document: dict[str, Any] = report
    return document


def own_frames(report: dict[str, Any], program: Path, size: int = BYTES) -> list[dict[str, Any]]:
    """Return the frames of a site in the program's own file, up to main()."""
    frames = [frame for frame in frames_of(report, size) if frame["module"] == str(program)]
    return frames if frames[-1]["function"] != "_start" else frames[:-1]


def assert_told_in_full(report: dict[str, Any], program: Path) -> None:
    """Check functions, files, lines and inlined calls of symbols_debug."""
    frames = own_frames(report, program)
    assert [frame["function"].partition("(")[0] for frame in frames] == LEADING
    assert [frame["line"] for frame in frames] == [line_of(name) for name in LEADING]
    assert [frame["inlined"] for frame in frames] == [True, True, False, False, False]
    assert {frame["file"].rpartition("/")[2] for frame in frames} == {"symbols_debug.cpp"}


def assert_nameless(report: dict[str, Any], program: Path) -> None:
    """Check that the program's frames are there, without names, and say why."""
    frames = own_frames(report, program)
    # Inlined calls cannot be told; the last frame is that of _start.
    assert len(frames) == 4
    assert {(frame["function"], frame["line"], frame["why"]) for frame in frames} == {(None, None, "no_symbols")}


class Split:
    """A stripped symbols_debug, and the debug file that was made of it."""

    def __init__(self, built: Path, folder: Path, name: str = "service") -> None:
        self.whole = built
        self.program = folder / name
        self.debug = folder / "apart" / f"{name}.debug"
        self.debug.parent.mkdir()
        run("objcopy", "--only-keep-debug", built, self.debug)
        run("strip", "-o", self.program, built)
        self.build_id = build_id(built)

    def by_build_id(self, folder: Path) -> Path:
        """Return where the debug file belongs in a folder of debug files; its parent is made."""
        place = folder / ".build-id" / self.build_id[:2] / f"{self.build_id[2:]}.debug"
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def link(self) -> Path:
        """Name the debug file in .gnu_debuglink of the program; return where it belongs: next to the program."""
        run("objcopy", f"--add-gnu-debuglink={self.debug}", self.program)
        return self.program.parent / self.debug.name


@pytest.fixture
def split(build: Build, tmp_path: Path) -> Split:
    """Return a stripped program with its debug file where nobody finds it."""
    require("objcopy", "strip", "readelf")
    return Split(build("symbols_debug.cpp"), tmp_path)


def test_a_debug_file_in_a_folder_that_was_named(split: Split, tmp_path: Path) -> None:
    """A stripped C++ program with its debug file below --debug-dir is told in full, inlined calls included."""
    place = split.by_build_id(tmp_path / "symbols")
    shutil.move(split.debug, place)
    assert_told_in_full(run_to_the_end(split.program, options=("--debug-dir", str(place.parents[2]))), split.program)
    # It was that folder that did it.
    assert_nameless(run_to_the_end(split.program), split.program)


def test_a_debug_file_next_to_the_program(split: Split) -> None:
    """.gnu_debuglink leads to the debug file in the program's own folder."""
    shutil.move(split.debug, split.link())
    assert_told_in_full(run_to_the_end(split.program), split.program)


def test_a_debug_file_with_another_checksum_is_not_believed(split: Split) -> None:
    """A debug file that is not the one of .gnu_debuglink gives no name, and the notes say so and what would."""
    require_symbols_of_libc()
    place = split.link()
    place.write_bytes(split.debug.read_bytes() + b"\0")
    report = run_to_the_end(split.program)
    assert_nameless(report, split.program)
    note, refused = report["notes"]
    assert note.startswith("No names for ") and " in service (" in note and "keep the .debug file" in note
    assert refused == f"{place} is not used: it is of another build than service"


def test_a_supplementary_file_that_dwz_made(build: Build, tmp_path: Path) -> None:
    """What dwz moved out of two debug files into a common one is found again: functions, inlined calls and lines."""
    require("objcopy", "strip", "readelf", "strings", "dwz")
    pair = []
    for name, flags in (("service", []), ("other", ["-no-pie"])):
        folder = tmp_path / name
        folder.mkdir()
        pair.append(Split(build("symbols_debug.cpp", *flags), folder, name))
    places = [one.by_build_id(tmp_path / "symbols") for one in pair]
    for one, place in zip(pair, places, strict=True):
        shutil.move(one.debug, place)
    common = tmp_path / "symbols" / ".dwz" / "common.debug"
    common.parent.mkdir()
    run("dwz", "-m", common, "-M", "../../.dwz/common.debug", *places)
    assert "gnu_debugaltlink" in run("readelf", "-SW", places[0])
    assert {"stack", "store"} <= set(run("strings", "-n", "5", common).split()), "dwz shares the names of inlined functions"
    options = ("--debug-dir", str(tmp_path / "symbols"))
    assert_told_in_full(run_to_the_end(pair[0].program, options=options), pair[0].program)


def names_in(file: Path, *options: str) -> set[str]:
    """Return the functions that a file defines, as nm finds them."""
    lines = [line.split() for line in run("nm", "--format=posix", "--defined-only", *options, file).splitlines()]
    return {words[0] for words in lines if words[1] in "Tt"}


def test_compressed_symbols(build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path) -> None:
    """.gnu_debugdata, made as Fedora does, names the functions that a stripped library does not export."""
    require("objcopy", "strip", "nm", "xz")
    whole = build("symbols_shelf.c", "-shared", "-fPIC", name="shelf.so")
    keep, small = tmp_path / "keep", tmp_path / "small"
    keep.write_text("\n".join(names_in(whole) - names_in(whole, "-D")))
    run("objcopy", "--only-keep-debug", whole, tmp_path / "debug")
    run("objcopy", "-S", "--remove-section", ".comment", f"--keep-symbols={keep}", tmp_path / "debug", small)
    assert names_in(small) >= {"hide"} and "put_away" not in names_in(small)
    run("xz", small)
    bare, packed = tmp_path / "bare.so", tmp_path / "packed.so"
    run("strip", "-o", bare, whole)
    run("objcopy", "--add-section", f".gnu_debugdata={small}.xz", bare, packed)
    innermost = []
    for library in (packed, bare):
        running = run_program(build("symbols_loads.c"), library)
        trace = leaktrace.attach(running)
        running.work()
        frames = frames_of(trace.stop().report, 3002)
        assert [frame["function"] for frame in frames[1:3]] == ["put_away", "ask"]
        innermost.append((frames[0]["function"], frames[0]["why"]))
    # It is that section that does it.
    assert innermost == [("hide", None), (None, "not_covered")]


def test_the_c_library_has_lines(build: Build) -> None:
    """With its debug package, the C library's frames have the file and the line, and nothing is missing."""
    require_symbols_of_libc()
    report = run_to_the_end(build("symbols_debug.cpp"))
    frames = [frame for frame in frames_of(report, BYTES) if frame["module"].rpartition("/")[2] == "libc.so.6"]
    found = [(frame["function"], Path(frame["file"]).name) for frame in frames]
    assert found == [("__libc_start_call_main", "libc_start_call_main.h"), ("__libc_start_main", "libc-start.c")]
    assert all(frame["line"] > 0 for frame in frames)


@pytest.mark.parametrize("way", ["replaced", "deleted"])
def test_a_program_whose_file_is_another_now(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path, way: str
) -> None:
    """What runs keeps its own names when an update has put another file in its place, or taken the file away."""
    program = Path(shutil.copy2(build("symbols_debug.cpp"), tmp_path / "service"))
    running = run_program(program)
    if way == "replaced":
        # The same code under other names: any look at the new file shows.
        os.replace(shutil.copy2(build("symbols_debug.cpp", "-DOTHER"), tmp_path / "new"), program)
    else:
        program.unlink()
    trace = leaktrace.attach(running)
    running.work()
    assert_told_in_full(trace.stop().report, program)


def test_a_library_whose_file_is_another_now(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path
) -> None:
    """A library that was replaced after it was loaded keeps its own names too."""
    flags = ("-shared", "-fPIC")
    library = Path(shutil.copy2(build("symbols_shelf.c", *flags), tmp_path / "shelf.so"))
    running = run_program(build("symbols_loads.c"), library)
    os.replace(shutil.copy2(build("symbols_shelf.c", *flags, "-DOTHER"), tmp_path / "new"), library)
    trace = leaktrace.attach(running)
    running.work()
    inner = frames_of(trace.stop().report, 3002)[:3]
    assert [frame["function"] for frame in inner] == ["hide", "put_away", "ask"]
    assert inner[0]["module"] == str(library)


def test_the_debug_file_of_the_next_version(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path
) -> None:
    """An update brings its own debug file by the same name: what still runs has no names then, not the wrong ones."""
    require("objcopy", "strip", "readelf")
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    installed = Split(build("symbols_debug.cpp"), old)
    installed.link()
    running = run_program(installed.program)
    update = Split(build("symbols_debug.cpp", "-DOTHER"), new)
    update.link()
    os.replace(update.debug, old / update.debug.name)
    os.replace(update.program, installed.program)
    trace = leaktrace.attach(running)
    running.work()
    assert_nameless(trace.stop().report, installed.program)


FROM_MEMORY = """
import os, sys
file = os.memfd_create("service")
os.write(file, open(sys.argv[1], "rb").read())
os.execve(file, ["service"], os.environ)
"""


def test_a_program_that_no_folder_holds(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """A program that was run from memory (memfd_create) is told in full."""
    running = run_program(sys.executable, "-c", FROM_MEMORY, build("symbols_debug.cpp"))
    trace = leaktrace.attach(running)
    running.work()
    assert_told_in_full(trace.stop().report, Path("/memfd:service"))


def test_the_kernels_code_in_the_process(build: Build) -> None:
    """A handler that interrupted the vdso has its function in the stack, by the name that the vdso gives it."""
    frames = frames_of(run_to_the_end(build("symbols_vdso.c")), 3003)
    inside = [frame for frame in frames if frame["module"] == "[vdso]"]
    assert [frame["function"] in ("time", "__vdso_time") for frame in inside] == [True]
    names = [frame["function"] for frame in frames if not frame["module"].endswith("libc.so.6")]
    assert names[0] == "on_fault" and names[2:4] == ["read_time", "main"]


def test_where_signal_handlers_return_to(build: Build) -> None:
    """The C library's __restore_rt below a signal handler has its name, and so there is no note."""
    require_symbols_of_libc()
    report = run_to_the_end(build("symbols_vdso.c"))
    frames = frames_of(report, 3003)
    assert [frame["function"] for frame in frames[:2]] == ["on_fault", "__restore_rt"]
    assert report["notes"] == []


@pytest.mark.parametrize("style", ["full", "short", "none"])
def test_how_much_of_a_name_is_shown(build: Build, style: str) -> None:
    """--demangle full has all arguments of a template, short none past a readable length, none the linker's name."""
    report = run_to_the_end(build("symbols_long.cpp"), options=("--demangle", style))
    name = frames_of(report, 3004)[0]["function"]
    if style == "none":
        assert name.startswith("_ZN9warehouse9CatalogueI") and name.isidentifier()
        return
    assert name.startswith("warehouse::Catalogue<") and "insert_item(" in name and "_Z" not in name
    if style == "full":
        assert "std::vector<int" in name and name.endswith("unsigned long)") and len(name) > 200
    else:
        assert "…" in name or "..." in name
        assert "std::vector" not in name and len(name) < 100


ESCAPE = "\x1b[2J"


def test_escape_sequences_stay_text(build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path) -> None:
    """The name of a function and the path of a library that would clear a reader's terminal are escaped everywhere."""
    program = tmp_path / "hostile"
    built = build("symbols_hostile.c")
    program.write_bytes(built.read_bytes().replace(b"hostile_XXXX_", b"hostile_" + ESCAPE.encode() + b"_"))
    program.chmod(0o755)
    library = Path(shutil.copy2(build("symbols_shelf.c", "-shared", "-fPIC"), tmp_path / f"shelf{ESCAPE}.so"))
    report = run_to_the_end(program)
    assert functions({"frames": frames_of(report, 3005)})[:2] == [r"hostile_\x1b[2J_name", "main"]
    running = run_program(build("symbols_loads.c"), library)
    trace = leaktrace.attach(running)
    running.work()
    loaded = frames_of(trace.stop().report, 3002)
    assert loaded[0]["module"] == str(library).replace("\x1b", r"\x1b")
    # As text, where the path of the program is said too.
    program = program.rename(tmp_path / f"hostile{ESCAPE}")
    answer = run_tool("-v", "-c", shlex.quote(str(program)), "3600", stdin=AT_ONCE)
    assert answer.returncode == 0 and r"hostile_\x1b[2J_name+" in answer.stdout, answer.stderr
    assert r"[hostile\x1b[2J]" in answer.stdout and "\x1b" not in answer.stdout + answer.stderr


def test_a_command_that_has_ended_is_named_completely(build: Build) -> None:
    """The report of a command that has come to its end has every name, and so no note."""
    require_symbols_of_libc()
    report = run_to_the_end(build("symbols_debug.cpp"))
    assert all(frame["function"] for one in report["sites"] for frame in one["frames"])
    assert report["last"] and report["notes"] == []


def test_a_stripped_program_of_ones_own(split: Split) -> None:
    """Of a program that no package has, the note names the file and says to build it with -g."""
    require_symbols_of_libc()
    (note,) = run_to_the_end(split.program)["notes"]
    assert note.startswith("No names for 4 frames in service (")
    assert "build it with -g, or keep the .debug file" in note and "install" not in note


def test_a_program_of_the_distribution() -> None:
    """For the nameless frames of the distribution's perl, the note names the package with perl's debug symbols."""
    require("readelf", "dpkg-query")
    perl = Path("/usr/bin/perl")
    if not perl.exists() or has_symbols(perl):
        pytest.skip("needs a perl without debug symbols")
    owner = run("dpkg-query", "--search", perl).partition(":")[0]
    report = run_to_the_end(perl, "-e", "@main::all = map { [1 .. $_] } 1 .. 30; kill 9, $$")
    assert any(frame["module"] == str(perl) and frame["why"] for one in report["sites"] for frame in one["frames"])
    (note,) = report["notes"]
    assert f"install {owner}-dbgsym " in note


class Aria:
    """An aria2c that serves its JSON-RPC on loopback, and fetches nothing."""

    def __init__(self, program: str, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        words = [program, "--no-conf", "--enable-rpc", f"--rpc-listen-port={self.port}", "--pause=true", "--quiet",
                 f"--dir={folder}", "--enable-dht=false", "--disable-ipv6"]
        self.process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, user="nobody", group="nogroup",
                                        env={"PATH": os.defpath, "HOME": str(folder)})

    def call(self, method: str, *parameters: Any) -> Any:
        """Ask for something, and return the answer."""
        body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": method, "params": parameters})
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("POST", "/jsonrpc", body)
            answer = json.loads(connection.getresponse().read())
        assert "result" in answer, answer
        return answer["result"]

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.call("aria2.getVersion")
                return
            except ConnectionError:
                assert time.monotonic() < deadline and self.process.poll() is None, "aria2c does not serve"
                time.sleep(0.05)

    def pause(self) -> None:
        """Stop it, so that no allocation is under way while a report is made."""
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while "State:\tT" not in Path(f"/proc/{self.process.pid}/status").read_text():
            assert time.monotonic() < deadline, "aria2c does not stop"
            time.sleep(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def aria(tmp_path: Path) -> Iterator[Aria]:
    """Return a real service in C++, as the distribution strips it."""
    require("aria2c")
    service = Aria("/usr/bin/aria2c", tmp_path)
    try:
        service.wait_ready()
        yield service
    finally:
        service.close()


@pytest.mark.alone
def test_a_real_service_has_no_unexplained_frame(aria: Aria, leaktrace: Starter) -> None:
    """In a stripped C++ service under requests every frame has a name or a reason, and all stacks reach their start."""
    trace = leaktrace.attach(aria.process.pid)
    for number in range(50):
        assert aria.call("aria2.addUri", [f"http://127.0.0.1:9/{number}"], {"out": f"file{number}"})
    aria.pause()
    report = trace.stop().report
    assert report["losses"] == {} and len(report["sites"]) > 20
    frames = [frame for one in report["sites"] for frame in one["frames"]]
    assert all((frame["function"] is None) == (frame["why"] is not None) for frame in frames)
    assert {frame["why"] for frame in frames} <= {None, "no_symbols", "not_covered"}
    # Its own code has no names here, the standard library's has.
    assert {"no_symbols", "not_covered"} & {frame["why"] for frame in frames}
    assert any((frame["function"] or "").startswith("std::") for frame in frames)
    (note,) = report["notes"]
    assert note.startswith("No names for ") and "libaria2-0-dbgsym" in note
