"""The pprof profile, read by Google's pprof as it comes with Go: its figures, names, files and lines are the report's."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from tracer.report.model import AddressMap, Finding, KernelNote, LossNote, MappedFile, Report, Target
from tracer.report.pprof import profile, write
from tracer.report.pprof_messages import profile_class
from tracer.report.site_table import SiteTable

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
Pprof = Callable[..., list[str]]

PROGRAM = MappedFile(0x401000, 0x402000, 0x1000, "/usr/bin/server", "cd34")
LIBRARY = MappedFile(0x7F0000000000, 0x7F0000010000, 0, "/usr/lib/libnode.so.1", "ab12")
MAPPINGS = (AddressMap(4711, (LIBRARY, PROGRAM)),)
INNER, OUTER = (
    Frame(0x7F0000001234, "copy(Node&)", None, LIBRARY.path, "ab12", "src/copy.h", 70, inlined=True),
    Frame(0x7F0000001234, "clone()", None, LIBRARY.path, "ab12", "src/copy.h", 80, inlined=True),
)
MAKE = Frame(0x7F0000001234, "make_node(int)", 18, LIBRARY.path, "ab12", "src/node.c", 7)
MAIN = Frame(0x401136, "main", 0x36, PROGRAM.path, "cd34", "src/main.c", 12)
NAMELESS = Frame(0x401200, None, None, PROGRAM.path, "cd34", why=Why.NOT_COVERED, module_offset=0x401200)


@pytest.fixture
def pprof(tmp_path: Path) -> Pprof:
    """Return a function that gives what pprof prints of a report, by lines; its options come first."""
    go = shutil.which("go")
    if go is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs go, of Debian's golang-go")

    def run(report: Report, *options: str, **said: Any) -> list[str]:
        with (tmp_path / "profile.pb.gz").open("wb") as out:
            write(report, out, **said)
        # Names as they are written, and nothing looked up in the files of this machine.
        arguments = [go, "tool", "pprof", "-symbolize=none", *options, "profile.pb.gz"]
        answer = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
                                env=os.environ | {"HOME": str(tmp_path), "TZ": "UTC"})
        assert answer.returncode == 0, answer.stderr
        assert "warning" not in answer.stderr.lower(), answer.stderr
        return answer.stdout.splitlines()

    return run


def section(lines: list[str], title: str) -> list[str]:
    """Return the lines of a part of what -raw prints, without how they are indented."""
    begin = lines.index(title) + 1
    ends = [at for at, line in enumerate(lines) if at >= begin and re.fullmatch("Locations|Mappings", line)]
    return [line.strip() for line in lines[begin : min(ends, default=len(lines))]]


def test_a_sample_has_four_values(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """All and live objects and bytes of each site, in the order of Go's heap profiles; live bytes are the default."""
    made = report(finding(frames=(MAKE, MAIN), bytes=4096, count=4, allocated_bytes=8192, allocated_count=8),
                  finding(frames=(NAMELESS, MAIN), bytes=10, count=1, allocated_bytes=30, allocated_count=3), mappings=MAPPINGS)
    lines = section(pprof(made, "-raw"), "Samples:")
    assert lines[0] == "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]"
    assert [line.split() for line in lines[1:]] == [
        ["8", "8192", "4", "4096:", "1", "2"], ["3", "30", "1", "10:", "3", "2"]]


@pytest.mark.parametrize(("options", "total"), [
    (("-unit=B",), "4106B"), (("-sample_index=inuse_objects",), "5"), (("-sample_index=alloc_space", "-unit=B"), "8222B"),
    (("-sample_index=alloc_objects",), "11"),
])
def test_what_pprof_sums_up(pprof: Pprof, report: MakeReport, finding: MakeFinding, options: tuple[str, ...], total: str) -> None:
    """-top of each value: what each function holds itself, and through what it calls, and the sum."""
    made = report(finding(frames=(MAKE, MAIN), bytes=4096, count=4, allocated_bytes=8192, allocated_count=8),
                  finding(frames=(MAIN,), bytes=10, count=1, allocated_bytes=30, allocated_count=3), mappings=MAPPINGS)
    lines = pprof(made, "-top", *options)
    assert f"Showing nodes accounting for {total}, 100% of {total} total" in lines
    rows = {line.split()[5]: line.split() for line in lines if line.endswith(("main", "make_node(int)"))}
    assert rows["main"][3] == total and rows["make_node(int)"][0] == rows["make_node(int)"][3]
    assert float(rows["make_node(int)"][0].rstrip("B")) + float(rows["main"][0].rstrip("B")) == float(total.rstrip("B"))


