"""scripts/bench_kernel: the load that it runs, what it reads of tools, what it makes of times, how it ends tools."""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import kernel_alone, kernel_comparison, kernel_loads
from benchmarks.child import Child, Failure
from benchmarks.figures import Figure
from benchmarks.kernel_comparison import SOURCE, as_text, in_rounds
from benchmarks.kernel_loads import LOADS, Load, Round, compile_load, measure, round_us
from benchmarks.kernel_rows import BASE, HEADINGS, cells, compare, compare_all, table
from benchmarks.kernel_tools import FINDING, LEAKTRACE, TOOLS, Tool, bpftrace_script, others

MEMLEAK_TOLD = """\
Attaching to kernel allocators, Ctrl+C to quit.
[21:06:16] Top 10 stacks with outstanding allocations:
\t384 bytes in 2 allocations from stack
\t\t0xffffffff816d8ebc\talloc_empty_file+0x3c [kernel]
"""
LEAKTRACE_TOLD = """\
leaktrace: tracing the kernel: slab, pages; Ctrl-C ends with a last report
slab     432 bytes in 4 blocks
[21:06:16] Top 10 stacks with outstanding allocations:
\t384 bytes in 2 allocations from stack
\t\tslab filp, GFP_KERNEL, 376 bytes asked for (2% wasted), node 0
"""
SH = "/bin/sh"


def rounds(*us: float | None, what: str = "devices") -> list[Round]:
    return [Round({} if one is None else {what: one}, "it broke" if one is None else "") for one in us]


