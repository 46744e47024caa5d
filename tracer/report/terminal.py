"""The report for a terminal: what text.py says, laid out with colour, aligned numbers and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from typing import TextIO

from tracer.report import cross_lines, judged, kernel_lines, memory_head, misuses, processes, verdict_lines
from tracer.report.memory_head import duration
from tracer.report.misuse_model import Misuses
from tracer.report.model import Finding, Report
from tracer.report.terminal_look import Look
from tracer.report.terminal_names import cut
from tracer.report.terminal_page import HEADING, QUIET, STRONG, VERDICTS, WARNING, Page, joined
from tracer.report.terminal_stack import IsOwn, own_frames, put_stack
from tracer.report.terminal_table import amount, function, sites, verdict
from tracer.report.text import PROCESSES, where
from tracer.report.wording import blocks

#: How far what belongs to a site is indented.
INDENT = 4


def write(look: Look, report: Report, out: TextIO) -> None:
    """Write one report: its head, a table of sites, then each site with its stack."""
    page = Page(look)
    put_head(page, report)
    several = len(report.targets) > 1 or report.follows
    if report.findings:
        page.gap()
        page.put(sites(report.findings, look, several=several))
    put_scans(page, report)
    is_own = own_frames(report)
    for finding in report.findings:
        page.gap()
        put_site(page, finding, is_own, several=several)
    put_rest(page, report, is_own, PROCESSES, max(1, len(report.findings)))
    put_losses(page, report)
    put_notes(page, report)
    page.gap()
    page.write(out)


def put_head(page: Page, report: Report) -> None:
    """Add what was traced, when and for how long, the sums, and where the memory went."""
    exact, totals = page.look.exact, report.totals
    time = report.taken.strftime("%H:%M:%S")
    page.put(joined((judged.targets(report), HEADING), (f"  [{time}] after {duration(report.elapsed_s)}", "")))
    held = len(report.sites.order) if report.sites is not None else len(report.findings)
    shown = f" from {held:,} site{'' if held == 1 else 's'}" if report.sites is not None else ""
    first = f"; {len(report.findings)} of them below" if len(report.findings) < held else ""
    page.put(joined(("outstanding: ", ""), (amount(totals.live_bytes, exact), STRONG),
                    (f" in {blocks(totals.live_count)}{shown}{first}", "")))
    page.line(f"allocated since the start: {amount(totals.allocated_bytes, exact)} in "
              f"{blocks(totals.allocated_count)}, {totals.freed_count:,} of them freed", QUIET)
    if report.sampling:
        error = f", ±{report.total_error:.0%} in total" if report.total_error else ""
        page.line(f"estimates from {report.sampling}{error}; ± is one standard error", WARNING)
    for head in report.memory:
        page.gap()
        page.lines(memory_head.lines(head))
    if report.sources:
        page.gap()
        page.lines(kernel_lines.head(report))


def put_site(page: Page, finding: Finding, is_own: IsOwn, *, several: bool, before: str = "", style: str = "",
             after: Sequence[str] = ()) -> None:
    """Add a site: what it holds, its verdict and evidence, its blocks, its stack. before, after: what else is said."""
    exact = page.look.exact
    head = [(before, style), (f"#{finding.rank} ", STRONG)]
    if finding.verdict is not None:
        head.append((f"{verdict(finding)} ", VERDICTS.get(finding.verdict, "")))
    head.append((f"{amount(finding.bytes, exact)} in {blocks(finding.count)}", STRONG))
    remarks = []
    if finding.gained_bytes is not None and finding.gained_count is not None:
        remarks.append(f"{amount(finding.gained_bytes, exact, signed=True)}, {finding.gained_count:+,} blocks "
                       "since the report before")
    if finding.error:
        remarks.append(f"±{finding.error:.0%}")
    if several:
        remarks.append(where(finding))
    remarks += after
    if remarks:
        head.append((f" ({'; '.join(remarks)})", ""))
    page.put(joined(*head))
    if finding.verdict is not None:
        page.line(f"{cut(function(finding), page.width - INDENT)}: {finding.evidence}", "italic", INDENT)
    about = kernel_lines.describe(finding)
    if about is not None:
        page.line(about, "", INDENT)
    for block in finding.blocks:
        page.line(f"addr = {block.address:x} size = {block.size}", QUIET, INDENT)
    put_stack(page, finding.frames, is_own, INDENT)


def put_scans(page: Page, report: Report) -> None:
    """Add what the looks at memory brought."""
    put_written(page, lambda out: verdict_lines.write_scans(report, out))


def put_rest(page: Page, report: Report, is_own: IsOwn, top: int, top_functions: int) -> None:
    """Add frees that are wrong, processes, and comparisons with the kernel's books."""
    if report.misuses is not None:
        page.gap()
        put_misuses(page, report.misuses, is_own)
    put_written(page, lambda out: processes.write(report, out, top=top))
    put_written(page, lambda out: out.writelines(f"{line}\n" for line in cross_lines.lines(report, top_functions)))


def put_misuses(page: Page, found: Misuses, is_own: IsOwn) -> None:
    """Add each wrong free and its stacks."""
    page.line(misuses.title(found), "bold red" if found.found else "green")
    for misuse in found.found:
        page.line(misuses.sentence(misuse), STRONG, INDENT)
        for title, frames in misuses.stacks(misuse):
            page.line(f"{title}:", "", 2 * INDENT)
            put_stack(page, frames, is_own, 3 * INDENT)
            if not frames:
                page.line(misuses.NO_STACK, QUIET, 3 * INDENT)
    page.lines(misuses.undecided(found), WARNING)


def put_losses(page: Page, report: Report) -> None:
    """Add what was lost, and what to do about it."""
    if report.losses:
        page.gap()
    for loss in report.losses:
        page.line(f"{loss.count:,} {loss.meaning}: {loss.remedy}", WARNING)


def put_notes(page: Page, report: Report) -> None:
    """Add what stacks lack, and what would bring it."""
    if report.notes:
        page.gap()
    page.lines(f"{note}{'' if note.endswith('.') else '.'}" for note in report.notes)


def put_written(page: Page, write: Callable[[TextIO], None]) -> None:
    """Add what something writes as plain text, a gap before it if it is anything."""
    out = StringIO()
    write(out)
    if made := out.getvalue():
        page.gap()
        page.lines(made.split("\n")[:-1])