def test_inlined_calls_are_lines_of_one_location(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """Calls at one address are one location, innermost first, each with its name, file and line; its address is in the call."""
    lines = pprof(report(finding(frames=(INNER, OUTER, MAKE, MAIN)), mappings=MAPPINGS), "-raw")
    assert section(lines, "Locations") == [
        "1: 0x7f0000001233 M=2 copy(Node&) src/copy.h:70 s=0", "clone() src/copy.h:80 s=0", "make_node(int) src/node.c:7 s=0",
        "2: 0x401135 M=1 main src/main.c:12 s=0"]


def test_lines_in_pprof(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """-lines names file and line of each call, and marks what was inlined."""
    lines = pprof(report(finding(frames=(INNER, OUTER, MAKE, MAIN)), mappings=MAPPINGS), "-top", "-lines")
    assert [line.split("100% ")[-1].strip() for line in lines[-4:]] == [
        "copy(Node&) src/copy.h:70 (inline)", "clone() src/copy.h:80 (inline)", "main src/main.c:12", "make_node(int) src/node.c:7"]


def test_inlined_calls_whose_caller_is_not_there(report: MakeReport, finding: MakeFinding) -> None:
    """Where the call that they were inlined into is cut off, inlined calls are a location of their own."""
    other = replace(OUTER, address=0x7F0000005678)
    made = profile(report(finding(frames=(INNER, other)), finding(frames=(INNER, MAIN)), mappings=MAPPINGS))
    assert [[location.address, len(location.line)] for location in made.location] == [
        [INNER.address - 1, 1], [other.address - 1, 1], [MAIN.address - 1, 1]]
    assert [list(sample.location_id) for sample in made.sample] == [[1, 2], [1, 3]]


def test_mappings(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """The program comes first; start, end, offset, path and build id of a file are those of the process."""
    lines = section(pprof(report(finding(frames=(MAKE, MAIN)), mappings=MAPPINGS), "-raw"), "Mappings")
    assert lines == ["1: 0x401000/0x402000/0x1000 /usr/bin/server cd34 [FN][FL][LN][IN]",
                     "2: 0x7f0000000000/0x7f0000010000/0x0 /usr/lib/libnode.so.1 ab12 [FN][FL][LN][IN]"]


def test_names_are_looked_up_by_readers_only_where_none_is_known(report: MakeReport, finding: MakeFinding) -> None:
    """A file in which leaktrace named anything is marked as done, so that no reader puts guesses in the place of names."""
    made = profile(report(finding(frames=(NAMELESS, MAKE)), mappings=MAPPINGS))
    marks = {made.string_table[each.filename]: (each.has_functions, each.has_filenames, each.has_line_numbers, each.has_inline_frames)
             for each in made.mapping}
    assert marks == {PROGRAM.path: (False,) * 4, LIBRARY.path: (True,) * 4}


def test_a_frame_without_a_name_is_an_address_in_its_file(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """pprof shows it as its file, or by its address; where the stack was cut off, it says so."""
    made = report(finding(frames=(NAMELESS, MAIN, Frame(MAIN.address, why=Why.UNWIND_STOPPED))), mappings=MAPPINGS)
    assert pprof(made, "-top")[-3].endswith(" [server]") and pprof(made, "-top")[-2].endswith(" [stack cut off]")
    assert "00000000004011ff [server]" in pprof(made, "-top", "-addresses")[-3]


def test_several_processes(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """A file that two processes have elsewhere is two mappings, one that they share is one, and samples say whose they are."""
    moved = replace(LIBRARY, start=LIBRARY.start + 0x100000, end=LIBRARY.end + 0x100000)
    there = replace(MAKE, address=MAKE.address + 0x100000)
    made = report(finding(frames=(MAKE, MAIN)), finding(frames=(there, MAIN), pid=4712), finding(frames=(MAIN,), pid=4711, processes=2),
                  targets=(Target(4711, "server", PROGRAM.path), Target(4712, "server", PROGRAM.path)),
                  mappings=(*MAPPINGS, AddressMap(4712, (PROGRAM, moved))))
    assert [(each.memory_start, each.memory_limit) for each in profile(made).mapping] == [
        (each.start, each.end) for each in (PROGRAM, LIBRARY, moved)]
    lines = pprof(made, "-raw")
    assert [line for line in section(lines, "Samples:") if "pid" in line or "processes" in line] == ["pid:[4711]", "pid:[4712]", "processes:[2]"]
    # By the build id pprof sees that it is one file, and by the offsets that it is one place in it.
    assert [line.split()[2:4] for line in section(lines, "Locations")] == [["M=2", "make_node(int)"], ["M=1", "main"]]


@pytest.mark.parametrize("known", [MAPPINGS, (), None])
def test_a_process_that_has_gone(report: MakeReport, finding: MakeFinding, known: tuple[AddressMap, ...] | None) -> None:
    """Its files are mappings without addresses, by path and build id."""
    made = profile(report(finding(frames=(MAKE, MAIN), pid=99), targets=(), mappings=known))
    assert [(made.string_table[each.filename], made.string_table[each.build_id], each.memory_start, each.memory_limit)
            for each in made.mapping] == [(LIBRARY.path, "ab12", 0, 0), (PROGRAM.path, "cd34", 0, 0)]


def test_a_return_address_at_the_end_of_a_file(report: MakeReport, finding: MakeFinding) -> None:
    """A call that never returns may be the last of its file: its frame belongs to that file, not to the one mapped behind it."""
    behind = MappedFile(LIBRARY.end, LIBRARY.end + 0x1000, 0, "/usr/lib/libbehind.so", "ee")
    frame = replace(MAKE, address=LIBRARY.end)
    made = profile(report(finding(frames=(frame,)), targets=(), mappings=(AddressMap(4711, (LIBRARY, behind)),)))
    assert [(each.memory_start, each.memory_limit) for each in made.mapping] == [(LIBRARY.start, LIBRARY.end)]


def test_the_kernel(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """Frames of the kernel have its mapping, a module's that of the module, and samples their source and cache."""
    frames = (Frame(0xFFFFFFFF81001234, "kmemdup", 20, "[kernel]"), Frame(0xFFFFFFFFC0001234, "nf_hook", 9, "[nf_tables]"))
    note = KernelNote("kmalloc-64", (), 60, None, 0, None, (), 0)
    lines = pprof(report(finding(pid=0, frames=frames, source="slab", kernel=note), targets=()), "-raw")
    assert section(lines, "Mappings") == ["1: 0x0/0x0/0x0 [kernel]  [FN][FL][LN][IN]", "2: 0x0/0x0/0x0 [nf_tables]  [FN][FL][LN][IN]"]
    assert section(lines, "Samples:")[-1] == "cache:[kmalloc-64] source:[slab]"
    assert section(lines, "Locations")[0] == "1: 0xffffffff81001233 M=1 kmemdup :0 s=0"


def test_verdicts_select_samples(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """-tagfocus=verdict=lost leaves the sites that are lost."""
    made = report(finding(frames=(MAKE, MAIN), verdict="lost", bytes=100), finding(frames=(MAIN,), verdict="steady", bytes=900),
                  mappings=MAPPINGS)
    lines = pprof(made, "-top", "-unit=B", "-tagfocus=verdict=lost")
    assert lines[-2].split()[0] == "100B" and "900B" not in " ".join(lines)


def test_time_and_duration(pprof: Pprof, report: MakeReport) -> None:
    """The time is that of the trace's start, and the duration how long it ran."""
    lines = pprof(report(elapsed_s=67.0), "-top")
    assert "Time: Mar 1, 2026 at 7:04am (UTC)" in lines
    assert any(line.startswith("Duration: 67s, Total samples = ") for line in lines)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 1e300])
def test_impossible_durations(report: MakeReport, seconds: float) -> None:
    """A file from elsewhere may say anything: what no profile can say is 0."""
    assert profile(report(elapsed_s=seconds)).duration_nanos == 0


def test_what_the_comments_say(pprof: Pprof, report: MakeReport) -> None:
    """Version, command, kernel, processes, what is estimated, lost and not named."""
    made = report(sampling="one in 10 allocations", total_error=0.1, complete=False, notes=("No names for 9 frames in x",),
                  losses=(LossNote("outstanding_full", 12, 480, "allocations are missing", "raise --max-outstanding"),))
    lines = pprof(made, "-comments", command=("leaktrace", "-p", "4711", "-d", "a b"), version="9.8.7")
    assert lines == [
        "leaktrace 9.8.7", "command: leaktrace -p 4711 -d 'a b'", "kernel 6.18.44", "process 4711: server, /usr/bin/server",
        "estimates from one in 10 allocations, ±10% in total", "not complete: there are allocations that were not counted",
        "outstanding_full: 12 allocations are missing: raise --max-outstanding", "No names for 9 frames in x"]


def test_many_processes_are_not_all_named(report: MakeReport) -> None:
    """Ten processes are named, and how many more there are."""
    made = profile(report(targets=tuple(Target(pid, "w", None) for pid in range(25))))
    said = [made.string_table[place] for place in made.comment]
    assert sum(text.startswith("process ") for text in said) == 10 and "and 15 more processes" in said


def table(finding: Finding, held: tuple[int, ...]) -> SiteTable:
    """Return a table of sites that hold so much each, of 100 bytes that each allocated."""
    count = len(held)
    numbers = np.array(held)
    zeros = np.zeros(count)
    return SiteTable(np.arange(count, dtype=np.uint64), numbers, numbers, np.full(count, 100), np.full(count, 100), 100 - numbers,
                     zeros, zeros, zeros, zeros, zeros, np.flatnonzero(numbers),
                     lambda row, rank: replace(finding, rank=rank, bytes=held[row], allocated_bytes=100))


def test_sites_that_gave_everything_back(report: MakeReport, finding: MakeFinding) -> None:
    """They are in a profile of all sites, as alloc_space is of all that was allocated; not in one of the first only."""
    sites = table(finding(), (50, 0, 70))
    whole = profile(report(*sites.findings(), sites=sites))
    assert sorted(tuple(sample.value)[1::2] for sample in whole.sample) == [(100, 0), (100, 50), (100, 70)]
    assert len(profile(report(*sites.findings(1), sites=sites)).sample) == 1


def test_the_same_report_is_the_same_file(report: MakeReport) -> None:
    """Nothing of the moment at which it is written gets into the file, which is gzip around the message."""
    first, second = BytesIO(), BytesIO()
    write(report(), first)
    write(report(), second)
    assert first.getvalue() == second.getvalue() != b""
    assert profile_class().FromString(gzip.decompress(first.getvalue())) == profile(report())


def test_equal_frames_are_one_location(report: MakeReport, finding: MakeFinding) -> None:
    """Frames that are equal are one location and function, also where they are different objects."""
    made = profile(report(finding(frames=(MAKE, MAIN)), finding(frames=(replace(MAKE), replace(MAIN))), mappings=MAPPINGS))
    assert len(made.location) == len(made.function) == 2
    assert [list(sample.location_id) for sample in made.sample] == [[1, 2], [1, 2]]


def test_a_site_without_a_stack(pprof: Pprof, report: MakeReport, finding: MakeFinding) -> None:
    """pprof drops samples without a location, so there is one that says what it stands for."""
    assert pprof(report(finding(frames=())), "-top")[-1].split()[-3:] == ["100%", "[no", "stack]"]


@given(text=st.text(), address=st.integers(-(1 << 63), 1 << 64), line=st.integers(-(1 << 31), 1 << 62), held=st.integers(-(1 << 70), 1 << 70))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_recording_says(report: MakeReport, finding: MakeFinding, text: str, address: int, line: int, held: int) -> None:
    """Any texts and numbers make a message that parses, in which every text is printable and every place is there."""
    frame = Frame(address, text, 0, text, text, text, line)
    made = report(finding(frames=(frame, MAIN), bytes=held, verdict=text), targets=(Target(1, text, text), Target(2, "", None)),
                  kernel=text, notes=(text,), mappings=(AddressMap(4711, (MappedFile(address, address + 1, address, text, text),)),))
    back = profile_class().FromString(profile(made, command=(text,)).SerializeToString())
    assert back.string_table[0] == "" and all(each.isprintable() for each in back.string_table)
    assert {place for sample in back.sample for place in sample.location_id} == {each.id for each in back.location}
    places = [each.name for each in back.function] + [each.filename for each in (*back.function, *back.mapping)] + list(back.comment)
    assert max(places) < len(back.string_table)
