"""Code that a runtime makes has the names that the runtime writes down, and these are believed only where they are safe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PROGRAMS, RunningProgram, Starter
from tests.live.test_symbols import frames_of, line_of, require, require_symbols_of_libc, run

Build = Callable[..., Path]
#: Bytes that are asked for where runtimes add a little of their own.
LARGE = range(3000000, 3010000)
#: Only such blocks: a runtime's start has many stacks.
ONLY_LARGE = ("-z", "3000000")


@pytest.fixture
def start(run_program: Callable[..., RunningProgram]) -> Iterator[Callable[..., RunningProgram]]:
    """Return a function that starts a program, whose map is taken away with the test."""
    maps: list[Path] = []

    def begin(*words: str | Path) -> RunningProgram:
        program = run_program(*words)
        maps.append(Path(f"/tmp/perf-{program.pid}.map"))
        return program

    try:
        yield begin
    finally:
        for path in maps:
            path.unlink(missing_ok=True)


def test_made_code_is_named_by_its_map(build: Build, start: Any, leaktrace: Starter) -> None:
    """Code that a program made has the name of its map, and the stack goes on below it to the start."""
    require_symbols_of_libc()
    running = start(build("symbols_jit.c"))
    trace = leaktrace.attach(running)
    running.work()
    report = trace.stop().report
    frames = frames_of(report, 3006)
    assert [frame["function"] for frame in frames[:3]] == ["keep", "MadeAtRunTime", "main"]
    assert (frames[1]["module"], frames[1]["offset"]) == (f"/tmp/perf-{running.pid}.map", 6)
    assert frames[-1]["function"] == "_start" and report["losses"] == {} and report["notes"] == []


def writable(path: Path, _: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path, folder: Path) -> None:
    shutil.move(path, folder / "map")
    path.symlink_to(folder / "map")


def a_strangers(path: Path, _: Path) -> None:
    shutil.chown(path, "nobody")


@pytest.mark.parametrize(
    ("change", "reason"),
    [(writable, "is writable by others"), (a_link, "is a symbolic link"), (a_strangers, "belongs to user ")],
)
def test_a_map_that_others_may_have_written(
    build: Build, start: Any, leaktrace: Starter, tmp_path: Path, change: Callable[[Path, Path], None], reason: str
) -> None:
    """Names in a map that somebody else may have written are not shown, and a note says why."""
    running = start(build("symbols_jit.c"))
    path = Path(f"/tmp/perf-{running.pid}.map")
    change(path, tmp_path)
    trace = leaktrace.attach(running)
    running.work()
    report = trace.stop().report
    frames = frames_of(report, 3006)
    assert [frame["function"] for frame in frames[:3]] == ["keep", None, "main"]
    assert frames[1]["why"] == "no_symbols"
    assert [note for note in report["notes"] if note.startswith(f"{path} {reason}") and "not believed" in note]


def frames_of_large(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the frames of the one site with the blocks that a runtime's program makes."""
    (found,) = [one for one in report["sites"] if one["bytes"] // one["count"] in LARGE]
    frames: list[dict[str, Any]] = found["frames"]
    return frames


def by_map(frames: list[dict[str, Any]], pid: int) -> list[str]:
    """Return the functions that the runtime's map named."""
    return [frame["function"] for frame in frames if frame["module"] == f"/tmp/perf-{pid}.map"]


def is_followed(frames: list[dict[str, Any]], start: str) -> bool:
    """Whether a stack reaches the C library's start of the program or thread, and every frame has a name or a reason."""
    return start in [frame["function"] for frame in frames] and all(
        frame["function"] is not None or frame["why"] in ("no_symbols", "not_covered") for frame in frames)


def is_of_node(frame: dict[str, Any]) -> bool:
    """Whether a frame is Node's own: of its program, or its library, as Debian builds it."""
    return Path(frame["module"]).name.startswith(("node", "libnode.so"))


@pytest.mark.parametrize("code", ["--interpreted-frames-native-stack", "--always-sparkplug"])
def test_functions_of_node(start: Any, leaktrace: Starter, tmp_path: Path, code: str) -> None:
    """JavaScript functions, interpreted or compiled, stand with file and line between Node's own frames."""
    require("node")
    script = PROGRAMS / "symbols_buffers.js"
    # Without these it leaves a log where it is started.
    log = ("--no-logfile-per-isolate", f"--logfile={tmp_path}/v8.log")
    running = start("node", "--perf-basic-prof", *log, code, script)
    trace = leaktrace.attach(running, *ONLY_LARGE)
    running.work()
    report = trace.stop().report
    frames = frames_of_large(report)
    own = [frame for frame in frames if frame["file"] == str(script)]
    # Of a function, V8 writes down where it begins.
    assert [(frame["function"], frame["line"]) for frame in own] == [
        ("keepBuffer", line_of("keepBuffer", script.name)), ("serveRequest", line_of("serveRequest", script.name)),
        ("<anonymous>", 1)]
    names = by_map(frames, running.pid)
    assert names[names.index("keepBuffer") :][:3] == ["keepBuffer", "serveRequest", "<anonymous>"]
    assert "Module._compile" in names
    last = frames.index(own[-1])
    assert is_of_node(frames[0]) and any(is_of_node(frame) for frame in frames[last:])
    assert is_followed(frames, "__libc_start_main") and report["losses"] == {}


#: Compiled at once, in the first tier, and each method by itself: what is on the stack is known then.
SIMPLY_COMPILED = ("-Xbatch", "-XX:TieredStopAtLevel=1", "-XX:-Inline")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the compiled symbols_direct.java."""
    require("java", "javac")
    folder = tmp_path_factory.mktemp("classes")
    run("javac", "-d", folder, PROGRAMS / "symbols_direct.java")
    return folder


def test_methods_of_java(start: Any, leaktrace: Starter, classes: Path) -> None:
    """Compiled Java methods stand between the JVM's own frames, once jcmd has had their names written."""
    require("jcmd")
    require_symbols_of_libc()
    running = start("java", "-cp", classes, "-XX:+PreserveFramePointer", "-XX:MaxDirectMemorySize=1g",
                    *SIMPLY_COMPILED, "symbols_direct")
    trace = leaktrace.attach(running, *ONLY_LARGE)
    running.work()
    run("jcmd", str(running.pid), "Compiler.perfmap")
    report = trace.stop().report
    frames = frames_of_large(report)
    names = by_map(frames, running.pid)
    first = next(number for number, name in enumerate(names) if "ByteBuffer.allocateDirect(int)" in name)
    assert names[first + 1 : first + 3] == ["void symbols_direct.keepBuffer(int)", "void symbols_direct.serveRequest(int)"]
    modules = [Path(frame["module"]).name for frame in frames]
    assert modules[0] == "libjvm.so" and "libjvm.so" in modules[modules.index(f"perf-{running.pid}.map") :]
    assert is_followed(frames, "start_thread") and report["losses"] == {} and report["notes"] == []


def test_names_that_java_writes_at_its_end(start: Any, leaktrace: Starter, classes: Path) -> None:
    """-XX:+DumpPerfMapAtExit, which the note asks for, brings the names of Java methods into the last report."""
    require_symbols_of_libc()
    running = start("java", "-cp", classes, "-XX:+PreserveFramePointer", "-XX:MaxDirectMemorySize=1g",
                    "-XX:+UnlockDiagnosticVMOptions", "-XX:+DumpPerfMapAtExit", *SIMPLY_COMPILED, "symbols_direct")
    trace = leaktrace.attach(running, *ONLY_LARGE)
    running.work()
    assert running.finish() == 0
    report = trace.wait().report
    assert "void symbols_direct.keepBuffer(int)" in by_map(frames_of_large(report), running.pid)
    assert report["notes"] == []


def test_a_runtime_without_a_map(start: Any, leaktrace: Starter) -> None:
    """Where Node writes no names, its code has none, and the note says how to start it."""
    require("node")
    running = start("node", "--always-sparkplug", PROGRAMS / "symbols_buffers.js")
    trace = leaktrace.attach(running, *ONLY_LARGE)
    running.work()
    report = trace.stop().report
    frames = frames_of_large(report)
    assert by_map(frames, running.pid) == []
    assert {frame["why"] for frame in frames if frame["function"] is None} >= {"no_symbols"}
    (note,) = report["notes"]
    assert "code made at run time" in note and "start node with --perf-basic-prof" in note
