"""The judgement of a report: the outcome of each site, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.report.conftest import FINDING, REPORT
from tracer.errors import ExitCode
from tracer.gate import MISUSES_FULL, Gate
from tracer.judge.baseline import Baseline
from tracer.judge.budget import parse
from tracer.judge.builtin_suppressions import BUILTIN
from tracer.judge.fingerprint import fingerprint
from tracer.judge.suppressions import Suppressions
from tracer.judge.suppressions import parse as parse_suppressions
from tracer.losses import loss_index
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.report.model import Finding, LossNote, Outcome, Report


def finding(rank: int, function: str, size: int, count: int = 1, *, module: str = "/bin/app") -> Finding:
    return replace(FINDING, rank=rank, bytes=size, count=count, frames=(Frame(rank, function, 0, module),))


def report(*findings: Finding, complete: bool = True) -> Report:
    return replace(REPORT, findings=findings, complete=complete)


#: Two sites: f with 100 bytes in 2 blocks, g with 10 in 1.
TWO = report(finding(1, "f", 100, 2), finding(2, "g", 10))
CUT = replace(TWO, complete=False)


def mark(function: str) -> str:
    return fingerprint((Frame(0, function, module="/bin/app"),))


def baseline(sites: Mapping[str, tuple[int, int]]) -> Baseline:
    return Baseline({mark(name): held for name, held in sites.items()}, "before.json", True, 0)


def gate(*budgets: str, suppressions: str = "", known: Mapping[str, tuple[int, int]] | None = None, code: int = 23) -> Gate:
    return Gate(tuple(map(parse, budgets)), Suppressions(parse_suppressions(suppressions, "s")),
                None if known is None else baseline(known), code)


def outcomes(gate: Gate, report: Report = TWO) -> list[tuple[Outcome, str]]:
    return [(site.outcome, site.reason) for site in gate.judge(report, 0).sites]


PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


def test_without_a_budget_everything_passes() -> None:
    """Where nothing was asked, the exit code is the command's, also where the report is not complete."""
    assert outcomes(gate()) == [(PASSED, ""), (PASSED, "")]
    assert gate().judge(TWO, 7).exit_code == 7 and gate().judge(CUT, 7).exit_code == 7


def test_sites_come_in_their_order_with_their_fingerprints() -> None:
    """Each finding has one judgement, at its place."""
    judgement = gate("bytes<50").judge(TWO, 0)
    assert [site.finding for site in judgement.sites] == list(TWO.findings)
    assert [site.fingerprint for site in judgement.sites] == [mark("f"), mark("g")]


def test_each_budget_is_asked() -> None:
    """A site fails for every expression that is true of it, and these are its reason."""
    assert outcomes(gate("bytes>50", "count>1", "bytes>1k")) == [(FAILED, "bytes>50; count>1"), (PASSED, "")]


@pytest.mark.parametrize(("judged", "status", "code"), [
    (TWO, 0, 77), (TWO, 5, 77), (CUT, 0, ExitCode.INCOMPLETE), (CUT, 139, ExitCode.INCOMPLETE),
])  # fmt: skip
def test_exit_code_over_budget(judged: Report, status: int, code: int) -> None:
    """Over budget it is the number asked for; 4 where blocks may be missing; whatever the command's was."""
    assert gate("bytes>50", code=77).judge(judged, status).exit_code == code


@pytest.mark.parametrize(("judged", "status", "code"), [(TWO, 0, 0), (TWO, 5, 5), (TWO, 139, 139), (CUT, 0, 4), (CUT, 5, 4)])
def test_exit_code_within_budget(judged: Report, status: int, code: int) -> None:
    """Within it is the command's, but what was not measured whole is not within."""
    assert gate("bytes>1M").judge(judged, status).exit_code == code


def test_the_default_exit_code_is_leak_sanitizers() -> None:
    """23, where no other was asked for."""
    assert Gate((parse("bytes>0"),)).judge(TWO, 0).exit_code == 23


def test_sums() -> None:
    """An expression over sums alone is the run's, and blames no site."""
    judgement = gate("total_bytes>=110", "total_count>3").judge(TWO, 0)
    assert judgement.failed_totals == ("total_bytes>=110",) and judgement.exit_code == 23
    assert [site.outcome for site in judgement.sites] == [PASSED, PASSED]


def test_an_expression_of_sites_and_sums_is_the_sites() -> None:
    """One over both is asked of each site."""
    judgement = gate("total_bytes>100 and bytes<50").judge(TWO, 0)
    assert judgement.failed_totals == () and [site.outcome for site in judgement.sites] == [PASSED, FAILED]


@pytest.mark.parametrize("more", [{"suppressions": "leak:f\n"}, {"known": {"f": (100, 2)}}])
def test_sums_are_of_what_is_not_accepted(more: dict[str, object]) -> None:
    """What is suppressed or in the baseline does not count."""
    assert gate("total_bytes>=11", **more).judge(TWO, 0).exit_code == 0  # type: ignore[arg-type]  # one of two keywords
    assert gate("total_bytes>=10", **more).judge(TWO, 0).exit_code == 23  # type: ignore[arg-type]  # one of two keywords


def test_suppressions() -> None:
    """A suppressed site does not fail, and says by which line; what it silenced is summed, what was not used is named."""
    asked = gate("bytes>0", suppressions="leak:f\nleak:unheard\n")
    judgement = asked.judge(TWO, 0)
    assert [(site.outcome, site.reason) for site in judgement.sites] == [(Outcome.SUPPRESSED, "f (s:1)"), (FAILED, "bytes>0")]
    (use,) = judgement.used_suppressions
    assert (use.name, use.place, use.sites, use.blocks, use.bytes) == ("f", "s:1", 1, 2, 100)
    assert judgement.unused_suppressions == ("unheard (s:2)",)


