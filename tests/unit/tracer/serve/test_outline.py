"""What of a report is sent to those who serve it."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.tracer.serve.conftest import BLOCK, report
from tracer.report.model import Finding
from tracer.serve.outline import load, outline, packed, profiled


def figures(findings: tuple[Finding, ...]) -> dict[str | None, tuple[int, int, int, int]]:
    """Return by function what a profile says: blocks and bytes allocated and held."""
    return {each.frames[0].function: (each.allocated_count, each.allocated_bytes, each.count, each.bytes)
            for each in findings}


def test_it_has_more_sites_than_are_shown() -> None:
    """Whoever scrapes has more use for them than a terminal: all in order and ranked, up to a limit."""
    made = report([(5, 1), (9, 2), (3, 0)], top=1)
    assert [each.rank for each in outline(made).findings] == [1, 2, 3]
    assert [each.frames[0].function for each in outline(made, 2).findings] == ["make_1", "make_0"]


def test_it_survives_the_way() -> None:
    """What is loaded on the other side is the outline; the session's own look at its sites stays behind."""
    made = report([(5, 1), (4, 4), (9, 2)])
    loaded = load(packed(made))
    assert loaded == outline(made) and loaded.sites is not None
    assert loaded.sites.finding(1, 7) == replace(outline(made).sites.finding(1, 0), rank=7)  # type: ignore[union-attr]


def test_a_profile_has_sites_of_which_nothing_is_left() -> None:
    """They have allocated too; where there is no room for all, those that allocated most."""
    made = report([(5, 5), (9, 2), (6, 6), (0, 0)])
    assert figures(profiled(outline(made)).findings) == {
        "make_1": (9, 90, 7, 70), "make_2": (6, 60, 0, 0), "make_0": (5, 50, 0, 0)}
    assert set(figures(profiled(outline(made, 2)).findings)) == {"make_1", "make_2"}


def test_a_profile_can_be_of_the_time_since_another() -> None:
    """What was allocated counts since then, also of sites that were not known; what is held is what is held."""
    before, after = report([(5, 1), (4, 4)]), report([(8, 1), (4, 4), (2, 0), (6, 6)])
    made = profiled(outline(after), outline(before))
    assert figures(made.findings) == {
        "make_0": (3, 3 * BLOCK, 7, 7 * BLOCK), "make_2": (2, 2 * BLOCK, 2, 2 * BLOCK), "make_3": (6, 60, 0, 0)}


def test_estimates_that_fall_are_no_negative_allocations() -> None:
    """Scaled from samples, what was allocated can become less than it was."""
    made = profiled(outline(report([(5, 1)])), outline(report([(6, 1)])))
    assert figures(made.findings) == {"make_0": (0, 0, 4, 40)}


def test_a_report_without_a_table_has_its_findings() -> None:
    """As one that was made of findings only."""
    made = replace(report([(5, 1), (9, 2)]), sites=None)
    assert outline(made).findings == made.findings and profiled(outline(made, 1)).findings == made.findings[:1]
