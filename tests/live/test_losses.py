"""Where a trace has no room, it says what is missing to the byte; nothing is dropped in silence."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Starter, functions, site

WAYS = pytest.mark.parametrize("options", [(), ("--hash-map",)], ids=["buckets", "hash_map"])


@WAYS
def test_blocks_without_room_are_counted_as_lost(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """What is held and what did not fit add up to the truth, in bytes and blocks, and stderr says what to raise."""
    program = run_program(build("stacks.c"), "blocks")
    trace = leaktrace.attach(program, "--max-outstanding", "1000", *options)
    (truth,) = program.work()
    result = trace.stop()
    report = result.report
    assert list(report["losses"]) == ["outstanding_full"] and not report["complete"]
    # The promise is room for that many, not for many more.
    assert 1000 <= report["totals"]["live_count"] <= 1300
    assert report["totals"]["live_count"] + report["losses"]["outstanding_full"] == truth["count"]
    assert report["totals"]["live_bytes"] + report["lost_bytes"]["outstanding_full"] == truth["bytes"]
    assert f"{report['losses']['outstanding_full']} allocations" in result.stderr
    assert str(report["lost_bytes"]["outstanding_full"]) in result.stderr and "--max-outstanding" in result.stderr


@WAYS
def test_frees_of_lost_blocks_do_not_count(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """When all is freed, also what had no room, nothing is outstanding: no figure falls below zero or stays behind."""
    program = run_program(build("stacks.c"), "blocks")
    trace = leaktrace.attach(program, "--max-outstanding", "1000", *options)
    program.work()
    program.work()
    report = trace.stop().report
    totals = report["totals"]
    assert (totals["live_bytes"], totals["live_count"], report["sites"]) == (0, 0, [])
    assert totals["freed_count"] == totals["allocated_count"]
    assert list(report["losses"]) == ["outstanding_full"]


def test_copies_of_stacks_leave_room_for_events(build: Callable[..., Path], run_program: Any, leaktrace: Starter) -> None:
    """However many copies of stacks wait for a leaktrace that gets no time, no word of a library that comes or goes is lost."""
    program = run_program(build("stacks.c"), "load")
    trace = leaktrace.attach(program)
    trace.process.send_signal(signal.SIGSTOP)
    program.work()
    trace.process.send_signal(signal.SIGCONT)
    report = trace.stop().report
    assert list(report["losses"]) == ["stack_no_copy"]
    assert site(report, "hold").live == (16 * 5000, 5000)


def test_stacks_without_room_lose_no_bytes(build: Callable[..., Path], run_program: Any, leaktrace: Starter) -> None:
    """With room for 10 stacks of 256, the totals are still exact, and the report says how many have no site."""
    program = run_program(build("stacks.c"), "paths")
    trace = leaktrace.attach(program, "--max-stacks", "10")
    (truth,) = program.work()
    result = trace.stop()
    report = result.report
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"]) == (truth["bytes"], truth["count"])
    assert list(report["losses"]) == ["sites_full"] and report["complete"]
    named = site(report, "hold")
    assert 1 <= named.count <= 11
    assert named.count + report["losses"]["sites_full"] == truth["count"]
    assert named.bytes + report["lost_bytes"]["sites_full"] == truth["bytes"]
    assert "--max-stacks" in result.stderr


def test_every_path_is_a_site_of_its_own(build: Callable[..., Path], run_program: Any, leaktrace: Starter) -> None:
    """With room for them, 256 stacks that differ in the middle are 256 sites, each with its own block."""
    program = run_program(build("stacks.c"), "paths")
    trace = leaktrace.attach(program)
    program.work()
    report = trace.stop().report
    assert report["losses"] == {}
    found = {}
    for each in report["sites"]:
        turns = [name for name in functions(each) if name in ("left", "right")]
        found[int("".join("1" if turn == "left" else "0" for turn in reversed(turns)), 2)] = (
            each["bytes"], each["count"], len(turns))
    assert found == {path: (100 + path, 1, 8) for path in range(256)}


def test_stacks_deeper_than_asked_for_are_cut_and_named(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter
) -> None:
    """--depth 5 keeps five frames and says that there were more; the bytes are exact."""
    program = run_program(build("stacks.c"), "recursion")
    trace = leaktrace.attach(program, "--depth", "5")
    (truth,) = program.work()
    result = trace.stop()
    report = result.report
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"]) == (truth["bytes"], truth["count"])
    assert list(report["losses"]) == ["stack_depth"] and report["complete"]
    assert "--depth" in result.stderr
    # Both ways into the recursion lie beyond the fifth frame, so they are one site.
    (only,) = report["sites"]
    assert functions(only) == ["hold", *["recurse"] * 4]
    assert only["frames"][-1]["why"] == "unwind_stopped" and only["frames"][-1]["function"] is None


@pytest.mark.parametrize("depth", ["103", "127"])
def test_deep_recursion_is_followed_to_its_end(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, depth: str
) -> None:
    """Given enough depth, a recursion of a hundred levels is complete, and both ways into it are told apart."""
    program = run_program(build("stacks.c"), "recursion")
    trace = leaktrace.attach(program, "--depth", depth)
    (truth,) = program.work()
    report = trace.stop().report
    ways = {name: site(report, name) for name in ("one_way", "another_way")}
    assert {name: (way.bytes, way.count) for name, way in ways.items()} == {
        "one_way": (6400, 100), "another_way": (3200, 50)}
    assert sum(way.count for way in ways.values()) == truth["count"]
    if depth == "127":
        assert report["losses"] == {}
        assert [functions(each).count("recurse") for way in ways.values() for each in way.sites] == [101, 91]


def test_a_loss_is_told_once_and_is_in_every_report(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter
) -> None:
    """A loss that does not grow is said once on stderr, and stays in all reports that follow."""
    program = run_program(build("stacks.c"), "paths")
    trace = leaktrace.attach(program, "--max-stacks", "10", interval="0.5")
    program.work()
    while not (first := trace.next_report())["losses"]:
        pass
    result = trace.stop()
    assert result.report["losses"] == first["losses"]
    told = [line for line in result.stderr.splitlines() if "--max-stacks" in line]
    # Once, as it did not grow.
    assert len(told) == 1
