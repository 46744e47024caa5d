"""A judgement at a terminal: all that the plain one says, failed sites in red."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO

from tests.unit.tracer.report.conftest import FINDING, LOST, MISUSES, REPORT
from tests.unit.tracer.report.test_judged import LOSS
from tests.unit.tracer.report.test_terminal import words
from tracer.report import judged
from tracer.report.model import Judged, Judgement, Outcome, SuppressionUse
from tracer.report.terminal_judged import write
from tracer.report.terminal_look import Look

SITES = tuple(Judged(replace(FINDING, rank=rank, bytes=4096 * rank, **(LOST if rank == 1 else {})), outcome, reason, "0123456789abcdef")
              for rank, (outcome, reason) in enumerate((
                  (Outcome.FAILED, "bytes>0"), (Outcome.PASSED, ""), (Outcome.PASSED, ""), (Outcome.KNOWN, "in the baseline"),
                  (Outcome.SUPPRESSED, "leak:x")), 1))
JUDGEMENT = Judgement(SITES, ("total_bytes>1",), 23, ("leak:unused (a.supp:3)",), (SuppressionUse("leak:x", "a.supp:1", 1, 4, 20480),),
                      "FAILED: 1 site over budget")
WHOLE = replace(REPORT, losses=(LOSS,), notes=("No names for 1 frame",), misuses=MISUSES)


def test_nothing_is_dropped() -> None:
    """Every sentence of the plain judgement stands here too; sizes of sites have units."""
    plain, out = StringIO(), StringIO()
    judged.write(WHOLE, JUDGEMENT, plain, top=2)
    write(Look(120, styles=True, colours=True), WHOLE, JUDGEMENT, out, top=2)
    found = words(out.getvalue())
    for line in plain.getvalue().splitlines():
        if "allocations from stack" not in line and not re.match(r"\t#", line):
            assert words(line) in found
    for said in ("FAILED (bytes>0): #1 lost 4.0 kB in 4 blocks", "no pointer to it; 0 of 4", "#2 8.0 kB in 4 blocks", "and 1 more sites"):
        assert said in found, said
    assert "#5" not in found, "it is suppressed"


def test_what_failed_is_red() -> None:
    """The failed site and the conclusion, and nothing of one that passed."""
    out = StringIO()
    write(Look(120, styles=True, colours=True), WHOLE, JUDGEMENT, out, top=2)
    assert "\x1b[1;31mFAILED (bytes>0): \x1b[0m" in out.getvalue() and "\x1b[1;31mFAILED: 1 site over budget" in out.getvalue()
    passed = StringIO()
    write(Look(120, styles=True, colours=True), replace(WHOLE, misuses=None), Judgement(SITES[1:2], (), 0, conclusion="All is well."),
          passed, top=2)
    assert "31m" not in passed.getvalue() and "\x1b[32mAll is well." in passed.getvalue()
