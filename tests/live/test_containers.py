"""A program with another root has the names of its own files, never those of this machine's files by the same paths."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PROGRAMS, RunningProgram, Starter
from tests.live.test_symbols import (
    LEADING,
    Split,
    assert_nameless,
    assert_told_in_full,
    frames_of,
    own_frames,
    require,
    run,
)

Build = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("nothing_known")


class Container:
    """A folder that becomes the root of a program, with what programs in C need."""

    def __init__(self, root: Path, run_program: Callable[..., RunningProgram]) -> None:
        self.root = root
        self._run_program = run_program
        for name in ("tmp", "proc"):
            (root / name).mkdir(parents=True)

    def add(self, file: Path, path: Path | str) -> Path:
        """Copy a file, with the libraries that it needs, to a path in the container; return the path outside."""
        place = self.root / str(path).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
        for word in run("ldd", file).split():
            library = self.root / word.lstrip("/")
            if word.startswith("/") and not library.exists():
                library.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(word, library)
        return place

    def start(self, *words: Path | str, **options: Any) -> RunningProgram:
        """Start a program in it, and return when it waits."""
        program: RunningProgram = self._run_program(sys.executable, PROGRAMS / "symbols_container.py", self.root,
                                                    json.dumps(options), *words)
        return program


@pytest.fixture
def container(tmp_path: Path, run_program: Callable[..., RunningProgram]) -> Container:
    """Return an empty container. Its mounts are in a namespace of the program's own, so they end with that."""
    require("ldd")
    return Container(tmp_path / "container", run_program)


def report_of(leaktrace: Starter, running: RunningProgram, pid: int | None = None) -> dict[str, Any]:
    """Trace one step of a program."""
    trace = leaktrace.attach(pid or running.pid)
    running.work()
    return trace.stop().report


@pytest.fixture
def service(tmp_path: Path, build: Build) -> Path:
    """Return the path of a program on this machine: the container's has the same code there under other names."""
    path = tmp_path / "service"
    shutil.copy2(build("symbols_debug.cpp", "-DOTHER"), path)
    return path


def test_the_program_is_the_containers(
    build: Build, container: Container, leaktrace: Starter, service: Path
) -> None:
    """Of two programs by the same path, one here and one in the container, the one that runs gives the names."""
    container.add(build("symbols_debug.cpp"), service)
    assert_told_in_full(report_of(leaktrace, container.start(service)), service)


def test_the_library_is_the_containers(build: Build, container: Container, leaktrace: Starter, tmp_path: Path) -> None:
    """The same for a library that the program loads."""
    library, program = tmp_path / "shelf.so", build("symbols_loads.c")
    shutil.copy2(build("symbols_shelf.c", "-shared", "-fPIC", "-DOTHER"), library)
    container.add(build("symbols_shelf.c", "-shared", "-fPIC"), library)
    container.add(program, "/usr/bin/loads")
    frames = frames_of(report_of(leaktrace, container.start("/usr/bin/loads", library)), 3002)
    assert [frame["function"] for frame in frames[:3]] == ["hide", "put_away", "ask"]
    assert frames[0]["module"] == str(library)


@pytest.fixture
def split(build: Build, container: Container, tmp_path: Path) -> Split:
    """Return a stripped program that lies in the container, at the same path as on this machine."""
    require("objcopy", "strip", "readelf")
    found = Split(build("symbols_debug.cpp"), tmp_path)
    container.add(found.program, found.program)
    return found


def test_the_containers_debug_files_are_found(container: Container, leaktrace: Starter, split: Split) -> None:
    """A debug file below /usr/lib/debug of the container gives functions, inlined calls and lines."""
    shutil.move(split.debug, split.by_build_id(container.root / "usr/lib/debug"))
    assert_told_in_full(report_of(leaktrace, container.start(split.program)), split.program)


