"""The table of kernels in the README, made from what each kernel said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.child import Failure

from kernels.results import Outcome, Result, Test, by_feature

BEGIN = "<!-- kernels: written by scripts/test-kernels --table -->"
END = "<!-- /kernels -->"
#: The parts of doctor's table that are about the kernel.
GROUPS = ("BPF in this kernel", "Probes", "The kernel's own memory", "Other processes")
WORDS = {"ok": "yes", "partly": "partly", "missing": "no", "unknown": "not known"}


def table(results: Sequence[Result], listed: Mapping[str, Sequence[str]]) -> str:
    """Return the table: a column for each kernel, a row for each thing doctor looks at and each feature tested."""
    rows = [["", *(f"{one.name} ({one.version})" if one.version else one.name for one in results)]]
    rows.append(["uprobes are attached by", *(one.way or "?" for one in results)])
    found = [{need.name: need for need in one.needs if need.group in GROUPS} for one in results]
    titles = {name: need.title for one in found for name, need in one.items()}
    for name, title in titles.items():
        words = [WORDS.get(one[name].status, one[name].status) if name in one else "?" for one in found]
        # What every kernel has, or none was asked for, says nothing about any.
        if set(words) - {"?"} not in (set(), {WORDS["ok"]}, {WORDS["unknown"]}):
            rows.append([title, *words])
    shown = [by_feature(one.tests, listed) for one in results]
    rows += [[feature, *(_tests(each[feature]) for each in shown)] for feature in listed]
    rows.append(["all tests", *(_whole(one) for one in results)])
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _tests(found: Sequence[Test]) -> str:
    bad = sum(test.outcome is Outcome.FAILED for test in found)
    good = sum(test.outcome is Outcome.PASSED for test in found)
    if bad:
        return f"**{bad} of {bad + good} tests fail**"
    return f"yes, {good} test{'s' * (good != 1)}" if good else "not tested"


def _whole(result: Result) -> str:
    if result.outcome is Outcome.SKIPPED:
        return "not fetched"
    passed, failed = result.count(Outcome.PASSED), result.count(Outcome.FAILED)
    if result.tests:
        return f"{passed} passed, {failed} failed"
    return f"**{result.why.splitlines()[0].partition(';')[0]}**"


def write(path: Path, text: str) -> None:
    """Put the table between the two comments of a file; Failure if they are not there, once each and in this order."""
    document = path.read_text()
    before, begin, rest = document.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end or END in behind or BEGIN in behind:
        raise Failure(f"{path} has no place for the table. Add these two lines, once each:\n{BEGIN}\n{END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{behind}")
