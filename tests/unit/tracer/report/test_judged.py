"""A judgement for people: what failed first, what was accepted summed up, in the plain report's form."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

from tests.unit.tracer.report.conftest import FINDING
from tracer.report.judged import write
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report, SuppressionUse

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
LOSS = LossNote("outstanding_full", 12, 480, "allocations (480 bytes) are missing", "raise --max-outstanding")


def judged(outcome: Outcome, reason: str = "", finding: Finding = FINDING) -> Judged:
    return Judged(finding, outcome, reason, "0123456789abcdef")


def written(report: Report, judgement: Judgement, top: int = 10) -> list[str]:
    out = StringIO()
    write(report, judgement, out, top=top)
    assert out.getvalue().endswith("\n")
    return out.getvalue().splitlines()


def test_a_failed_site(report: MakeReport) -> None:
    """A head with the sums, then the site with the expression and its stack."""
    assert written(report(), Judgement((judged(Outcome.FAILED, "bytes>0"),), (), 23)) == [
        "server (pid 4711): 4096 bytes in 4 allocations from 1 site are outstanding",
        "\tFAILED (bytes>0): 4096 bytes in 4 allocations from stack",
        "\t\t0x00007f0000001234 make_node+0x12 [libnode.so.1] src/node.c:7",
        "\t\t0x0000000000401136 main+0x36 [server]",
    ]


def sites_of(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if "from stack" in line]


def test_failed_first(report: MakeReport, finding: MakeFinding) -> None:
    """Failed sites come before those that passed, these before known ones; suppressed ones are not shown."""
    sites = tuple(judged(outcome, outcome.value, finding(bytes=size)) for size, outcome in enumerate(
        (Outcome.KNOWN, Outcome.SUPPRESSED, Outcome.PASSED, Outcome.FAILED), 1))
    lines = written(report(), Judgement(sites, (), 23))
    assert sites_of(lines) == [
        "FAILED (failed): 4 bytes in 4 allocations from stack", "3 bytes in 4 allocations from stack (passed)",
        "1 bytes in 4 allocations from stack (known)"]
    assert lines[0].endswith("8 bytes in 12 allocations from 3 sites are outstanding")


def test_top_is_of_what_did_not_fail(report: MakeReport) -> None:
    """All that failed is shown, of the rest as many as asked for, and how many more there are is said."""
    failed, passed = judged(Outcome.FAILED, "x"), judged(Outcome.PASSED)
    lines = written(report(), Judgement((failed,) * 3 + (passed,) * 4, (), 23), top=1)
    assert len(sites_of(lines)) == 4 and "and 3 more sites" in lines
    assert "more site" not in "\n".join(written(report(), Judgement((failed, passed), (), 23), top=1))


def test_nothing_is_outstanding(report: MakeReport) -> None:
    """Without sites, and with suppressed ones only, it says so."""
    for sites in ((), (judged(Outcome.SUPPRESSED, "glibc's"),)):
        assert written(report(), Judgement(sites, (), 0)) == ["server (pid 4711): nothing is outstanding"]


def test_sums_that_failed(report: MakeReport) -> None:
    """An expression over sums stands on its own."""
    assert "FAILED: total_bytes>1k" in written(report(), Judgement((judged(Outcome.PASSED),), ("total_bytes>1k",), 23))


def test_what_was_accepted(report: MakeReport) -> None:
    """What suppressions and the baseline accepted is summed up; a suppression without use is named."""
    use = SuppressionUse("the loader's", "built in", 2, 3, 400)
    lines = written(report(), Judgement((judged(Outcome.KNOWN, "known"),), (), 0, ("old (a.supp:3)",), (use,)))
    assert lines[-3:] == ["suppressed: 400 bytes in 3 allocations from 2 sites: the loader's",
                          "in the baseline: 4096 bytes in 4 allocations from 1 site", "not used: old (a.supp:3)"]


def test_losses_and_notes(report: MakeReport) -> None:
    """What is missing, and what would bring it, is at the end, notes as sentences."""
    lines = written(report(losses=(LOSS,), complete=False, notes=("No names", "A sentence.")), Judgement((), (), 4))
    assert lines[-3:] == ["12 allocations (480 bytes) are missing: raise --max-outstanding", "No names.", "A sentence."]


def test_no_target(report: MakeReport) -> None:
    """A run of which nothing was traced says so."""
    assert written(report(targets=()), Judgement((), (), 0))[0].startswith("nothing was traced: ")
