"""What a machine says about its kernel: the tests' results (JUnit XML), and what `leaktrace doctor` found."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.child import Failure

LIST = Path(__file__).with_name("live_tests.txt")


class Outcome(StrEnum):
    """How a test went, or a kernel."""

    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Test:
    """A test that ran. `node` is its id as pytest writes it, without the parameters of the folder it ran in."""

    node: str
    outcome: Outcome
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Need:
    """A row of doctor's: something that leaktrace needs, and how the kernel meets it."""

    name: str
    title: str
    group: str
    status: str
    found: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a kernel: SKIPPED if it could not be fetched, FAILED if it or a test of its did."""

    name: str
    version: str
    outcome: Outcome
    why: str
    seconds: float = 0.0
    tests: tuple[Test, ...] = ()
    needs: tuple[Need, ...] = ()
    way: str = ""
    """How uprobes are attached there: session, multi or perf."""

    def count(self, outcome: Outcome) -> int:
        """Return how many tests went so."""
        return sum(test.outcome is outcome for test in self.tests)


def tests(document: str) -> tuple[Test, ...]:
    """Read pytest's JUnit XML; Failure if it is cut off or none."""
    try:
        cases = list(ElementTree.fromstring(document).iter("testcase"))
    except ElementTree.ParseError as error:
        raise Failure(f"The tests' results cannot be read: {error}.") from error
    return tuple(_test(case) for case in cases)


def _test(case: ElementTree.Element) -> Test:
    path = case.get("classname", "").replace(".", "/")
    # A file that cannot be collected has its module's name, and no class.
    node = f"{path}.py::{case.get('name', '')}" if path else case.get("name", "").replace(".", "/")
    for tag, outcome in (("failure", Outcome.FAILED), ("error", Outcome.FAILED), ("skipped", Outcome.SKIPPED)):
        found = case.find(tag)
        if found is not None:
            told = [line.strip() for line in (found.get("message") or found.text or "").splitlines() if line.strip()]
            return Test(node, outcome, told[0] if told else tag, float(case.get("time", 0)))
    return Test(node, Outcome.PASSED, "", float(case.get("time", 0)))


def checkup(document: str) -> tuple[tuple[Need, ...], str]:
    """Read the JSON document of `leaktrace doctor`: its rows, and the way to attach; nothing where it is none."""
    try:
        read = json.loads(document)
        names = ("need", "title", "group", "status", "found")
        rows = tuple(Need(*(str(row[name]) for name in names)) for row in read["needs"])
        return rows, read["can_trace"]["user"] or ""
    except (ValueError, KeyError, TypeError):
        return (), ""


def judge(status: int | None, why: str, found: Iterable[Test]) -> tuple[Outcome, str]:
    """Return whether a machine passed, and why not: from pytest's exit status (None: it never came) and its tests."""
    found = tuple(found)
    if status is None:
        return Outcome.FAILED, why
    bad = sum(test.outcome is Outcome.FAILED for test in found)
    if bad:
        return Outcome.FAILED, f"{bad} of {len(found)} tests failed"
    if status:
        return Outcome.FAILED, f"pytest ended with {status}"
    if not any(test.outcome is Outcome.PASSED for test in found):
        return Outcome.FAILED, "no test ran"
    return Outcome.PASSED, ""


def features(text: str) -> dict[str, tuple[str, ...]]:
    """Read the list of tests: `[feature]`, and below it the ids of the tests that show it; `#` begins a remark."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        line = line.partition("# ")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            found[line[1:-1]] = []
        elif line and not line.startswith("#"):
            if not found:
                raise Failure(f"{LIST.name}: {line} stands below no [feature].")
            list(found.values())[-1].append(line)
    return {name: tuple(nodes) for name, nodes in found.items()}


def belongs(test: str, listed: str) -> bool:
    """Whether a test is meant by an id of the list: the test, one of its parameters, or one in that file or folder."""
    return test == listed or test.startswith((f"{listed}[", f"{listed}::", f"{listed}/"))


def by_feature(found: Sequence[Test], listed: Mapping[str, Sequence[str]]) -> dict[str, list[Test]]:
    """Return the tests that ran for each feature of the list."""
    return {name: [test for test in found if any(belongs(test.node, node) for node in nodes)]
            for name, nodes in listed.items()}  # fmt: skip
