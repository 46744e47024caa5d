"""A judgement for a terminal: what judged.py says, laid out."""

from __future__ import annotations

from typing import TextIO

from tracer.report import judged, memory_head
from tracer.report.model import Judged, Judgement, Outcome, Report
from tracer.report.terminal import put_losses, put_notes, put_rest, put_scans, put_site, put_written
from tracer.report.terminal_look import Look
from tracer.report.terminal_page import HEADING, STRONG, Page, joined
from tracer.report.terminal_stack import IsOwn, own_frames
from tracer.report.terminal_table import sites

_FAILED, _PASSED = "bold red", "green"


def write(look: Look, report: Report, judgement: Judgement, out: TextIO, *, top: int) -> None:
    """Write the sites that hold memory, failed ones first, at most `top` of those that did not fail; and the sums."""
    page = Page(look)
    shown, live = judged.shown(judgement, top), judged.live(judgement)
    page.put(joined((f"{judged.targets(report)}: ", HEADING), (judged.amount(live), STRONG if live else _PASSED)))
    for head in report.memory:
        page.lines(memory_head.lines(head))
    several, is_own = len(report.targets) > 1, own_frames(report)
    if shown:
        page.gap()
        page.put(sites([site.finding for site in shown], look, several=several))
    for site in shown:
        page.gap()
        _put(page, site, is_own, several=several)
    if len(live) > len(shown):
        page.line(f"and {len(live) - len(shown)} more sites")
    put_scans(page, report)
    put_rest(page, report, is_own, top, top)
    for text in judgement.failed_totals:
        page.line(f"FAILED: {text}", _FAILED)
    put_written(page, lambda lines: judged.write_accepted(judgement, lines))
    put_losses(page, report)
    put_notes(page, report)
    if judgement.conclusion:
        page.line(judgement.conclusion, _FAILED if judgement.exit_code else _PASSED)
    page.write(out)


def _put(page: Page, site: Judged, is_own: IsOwn, *, several: bool) -> None:
    failed = site.outcome is Outcome.FAILED
    put_site(page, site.finding, is_own, several=several, before=f"FAILED ({site.reason}): " if failed else "",
             style=_FAILED, after=[site.reason] if site.reason and not failed else [])
