"""Every byte and every block, of every C function, over hundreds of thousands of calls from four threads: nothing is about right."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, Starter, functions, site

FIGURES = ("bytes", "count", "allocated_bytes", "allocated_count", "freed_count")
#: Of each of four threads.
STEPS = "300000" if LONG else "100000"
#: One arena and no thread caches: an address that one thread frees, another gets at once.
CONTENDED = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0"}


def assert_sites_exact(report: dict[str, Any], truth: list[dict[str, Any]]) -> None:
    """Compare every site's five figures with what the program counted."""
    figures = figures_shown(report)
    wanted = [{"function": each["function"], **{figure: each[figure] for figure in figures}} for each in truth]
    found = {each["function"]: site(report, each["function"]) for each in truth}
    got = [{"function": name, **{figure: getattr(sums, figure) for figure in figures}} for name, sums in found.items()]
    # Together, so that a failure shows both.
    assert (got, losses(report)) == (wanted, {})
    assert report["complete"]


def is_cut_short(report: dict[str, Any]) -> bool:
    """Return whether it has stacks cut short as a machine in software may: it learns slowly in its first moments."""
    return bool(os.environ.get("LEAKTRACE_GUEST")) and "stack_no_copy" in report["losses"]


def figures_shown(report: dict[str, Any]) -> Sequence[str]:
    """Return what its sites must add up to. One of a stack cut short whose blocks are all freed is not in a report."""
    return FIGURES[:2] if is_cut_short(report) else FIGURES


def losses(report: dict[str, Any]) -> dict[str, int]:
    """Return what was lost that must not be."""
    slow = {"stack_no_copy"} if is_cut_short(report) else set()
    return {name: count for name, count in report["losses"].items() if name not in slow}


def assert_totals_exact(totals: dict[str, Any], truth: list[dict[str, Any]]) -> None:
    """Compare the totals with what the program counted."""
    wanted = {("live_" + figure if figure in ("bytes", "count") else figure): sum(each[figure] for each in truth)
              for figure in FIGURES}
    assert {name: totals[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param(("--attach", "session"), {}, id="session"),
        pytest.param(("--attach", "multi"), {}, id="multi"),
        pytest.param(("--attach", "perf"), {}, id="perf"),
        pytest.param(("--hash-map",), {}, id="hash_map"),
        pytest.param((), CONTENDED, id="contended"),
        pytest.param(("--hash-map", "--attach", "multi"), CONTENDED, id="contended_hash_map_multi"),
    ],
)
def test_four_threads_with_every_function_to_the_byte(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    """A process attached to before its work is counted exactly, in total and per call site, by every way to attach."""
    program = run_program(build("exact.c"), STEPS, **environment)
    trace = leaktrace.attach(program, *options)
    truth = program.work()
    report = trace.stop().report
    assert_sites_exact(report, truth)
    assert_totals_exact(report["totals"], truth)
    assert program.finish() == 0


@pytest.mark.alone
@pytest.mark.parametrize("options", [(), ("--attach", "perf")], ids=["best", "perf"])
def test_a_command_is_exact_from_its_first_instruction(
    build: Callable[..., Path], leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """A program started with -c is counted exactly; all it has besides its own blocks is what its threads brought."""
    trace, program = leaktrace.command([build("exact.c"), STEPS], *options)
    truth = program.work()
    report = trace.stop().report
    assert_sites_exact(report, truth)
    # The thread-local storage of each thread, which glibc allocates and keeps.
    threads = site(report, "pthread_create")
    assert threads.count >= 4
    assert_totals_exact(report["totals"], [*truth, {figure: getattr(threads, figure) for figure in FIGURES}])


@pytest.mark.parametrize("options", [(), ("--hash-map",)], ids=["buckets", "hash_map"])
def test_nothing_is_left_when_everything_was_freed(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """After hundreds of thousands of calls whose blocks are all freed again, no byte, no block and no site is outstanding."""
    program = run_program(build("exact.c"), STEPS, "free")
    trace = leaktrace.attach(program, *options)
    truth = program.work()
    report = trace.stop().report
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"], report["sites"]) == (0, 0, [])
    assert losses(report) == {}
    assert_totals_exact(report["totals"], truth)


@pytest.mark.parametrize("attach", ["session", "multi", "perf"])
def test_allocators_left_by_longjmp_silence_nothing(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, attach: str
) -> None:
    """Calls that a longjmp or a signal handler's siglongjmp ends without a return hide none of those that follow."""
    program = run_program(build("jumps.c"))
    trace = leaktrace.attach(program, "--attach", attach, "--alloc-fn", "pool_alloc:size=0",
                             "--free-fn", "pool_free:ptr=0", interval="0.5")
    truth = program.work()
    # Much of what is known of the process is learnt at reports; the first step came before any.
    trace.next_report()
    truth += program.work()
    report = trace.stop().report
    # What a handler on its own stack allocates has a copy of that stack only, not of the interrupted one, until the
    # first is answered; that can be after all 50 rounds, two calls each. No other call may be cut short.
    short = report["losses"].pop("stack_no_copy", 0)
    assert short <= 2 * 50
    assert_sites_exact(report, truth)
    assert_totals_exact(report["totals"], truth)
    handled = [functions(each) for each in site(report, "in_handler").sites]
    complete = [names for names in handled if "interrupted" in names and names[-1] == "_start"]
    assert complete and len(handled) - len(complete) <= short, handled
    assert program.finish() == 0


LIBRARIES = "/usr/lib/x86_64-linux-gnu"
#: mimalloc, built as C, ends the program where operator new should throw.
NEWS = [
    pytest.param("", (), id="glibc"),
    pytest.param("libjemalloc.so.2", (), id="jemalloc"),
    pytest.param("libtcmalloc_minimal.so.4", (), id="tcmalloc"),
    pytest.param("libmimalloc.so.2.0", ("nothrow",), id="mimalloc"),
]


#: Each allocator by the best way, and each way with glibc's and one that throws by itself; with LEAKTRACE_LONG, all.
NEWS_BY_WAY = [
    pytest.param(attach, *new.values, id=f"{new.id}-{attach}")
    for new in NEWS for attach in ("session", "multi", "perf")
    if LONG or attach == "session" or new.id == "glibc" or (new.id, attach) in (("jemalloc", "perf"), ("mimalloc", "multi"))
]


@pytest.mark.parametrize(("attach", "preload", "arguments"), NEWS_BY_WAY)
def test_exceptions_leave_operator_new_unharmed_and_counted(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, attach: str, preload: str,
    arguments: tuple[str, ...],
) -> None:
    """A program whose operator new throws, by any allocator, lives on under trace, and its figures are exact."""
    environment = {}
    if preload:
        if not Path(LIBRARIES, preload).exists():
            pytest.skip(f"needs {preload}")
        environment["LD_PRELOAD"] = f"{LIBRARIES}/{preload}"
    program = run_program(build("news.cpp"), *arguments, **environment)
    trace = leaktrace.attach(program, "--attach", attach)
    *truth, last = program.work()
    report = trace.stop().report
    assert_sites_exact(report, truth)
    totals = report["totals"]
    live = (sum(each["bytes"] for each in truth), sum(each["count"] for each in truth))
    assert (totals["live_bytes"], totals["live_count"]) == live
    assert totals["allocated_count"] - totals["freed_count"] == totals["live_count"]
    # Every thrown object is a block for a while; some runtimes have theirs elsewhere.
    thrown = totals["allocated_count"] - sum(each["allocated_count"] for each in truth)
    assert 0 < thrown <= last["exceptions"]
    assert program.finish() == 0
