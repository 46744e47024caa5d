"""Frames of a recording are named again from debug files that are found by build id."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from symbolizer.choices import Style
from symbolizer.frame import Frame, Why
from tracer.errors import UsageError
from tracer.late_names import chains, find, rename

#: Line 4 calls what line 2 has inlined; the call that is recorded is the one of line 2.
SOURCE = """\
extern "C" void *malloc(unsigned long);
static inline __attribute__((always_inline)) void *take(unsigned long size) { void *got = malloc(size); *(char *)got = 1; return got; }
namespace company {
__attribute__((noinline)) void *lose(int size) { void *got = take(size); *(char *)got = 2; return got; }
}
int main(int count, char **) { void *got = company::lose(count); return *(char *)got; }
"""


@dataclass
class Stacks:
    """Stacks in place of a recording's."""

    stacks: list[tuple[Frame, ...]] = field(default_factory=list)

    @property
    def sites(self) -> int:
        return len(self.stacks)

    def frames(self, site: int) -> tuple[Frame, ...]:
        return self.stacks[site]

    def rename(self, stacks: Sequence[tuple[Frame, ...]]) -> None:
        self.stacks = list(stacks)


@dataclass(frozen=True, slots=True)
class Program:
    """A program whose names are in a debug file only. call: where malloc returns to, as the file has it."""

    build_id: str
    debug: Path
    call: int

    def frame(self) -> Frame:
        """Return what a trace without the debug file has."""
        return Frame(0x7F0000000000 + self.call, module="/srv/program", build_id=self.build_id, module_offset=self.call, why=Why.NO_SYMBOLS)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("late")
    (folder / "program.cpp").write_text(SOURCE)

    def run(*words: str) -> str:
        return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout

    run("g++", "-g", "-O1", "-Wl,--build-id", "-o", "program", "program.cpp")
    run("objcopy", "--only-keep-debug", "program", "program.debug")
    code = run("objdump", "-d", "--no-show-raw-insn", "program").partition("<_ZN7company4loseEi>:")[2].splitlines()
    at = next(number for number, line in enumerate(code) if "<malloc@plt>" in line)
    build_id = run("readelf", "-n", "program").partition("Build ID: ")[2].split()[0]
    return Program(build_id, folder / "program.debug", int(code[at + 1].partition(":")[0], 16))


@pytest.fixture(params=["by build id", "anywhere"])
def folder(program: Program, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A folder with the debug file in it, and with what is none."""
    place = tmp_path / "deep" / "down" / "any.name"
    if request.param == "by build id":
        place = tmp_path / ".build-id" / program.build_id[:2] / f"{program.build_id[2:]}.debug"
    place.parent.mkdir(parents=True)
    place.write_bytes(program.debug.read_bytes())
    (tmp_path / "a.text").write_text("text")
    (tmp_path / "a.damaged").write_bytes(b"\x7fELF" + bytes(range(200)))
    os.mkfifo(tmp_path / "a.pipe")
    (tmp_path / "a.loop").symlink_to("a.loop")
    return str(tmp_path)


def test_names_files_lines_and_inlined_calls(program: Program, folder: str) -> None:
    """One frame without a name becomes the call and what it was inlined into, each with its place in the source."""
    libc = Frame(0x10, "__libc_start_main", 5, "/lib/libc.so.6", "ee" * 20, module_offset=0x10)
    found = Stacks([(program.frame(), libc), (libc,)])
    said = rename(found, [folder])
    (inner, outer, last), second = found.stacks
    assert (inner.function, inner.inlined, inner.line) == ("take", True, 2)
    assert (outer.function, outer.inlined, outer.line) == ("company::lose(int)", False, 4)
    assert all(frame.file and frame.file.endswith("program.cpp") for frame in (inner, outer))
    assert {(frame.address, frame.module, frame.build_id, frame.why) for frame in (inner, outer)} == {
        (program.frame().address, "/srv/program", program.build_id, None)}
    assert (last,) == second == (libc,)
    assert said == "1 address named from 1 debug file; none has the build id of libc.so.6."


def test_what_is_there_is_replaced(program: Program, folder: str) -> None:
    """An inlined chain that was recorded is one address: it is not named twice, and keeps its repeats."""
    first = Stacks([(program.frame(),)])
    rename(first, [folder])
    again = Stacks([(*first.stacks[0][:-1], replace(first.stacks[0][-1], repeats=7))])
    rename(again, [folder])
    assert [frame.repeats for frame in again.stacks[0]] == [1, 7]
    assert [frame.function for frame in again.stacks[0]] == [frame.function for frame in first.stacks[0]]


def test_names_as_they_were_asked_for(program: Program, folder: str) -> None:
    """The style of names is that of the recording."""
    found = Stacks([(program.frame(),)])
    rename(found, [folder], Style.NONE)
    assert found.stacks[0][-1].function == "_ZN7company4loseEi"


@pytest.mark.parametrize("changes", [
    {"build_id": None}, {"build_id": "../../../etc/passwd"}, {"build_id": "ab" * 20}, {"module_offset": None}, {"module_offset": -1},
    {"module_offset": 1 << 70}, {"module_offset": 1},
])  # fmt: skip
def test_what_cannot_be_named_stays(program: Program, folder: str, changes: dict[str, object]) -> None:
    """Whatever a recording says of a frame, one without a debug file or outside of it is as it was."""
    frame = replace(program.frame(), **changes)  # type: ignore[arg-type]
    found = Stacks([(frame,)])
    rename(found, [folder])
    assert found.stacks == [(frame,)]


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is an error with a remedy, and one without debug files is none."""
    with pytest.raises(UsageError, match="is no folder"):
        rename(Stacks(), [str(tmp_path / "absent")])
    assert find([str(tmp_path)], ["ab" * 20]) == {}


def test_chains() -> None:
    """Recursion at one call site is not inlining, and one address does not take the inlined calls of the next."""
    call = Frame(1, "f", 1, "m", "b", module_offset=1)
    inlined = Frame(2, "g", None, "m", "b", inlined=True, module_offset=2)
    outer = Frame(2, "h", 1, "m", "b", module_offset=2)
    assert list(chains([call, call, inlined, inlined, outer, inlined, call])) == [
        (call,), (call,), (inlined, inlined, outer), (inlined,), (call,)]