def test_a_debug_link_stays_in_the_container(container: Container, leaktrace: Starter, split: Split) -> None:
    """What .gnu_debuglink names is looked for next to the program in the container, not next to its path here."""
    outside = split.link()
    container.add(split.program, split.program)
    shutil.copy2(split.debug, outside)
    assert_nameless(report_of(leaktrace, container.start(split.program)), split.program)
    shutil.copy2(split.debug, container.root / str(outside).lstrip("/"))
    assert_told_in_full(report_of(leaktrace, container.start(split.program)), split.program)


def test_no_package_of_this_machine_is_recommended(container: Container, leaktrace: Starter, split: Split) -> None:
    """A stripped program of the container at a path that a package of this machine owns is no part of that package."""
    container.add(split.program, "/usr/bin/perl")
    report = report_of(leaktrace, container.start("/usr/bin/perl"))
    assert_nameless(report, Path("/usr/bin/perl"))
    (note,) = report["notes"]
    assert "in perl" in note and "perl-base" not in note and "keep the .debug file" in note


@pytest.mark.parametrize("is_there", [True, False])
def test_links_of_the_container_stay_in_it(
    container: Container, leaktrace: Starter, split: Split, tmp_path: Path, is_there: bool
) -> None:
    """A debug file that is a link to an absolute path is the container's file there, or none: never this machine's."""
    target = tmp_path / "all_debug_files" / "service.debug"
    target.parent.mkdir()
    # The same build id and all, so that only its place is wrong.
    run("objcopy", "--redefine-sym", "main=other_main", split.debug, target)
    split.by_build_id(container.root / "usr/lib/debug").symlink_to(target)
    if is_there:
        inside = container.root / str(target).lstrip("/")
        inside.parent.mkdir(parents=True)
        shutil.move(split.debug, inside)
    report = report_of(leaktrace, container.start(split.program))
    if is_there:
        assert_told_in_full(report, split.program)
    else:
        assert_nameless(report, split.program)


def child_of(pid: int) -> int:
    """Return the pid of a process's only child."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_names_of_made_code_in_a_pid_namespace(build: Build, container: Container, leaktrace: Starter) -> None:
    """Code made at run time is named by /tmp/perf-1.map of the container, as the program knows itself by that number."""
    container.add(build("symbols_jit.c"), "/usr/bin/jit")
    running = container.start("/usr/bin/jit", pids=True)
    pid = child_of(running.pid)
    assert (container.root / "tmp/perf-1.map").exists() and not Path(f"/tmp/perf-{pid}.map").exists()
    frames = frames_of(report_of(leaktrace, running, pid), 3006)
    assert [frame["function"] for frame in frames[:3]] == ["keep", "MadeAtRunTime", "main"]
    assert frames[1]["module"] == "/tmp/perf-1.map"
    assert frames[-1]["function"] == "_start"


@pytest.mark.parametrize("layer", ["lower", "upper"])
def test_overlays(
    build: Build, leaktrace: Starter, run_program: Any, service: Path, tmp_path: Path, layer: str
) -> None:
    """On the overlay file system of container engines, whose files have two inode numbers, all names are there."""
    require("ldd")
    layers = tmp_path / "layers"
    lower = Container(layers / "lower", run_program)
    for name in ("upper", "work"):
        (layers / name).mkdir()
    lower.add(build("symbols_debug.cpp"), service)
    if layer == "upper":
        # It hides the one below, as a newer layer of an image does.
        lower.add(build("symbols_debug.cpp", "-DOTHER"), service)
        above = layers / "upper" / str(service).lstrip("/")
        above.parent.mkdir(parents=True)
        shutil.copy2(build("symbols_debug.cpp"), above)
    (tmp_path / "container").mkdir()
    words = (sys.executable, PROGRAMS / "symbols_container.py", tmp_path / "container",
             json.dumps({"overlay": str(layers)}), service)
    try:
        running = run_program(*words)
    except AssertionError as problem:
        if "refused: mount" not in str(problem):
            raise
        pytest.skip(f"needs overlay mounts: {problem}")
    report = report_of(leaktrace, running)
    assert_told_in_full(report, service)
    assert [frame["function"].partition("(")[0] for frame in own_frames(report, service)] == LEADING
    assert not os.path.ismount(tmp_path / "container")
