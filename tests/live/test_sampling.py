"""Sampled figures are estimates: right on the average, as far off as they say, and gone when the blocks are gone.

An estimate may by chance lie more than five standard errors off: once in two million times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Starter, site

FIVE = 5.0
DISTANCE = 4096
SITES = ("small", "medium", "large", "aligned", "resized")
WAYS = pytest.mark.parametrize("options", [("-s", "10"), ("--sample-bytes", str(DISTANCE))], ids=["rate", "bytes"])


def relative_error(report: dict[str, Any], function: str) -> float:
    """Return the reported standard error of a function that has one site."""
    (only,) = site(report, function).sites
    return float(only["relative_error"])


@WAYS
@pytest.mark.parametrize("attach", ["session", "multi"])
def test_estimates_lie_within_their_errors(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...], attach: str
) -> None:
    """Totals and every site, of small and of large blocks, lie within five reported standard errors of the truth."""
    program = run_program(build("samples.c"), str(DISTANCE))
    trace = leaktrace.attach(program, *options, "--attach", attach)
    truth = {each["function"]: each for each in program.work()}
    report = trace.stop().report
    assert report["losses"] == {} and report["sampling"]
    totals, true_bytes = report["totals"], sum(each["bytes"] for each in truth.values())
    # An error bar as wide as the figure would make the rest of this test easy.
    assert 0 < totals["relative_error"] < 0.02
    assert abs(totals["live_bytes"] - true_bytes) <= FIVE * totals["relative_error"] * totals["live_bytes"]
    for function in SITES:
        found = site(report, function)
        allowed = FIVE * relative_error(report, function) * found.bytes
        assert relative_error(report, function) < 0.1
        assert abs(found.bytes - truth[function]["bytes"]) <= allowed, function


@WAYS
def test_the_reported_errors_are_the_true_ones(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """Every site's reported error is the one that follows from the sizes: neither too modest nor too proud."""
    program = run_program(build("samples.c"), str(DISTANCE))
    trace = leaktrace.attach(program, *options)
    truth = {each["function"]: each for each in program.work()}
    report = trace.stop().report
    for function in SITES:
        true = truth[function]
        variance = 9 * true["by_rate"] if options[0] == "-s" else true["by_bytes"]
        expected = math.sqrt(variance) / true["bytes"]
        assert relative_error(report, function) == pytest.approx(expected, rel=0.2), function


def test_the_number_of_blocks_is_estimated_too(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter
) -> None:
    """One in ten: each block that was taken counts as ten, and the sum is as right as chance allows."""
    program = run_program(build("samples.c"), str(DISTANCE))
    trace = leaktrace.attach(program, "-s", "10")
    truth = {each["function"]: each for each in program.work()}
    report = trace.stop().report
    for function in SITES:
        found, true = site(report, function), truth[function]
        assert found.count % 10 == 0
        assert abs(found.count - true["count"]) <= FIVE * math.sqrt(9 * true["count"]), function


def test_large_blocks_are_exact_when_sampling_by_bytes(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter
) -> None:
    """Blocks of at least the sampling distance are all looked at: their site is exact, its error 0; the others' not."""
    program = run_program(build("samples.c"), str(DISTANCE))
    trace = leaktrace.attach(program, "--sample-bytes", str(DISTANCE))
    truth = {each["function"]: each for each in program.work()}
    report = trace.stop().report
    assert site(report, "large").live == (truth["large"]["bytes"], truth["large"]["count"])
    assert relative_error(report, "large") == 0
    for function in set(SITES) - {"large"}:
        assert site(report, function).live != (truth[function]["bytes"], truth[function]["count"])
        assert relative_error(report, function) > 0


@WAYS
def test_frees_take_back_what_births_gave(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """After everything is freed, the estimates are exactly 0, and so are their errors."""
    program = run_program(build("samples.c"), str(DISTANCE))
    trace = leaktrace.attach(program, *options)
    program.work()
    program.work()
    report = trace.stop().report
    totals = report["totals"]
    assert (totals["live_bytes"], totals["live_count"], totals["relative_error"], report["sites"]) == (0, 0, 0, [])
    assert totals["freed_count"] == totals["allocated_count"] > 0
    assert report["losses"] == {}


@WAYS
def test_a_reader_is_told_that_figures_are_estimates(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...]
) -> None:
    """The report names the way of sampling; without sampling, it names none and no errors."""
    program = run_program(build("samples.c"), str(DISTANCE))
    sampled, exact = leaktrace.attach(program, *options), leaktrace.attach(program)
    program.work()
    report, whole = sampled.stop().report, exact.stop().report
    assert options[1] in report["sampling"]
    assert all(each["relative_error"] is not None for each in [report["totals"], *report["sites"]])
    assert whole["sampling"] is None
    assert all(each["relative_error"] is None for each in [whole["totals"], *whole["sites"]])