def printing(text: str, then: str = "sleep 30") -> tuple[str, ...]:
    return (SH, "-c", f"printf '%s' \"$0\"; {then}", text)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_load(SOURCE, tmp_path_factory.mktemp("load"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short measurements, of which what else the machine traces is no failure."""
    monkeypatch.setattr(kernel_loads, "others", lambda _known: [])
    monkeypatch.setattr(kernel_loads, "SETTLE_S", 0.0)
    monkeypatch.setattr(kernel_loads, "MEASURE_S", 0.6)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.kind)
def test_every_load_tells_its_time_and_processor_time(load: Load, program: Path) -> None:
    """Each load runs, and a round of it takes some time and no more processor time than two processors have."""
    if load.kind == "files" and os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    us = round_us(load, program, None)
    assert 0 < us[load.processor] < 2 * us[load.kind]
    assert us[load.kind] < 1e6


def test_the_load_refuses_what_it_does_not_know(program: Path) -> None:
    """A load that does not exist is an error and no endless silence."""
    assert subprocess.run([program, "other"], capture_output=True, timeout=10, check=False).returncode == 2


def test_a_process_load_counts_its_children(program: Path) -> None:
    """What the load tells of its processor time is what the kernel tells of it and its children, most of it theirs."""
    running = subprocess.Popen([program, "processes"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    told_s = 0.0
    for _ in range(4):
        rate, us = (float(running.stdout.readline().split()[1]) for _ in range(2))
        told_s += rate * 0.25 * us / 1e6
    running.terminate()
    _, _, usage = os.wait4(running.pid, 0)
    running.returncode = 0
    assert told_s == pytest.approx(usage.ru_utime + usage.ru_stime, rel=0.4)


def test_added_time_is_compared_within_rounds() -> None:
    """A round on a slow machine changes no ratio: each tool is compared with what was measured beside it."""
    untraced, ours, memleak = compare("devices", {
        "untraced": rounds(10, 100, 10), LEAKTRACE: rounds(12, 120, 12), BASE: rounds(20, 200, 20)})
    assert (untraced.slowdown, untraced.added_us, untraced.vs_memleak) == (1, None, None)
    assert (ours.median_us, ours.added_us) == (12, 2)
    assert ours.slowdown == pytest.approx(1.2)
    assert ours.vs_memleak == pytest.approx(0.2)
    assert memleak.vs_memleak == pytest.approx(1)


def test_a_round_that_failed_leaves_the_others_in_their_pairs() -> None:
    """What is missing in one round is compared with nothing, and not with another round."""
    _, ours, memleak = compare("devices", {
        "untraced": rounds(10, 100, 10), LEAKTRACE: rounds(None, 150, 11), BASE: rounds(20, 200, None)})
    assert ours.us == (150, 11)
    assert ours.vs_memleak == pytest.approx(0.5)
    assert (ours.why, memleak.why) == ("it broke", "it broke")


def test_without_memleak_there_is_no_ratio() -> None:
    """Where memleak was not measured, or adds nothing, all else is told."""
    for measured in ({}, {BASE: rounds(None)}, {BASE: rounds(10)}):
        rows = compare("devices", {"untraced": rounds(10), LEAKTRACE: rounds(15), **measured})
        assert (rows[1].added_us, rows[1].vs_memleak) == (5, None)


def test_the_tables_have_every_load_and_figure() -> None:
    """Times and processor times of all loads are printed, and figures, also those that could not be measured."""
    measured = {"untraced": rounds(10), LEAKTRACE: rounds(15)}
    compared = compare_all(LOADS, measured)
    text = as_text({"cores": 2}, compared, [Figure("start", 0.5, "s"), Figure("memleak", None, "s", why="not there")])
    assert [one.what for one in compared] == [name for load in LOADS for name in (load.kind, load.processor)]
    assert re.search(r"leaktrace +15 +15-15 +1\.500 +5 +-$", text, re.MULTILINE)
    assert re.search(r"start +0\.500 s$", text, re.MULTILINE)
    assert re.search(r"memleak +-  not there$", text, re.MULTILINE)
    assert table([HEADINGS, cells(compared[0].rows[0])]) in table([HEADINGS, *map(cells, compared[0].rows[:1])])


@pytest.mark.parametrize(("name", "told"), [("memleak", MEMLEAK_TOLD), (LEAKTRACE, LEAKTRACE_TOLD)])
def test_what_tools_say_is_understood(name: str, told: str) -> None:
    """Both tools' real output says when they have attached and what they have found."""
    tool = next(one for one in TOOLS if one.name == name)
    with Child(printing(told)) as tracer:
        attached, _ = tracer.wait_for(tool.attached, 5)
        found, _ = tracer.wait_for(FINDING, 5)
        assert attached <= found


@pytest.mark.usefixtures("quick")
def test_a_tool_that_finds_nothing_is_not_measured(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that attached to nothing would look as if it cost nothing: its first report must name a stack."""
    monkeypatch.setattr(kernel_loads, "REPORT_TIMEOUT_S", 0.5)
    tool = Tool("mute", printing("attached\n"), attached="^attached", finding=FINDING)
    assert "did not print" in measure(tool, LOADS[:1], program, {}).why


@pytest.mark.usefixtures("quick")
def test_a_tool_that_reports_too_early_is_not_measured(program: Path) -> None:
    """The cost of a report is no part of a load's time."""
    attaching, reporting = MEMLEAK_TOLD.split("\n", 1)
    tool = Tool("early", printing(f"{attaching}\n", f"sleep 0.3; printf '%s' '{reporting}'; sleep 30"),
                attached="^Attaching", finding=FINDING)
    assert "while the loads were measured" in measure(tool, LOADS[:1], program, {}).why


@pytest.mark.usefixtures("quick")
def test_a_tool_that_ends_or_is_missing_says_why(program: Path) -> None:
    """The rest of the bench goes on, and the row has the reason."""
    ends = Tool("ends", (SH, "-c", "echo attached; echo no luck; exit 3"), attached="^attached")
    assert "ended with 3: no luck" in measure(ends, LOADS[:1], program, {}).why
    missing = Tool("missing", ("no-such-tool",), needs=("no-such-tool", "its-package"))
    assert measure(missing, LOADS[:1], program, {}).why == "no-such-tool is not there (package its-package)"


@pytest.mark.usefixtures("quick")
def test_tools_alternate(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round has every tool once, so that what changes on the machine meets all alike."""
    order: list[str] = []

    def measured(tool: Tool, *_: object) -> Round:
        order.append(tool.name)
        return Round({})

    monkeypatch.setattr(kernel_comparison, "measure", measured)
    monkeypatch.setattr(kernel_comparison, "busy_part", lambda: 0.0)
    in_rounds(TOOLS[:2], LOADS, 2, 0, program, {})
    assert order == ["untraced", LEAKTRACE] * 2


@pytest.mark.usefixtures("quick")
def test_what_was_measured_beside_another_tracer_does_not_count(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer of somebody else slows the load too: such a round has no time, only the reason."""
    monkeypatch.setattr(kernel_loads, "others", lambda _known: [4711])
    assert measure(TOOLS[0], LOADS[:1], program, {}) == Round({}, "process 4711 traced the kernel too")


def test_other_tracers_are_seen_by_their_files(tmp_path: Path) -> None:
    """A link to a raw tracepoint or a program for a tracepoint tells; maps, other programs and the own tool do not."""
    for pid, text in {10: "link_type:\traw_tracepoint\nlink_id:\t7\n", 11: "pos:\t0\nprog_type:\t5\nprog_jited:\t1\n",
                      12: "prog_type:\t2\n", 13: "map_type:\t5\n", 14: "link_type:\traw_tracepoint\n"}.items():
        (tmp_path / str(pid) / "fdinfo").mkdir(parents=True)
        (tmp_path / str(pid) / "fdinfo" / "3").write_text(text)
    assert others([14], tmp_path) == [10, 11]


def test_bpftrace_is_asked_for_what_the_kernel_has() -> None:
    """Tracepoints that are gone (kmalloc_node since 6.1) are left out, or bpftrace would refuse the whole program."""
    script = bpftrace_script({"kmalloc", "kfree", "kmem_cache_alloc", "rss_stat"})
    assert re.findall(r"^tracepoint:kmem:(\w+)", script, re.MULTILINE) == ["kmalloc", "kmem_cache_alloc", "kfree"]


def test_a_tool_is_ended_from_a_background_job() -> None:
    """Where Ctrl+C is ignored, as in a shell's background job, the bench still ends tools by it."""
    code = ("import sys, time; from benchmarks import kernel_comparison as bench; from benchmarks.child import Child\n"
            "bench.run = lambda options: Child([sys.executable, '-c', 'import time; print(1); time.sleep(60)'])"
            ".__enter__().wait_for('1', 10) and 0\n"
            "made = []; begin = Child.__init__\n"
            "def note(self, *words, **more): begin(self, *words, **more); made.append(self)\n"
            "Child.__init__ = note\n"
            "bench.run_script = lambda work, root_for: work()\n"
            "bench.main([]); before = time.monotonic(); made[0].stop(); print(made[0].process.returncode, "
            "time.monotonic() - before < 10)")
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, timeout=60,
                          check=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.stdout.split() == [str(-signal.SIGINT), "True"]


def test_processor_time_and_memory_are_of_the_process() -> None:
    """A process that computes has its processor time counted, and one that sleeps has none."""
    with Child([sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"]) as busy, Child(["sleep", "60"]) as idle:
        busy.wait_for("1", 10)
        before = [kernel_alone.processor_s(one.pid) for one in (busy, idle)]
        time.sleep(0.5)
        used = [kernel_alone.processor_s(one.pid) - then for one, then in zip((busy, idle), before, strict=True)]
        assert used[0] > 0.05 and used[1] < 0.05
        assert kernel_alone.rss_bytes(busy.pid) > 1 << 20


def test_the_time_of_a_report_needs_a_report() -> None:
    """A tool that ended without a report has no time, and one that printed one has that of its last line."""
    assert kernel_alone.report_time(printing(MEMLEAK_TOLD, "sleep 0.3; echo last")) >= 0.3
    assert kernel_alone.report_time(printing("slab     0 bytes in 0 blocks\n", "exit 0")) < 10
    with pytest.raises(Failure, match="printed no report"):
        kernel_alone.report_time(printing("Attaching to kernel allocators, Ctrl+C to quit.\n", "exit 0"))


def test_a_machine_that_works_is_seen_to() -> None:
    """Whether the machine does something else is read from its processors, between idle and all of them."""
    assert 0 <= kernel_comparison.busy_part() <= 1
