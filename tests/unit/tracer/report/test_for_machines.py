"""What the machine formats say alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.report.conftest import DOUBLE, FINDING, LOST, MISMATCH, MISUSES, REPORT, UNKNOWN
from tracer.report.for_machines import failed_on_misuses, fingerprint, in_total, stacks, title, verdict
from tracer.report.misuse_model import Kind, Misuse
from tracer.report.model import Judgement


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, "lost (high confidence): no pointer to it; 0 of 4 were ever freed"),
    ({"confidence": None}, "lost: no pointer to it; 0 of 4 were ever freed"),
    ({"evidence": None}, "lost (high confidence)"), ({"verdict": None}, ""),
])
def test_verdict(changes: dict[str, None], expected: str) -> None:
    """A verdict says how sure it is and why, as far as that is known; where there is none nothing is said."""
    assert verdict(replace(FINDING, **(LOST | changes))) == expected


@pytest.mark.parametrize(("expression", "expected"), [
    ("misuses>0", "6 misused frees in total"), ("total_bytes>1", "4096 bytes in 4 allocations not given back in total"),
    ("misuses>0 or total_bytes>1", "4096 bytes in 4 allocations not given back in total and 6 misused frees"),
])
def test_in_total(expression: str, expected: str) -> None:
    """The sums are said that the expression compares."""
    assert in_total(replace(REPORT, misuses=MISUSES), expression) == expected


def test_failed_on_misuses() -> None:
    """Of the failed expressions those count that name wrong frees, and not those of another name."""
    assert failed_on_misuses(Judgement((), ("total_bytes>1", "misuses>0", "not misuses<1"), 23)) == "misuses>0; not misuses<1"
    assert failed_on_misuses(Judgement((), ("total_bytes>1", "other_misuses>1"), 23)) == ""


def test_title() -> None:
    """The innermost function with a name is the place, and without any there is a title all the same."""
    assert title(replace(UNKNOWN, freed=(Frame(1), Frame(2, "f"), Frame(3, "g")))) == "free of an unknown address in f"
    assert title(replace(DOUBLE, freed=())) == "double free in unknown function"


def test_stacks() -> None:
    """Stacks come in the order in which it happened; those that are not known or empty are left out."""
    assert [done for done, _ in stacks(DOUBLE)] == ["allocated", "freed before", "freed"]
    assert [done for done, _ in stacks(replace(DOUBLE, allocated=()))] == ["freed before", "freed"]
    assert [done for done, _ in stacks(UNKNOWN)] == ["freed"]


def moved(frame: Frame) -> Frame:
    """Return the frame as another build has it, in another place."""
    return Frame(7, f"{frame.function} [.cold]", 1, "/opt/libserver.so.2", "ffff", "/other.cpp", 99, repeats=3)


def rebuilt(frames: tuple[Frame, ...] | None) -> tuple[Frame, ...] | None:
    return frames and tuple(moved(frame) for frame in frames for _ in range(2))


def test_a_fingerprint_outlasts_a_build() -> None:
    """Addresses, lines, folders, versions, clones, recursion, processes and counts are no part of it."""
    def in_library(frames: tuple[Frame, ...] | None) -> tuple[Frame, ...] | None:
        return frames and tuple(replace(frame, module="/usr/lib/libserver.so.1.9") for frame in frames)

    first = replace(DOUBLE, allocated=in_library(DOUBLE.allocated), freed=in_library(DOUBLE.freed) or (),
                    freed_before=in_library(DOUBLE.freed_before))
    second = replace(first, pid=1, count=99, allocated=rebuilt(first.allocated), freed=rebuilt(first.freed) or (),
                     freed_before=rebuilt(first.freed_before))
    assert fingerprint(first) == fingerprint(second)
    assert len(fingerprint(first)) == 16 and int(fingerprint(first), 16)


@pytest.mark.parametrize("other", [
    MISMATCH, replace(DOUBLE, kind=Kind.UNKNOWN), replace(DOUBLE, freed_by="delete"), replace(DOUBLE, allocated_by="new"),
    replace(DOUBLE, freed_before_by="delete"), replace(DOUBLE, allocated=None), replace(DOUBLE, freed_before=DOUBLE.freed),
    replace(DOUBLE, freed=(replace(DOUBLE.freed[0], function="f"),)),
    replace(DOUBLE, freed=(replace(DOUBLE.freed[0], module="/bin/f"),)),
])
def test_fingerprints_differ(other: Misuse) -> None:
    """What is wrong, by which functions, and each of the stacks are part of it."""
    assert fingerprint(other) != fingerprint(DOUBLE)