def test_a_suppression_of_many_sites() -> None:
    """Sites, blocks and bytes of one suppression are summed."""
    (use,) = gate(suppressions="leak:app\n").judge(TWO, 0).used_suppressions
    assert (use.sites, use.blocks, use.bytes) == (2, 3, 110)


def test_builtin_suppressions_give_their_reason() -> None:
    """One that leaktrace brings says why, and not where it stands; none of the others is called unused."""
    held = report(finding(1, "_IO_file_doallocate", 1024, module="/lib/x86_64-linux-gnu/libc.so.6"))
    judgement = Gate((parse("bytes>0"),), Suppressions(BUILTIN)).judge(held, 0)
    (site,) = judgement.sites
    assert site.outcome is Outcome.SUPPRESSED and site.reason.startswith("the buffer of a stream") and "(" not in site.reason
    assert (judgement.exit_code, judgement.unused_suppressions) == (0, ())


def test_a_baseline_alone_fails_what_is_new_or_grown() -> None:
    """Without a budget, anything that the baseline does not know fails, and the change is part of the reason."""
    known = (Outcome.KNOWN, "it is in before.json and has not grown")
    assert outcomes(gate(known={"f": (100, 2), "g": (10, 1)})) == [known, known]
    (_, new), (_, grown) = (outcomes(gate(known=sites))[0] for sites in ({"g": (10, 1)}, {"f": (60, 1), "g": (10, 1)}))
    assert "new since the baseline" in new and "grown since the baseline by 40 bytes, 1 block" in grown
    assert gate(known={"g": (10, 1)}).judge(TWO, 0).exit_code == 23
    assert gate(known={"f": (100, 2), "g": (10, 1)}).judge(TWO, 5).exit_code == 5


def test_less_than_the_baseline_passes() -> None:
    """What shrank, and what is no longer there, is no failure."""
    assert gate(known={"f": (1000, 20), "g": (10, 1), "h": (5, 5)}).judge(TWO, 0).exit_code == 0


def test_a_baseline_makes_a_gate() -> None:
    """With a baseline and no budget too, a report that is not complete is no pass."""
    assert gate(known={"f": (100, 2), "g": (10, 1)}).judge(CUT, 0).exit_code == ExitCode.INCOMPLETE


def test_budget_and_baseline() -> None:
    """With both, what is new fails only over the budget, and what is known is never asked."""
    assert outcomes(gate("bytes>50", known={"f": (100, 2)})) == [
        (Outcome.KNOWN, "it is in before.json and has not grown"), (PASSED, "new since the baseline")]
    assert outcomes(gate("bytes>50", known={"g": (10, 1)}))[0] == (FAILED, "bytes>50; new since the baseline")


def test_sites_of_one_fingerprint_are_compared_as_one() -> None:
    """Two stacks that a rebuild makes one, or one that it makes two, are the same site to the baseline."""
    split = report(finding(1, "f", 60), finding(2, "f", 40), finding(3, "g", 10))
    assert gate(known={"f": (100, 2), "g": (10, 1)}).judge(split, 0).exit_code == 0
    assert [outcome for outcome, _ in outcomes(gate(known={"f": (99, 2), "g": (10, 1)}), split)][:2] == [FAILED, FAILED]


def test_suppressed_before_known() -> None:
    """A site that is both is called suppressed: its line is in use."""
    judgement = gate(suppressions="leak:f\n", known={"f": (100, 2), "g": (10, 1)}).judge(TWO, 0)
    assert [site.outcome for site in judgement.sites] == [Outcome.SUPPRESSED, Outcome.KNOWN]
    assert judgement.unused_suppressions == ()


def test_nothing_to_judge() -> None:
    """A run that holds nothing passes."""
    judgement = gate("bytes>=0", "total_bytes>0").judge(report(), 0)
    assert (judgement.sites, judgement.failed_totals, judgement.exit_code) == ((), (), 0)


FULL = LossNote("misuses_full", 7, 0, "misused frees are missing from the report: no room", "mend those that are named")
ONE_WRONG = Misuses((Misuse(Kind.UNKNOWN, 1, 1, None, "free", None, None, (), None),))


@pytest.mark.parametrize(("budget", "misuses", "losses", "code"), [
    ("misuses>1", ONE_WRONG, (FULL,), ExitCode.INCOMPLETE), ("misuses>1 and bytes>1M", ONE_WRONG, (FULL,), ExitCode.INCOMPLETE),
    ("misuses>0", ONE_WRONG, (FULL,), 23), ("misuses>1", ONE_WRONG, (), 0), ("bytes>1M", ONE_WRONG, (FULL,), 0),
    ("misuses>1", ONE_WRONG, (replace(FULL, name="sites_full"),), 0),
])  # fmt: skip
def test_a_count_of_wrong_frees_that_is_too_small(budget: str, misuses: Misuses, losses: tuple[LossNote, ...], code: int) -> None:
    """Where wrong frees found no room, a budget of them may fail, and is never said to be kept."""
    judgement = gate(budget).judge(replace(TWO, misuses=misuses, losses=losses), 0)
    assert judgement.exit_code == code
    assert (judgement.conclusion == "NOT CERTAIN: 7 misused frees are missing from the report: no room") is (code == 4)


def test_the_loss_has_that_name() -> None:
    """The name the gate looks for is that of a loss."""
    assert loss_index(MISUSES_FULL) >= 0
