"""Stacks become sites as they were asked to: by function, line or address, recursion folded, the allocator left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import functions
from tests.live.test_options import run_tool

Build = Callable[..., Path]
#: The turns of deep() in symbols_grouping.
TURNS = (2, 3, 5, 9)


@pytest.fixture(scope="module")
def trace_it(build: Build) -> Callable[..., dict[str, Any]]:
    """Return a function that traces symbols_grouping to its end with these options, and returns the report."""

    def trace(*options: str) -> dict[str, Any]:
        words = ("-c", str(build("symbols_grouping.cpp")), "--format", "json", "-T", "10000", *options, "3600")
        answer = run_tool(*words, stdin="\n\n")
        assert answer.returncode == 0, answer.stderr
        (report,) = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith('{"schema"')]
        document: dict[str, Any] = report
        return document

    return trace


def sites_in(report: dict[str, Any], function: str) -> list[dict[str, Any]]:
    """Return the sites with that function among their frames."""
    return [one for one in report["sites"] if function in functions(one)]


@pytest.mark.parametrize(
    ("options", "blocks"),
    [(("--group-by", "function"), [3]), ((), [1, 2]), (("--group-by", "line"), [1, 2]),
     (("--group-by", "address"), [1, 1, 1]), (("--raw-stacks",), [1, 1, 1])],
    ids=["function", "default", "line", "address", "raw"],
)
def test_what_makes_two_stacks_one_site(
    trace_it: Callable[..., dict[str, Any]], options: tuple[str, ...], blocks: list[int]
) -> None:
    """Three calls in two lines of one function are 1, 2 or 3 sites, and their figures add up in each case."""
    sites = sites_in(trace_it(*options), "three_calls")
    assert sorted(one["count"] for one in sites) == blocks
    assert all(one["bytes"] == 100 * one["count"] == one["allocated_bytes"] for one in sites)
    assert all(one["stacks"] == one["count"] == one["allocated_count"] for one in sites)


def test_recursion_of_any_depth_is_one_site(trace_it: Callable[..., dict[str, Any]]) -> None:
    """The same function under different numbers of turns of itself is one site, with what was folded counted."""
    report = trace_it()
    sites = sites_in(report, "deep")
    # The innermost turn allocates, the others call: one line each.
    assert sum(one["count"] for one in sites) == len(TURNS)
    (folded,) = [one for one in sites if one["count"] > 1]
    assert folded["stacks"] == len(TURNS) and folded["bytes"] == 200 * len(TURNS)
    assert functions(folded)[:3] == ["deep", "deep", "main"]
    assert [frame["repeats"] > 1 for frame in folded["frames"][:3]] == [False, True, False]


def test_recursion_is_kept_where_all_is(trace_it: Callable[..., dict[str, Any]]) -> None:
    """With --raw-stacks each depth of a recursion is a site of its own, and each turn a frame."""
    sites = sites_in(trace_it("--raw-stacks"), "deep")
    assert sorted(functions(one).count("deep") for one in sites) == list(TURNS)
    assert all(frame["repeats"] == 1 for one in sites for frame in one["frames"])


def test_depths_are_told_apart_by_address(trace_it: Callable[..., dict[str, Any]]) -> None:
    """By address each depth is a site, folded, with the number of turns."""
    sites = sites_in(trace_it("--group-by", "address"), "deep")
    turns = [sum(frame["repeats"] for frame in one["frames"] if (frame["function"] or "").startswith("deep("))
             for one in sites]
    assert sorted(turns) == list(TURNS)


@pytest.mark.parametrize(("own", "size"), [("by_new", 300), ("by_vector", 400)])
def test_the_allocators_own_frames(trace_it: Callable[..., dict[str, Any]], own: str, size: int) -> None:
    """A stack begins with who asked for memory, and with --raw-stacks with operator new and std::allocator."""
    (cut,), (raw,) = sites_in(trace_it(), own), sites_in(trace_it("--raw-stacks"), own)
    assert cut["bytes"] == raw["bytes"] == size
    dropped = functions(raw)[: len(functions(raw)) - len(functions(cut))]
    assert functions(raw) == dropped + functions(cut)
    assert dropped[0] == "operator new"
    if own == "by_new":
        assert dropped == ["operator new"] and functions(cut)[:2] == ["by_new", "main"]
    else:
        assert any("allocate" in name for name in dropped)
        assert "std::vector<int" in functions(cut)[0] and "::reserve" in functions(cut)[0]
        assert functions(cut)[1:3] == ["by_vector", "main"]
