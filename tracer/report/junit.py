"""A judgement as JUnit XML, for the test reporters of Jenkins, GitLab and GitHub.

There is no standard. This keeps to what junit-10.xsd of Jenkins' xunit plugin admits (it rejects files with anything
else, hence no `file` at a test case), and repeats each message as text, because GitLab shows the text only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TextIO
from xml.etree import ElementTree

from symbolizer.frame import Frame
from tracer.report import for_machines
from tracer.report.misuse_model import Misuse
from tracer.report.misuses import sentence
from tracer.report.model import Judged, Judgement, Outcome, Report
from tracer.report.wording import held

# What XML 1.0 (section 2.2) has no way to write, and carriage returns, which every parser turns into newlines.
_FORBIDDEN = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Enough of a fingerprint to tell sites of one function apart.
_FINGERPRINT = 8


def write(report: Report, judgement: Judgement, out: TextIO) -> None:
    """Write one document: a suite for each process, and one for what concerns the run as a whole, if anything does."""
    root = ElementTree.Element("testsuites", name="leaktrace")
    writer = _Writer(root, report)
    misuses = report.misuses.found if report.misuses is not None else ()
    failed = for_machines.failed_on_misuses(judgement)
    for pid, comm in _processes(report, judgement, misuses).items():
        suite, class_name = writer.process(pid, comm)
        sites = [site for site in judgement.sites if site.finding.pid == pid]
        writer.sites(suite, class_name, sites, clean=report.complete and not judgement.failed_totals)
        writer.misuses(suite, class_name, [misuse for misuse in misuses if misuse.pid == pid], failed)
    writer.run(judgement)
    _count(root)
    root.set("time", f"{report.elapsed_s:.3f}")
    ElementTree.indent(root)
    # ASCII with character references, whatever the encoding of out is.
    text = ElementTree.tostring(root, encoding="us-ascii").decode()
    out.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
    out.flush()


def _processes(report: Report, judgement: Judgement, misuses: Iterable[Misuse]) -> dict[int, str]:
    others = [site.finding.pid for site in judgement.sites] + [misuse.pid for misuse in misuses]
    names = {target.pid: target.comm for target in report.targets}
    return names | {pid: "" for pid in others if pid not in names}


class _Writer:
    """Adds suites and cases, and sees to it that no name is there twice: GitLab shows the first only."""

    def __init__(self, root: ElementTree.Element, report: Report) -> None:
        self._root = root
        self._report = report
        self._names: Counter[tuple[str, str]] = Counter()

    def process(self, pid: int, comm: str) -> tuple[ElementTree.Element, str]:
        """Add the suite of a process; return it and what its cases have for a class."""
        suite = self._suite(f"{comm} (pid {pid})" if comm else f"pid {pid}")
        # Jenkins takes what precedes the last dot for a package.
        return suite, f"leaktrace.{comm.replace('.', '_') or 'process'}"

    def sites(self, suite: ElementTree.Element, class_name: str, sites: list[Judged], *, clean: bool) -> None:
        """Add a case for each site; clean: without any, it may be said that nothing leaks."""
        for site in sites:
            case = self._case(suite, class_name, _name(site))
            verdict = for_machines.verdict(site.finding)
            if site.outcome is Outcome.FAILED:
                message = f"{held(site.finding)}, over the budget: {site.reason}{f'. {verdict}' if verdict else ''}"
                _result(case, "failure", "outstanding-memory", message, map(_line, site.finding.frames))
            elif site.outcome in (Outcome.SUPPRESSED, Outcome.KNOWN):
                _result(case, "skipped", site.outcome.value, site.reason,
                        [held(site.finding), *([verdict] if verdict else [])])
            elif verdict:
                _output(case, [f"{held(site.finding)}. {verdict}"])
        if clean and not sites:
            self._case(suite, class_name, "no leaks")

    def misuses(self, suite: ElementTree.Element, class_name: str, misuses: list[Misuse], failed: str) -> None:
        """Add a case for each wrong free; failed: the expressions over the budget that name them."""
        for misuse in misuses:
            name = f"{for_machines.title(misuse)} [{for_machines.fingerprint(misuse)[:_FINGERPRINT]}]"
            case = self._case(suite, class_name, name)
            lines = [line for done, frames in for_machines.stacks(misuse) for line in (f"{done}:", *map(_line, frames))]
            if failed:
                _result(case, "failure", "misused-free", f"{sentence(misuse)}, over the budget: {failed}", lines)
            else:
                _output(case, [sentence(misuse), *lines])

    def run(self, judgement: Judgement) -> None:
        report = self._report
        losses = [f"{loss.count} {loss.meaning}: {loss.remedy}" for loss in report.losses]
        notes = [] if not report.complete else losses
        notes += [f"suppression that nothing matched: {name}" for name in judgement.unused_suppressions]
        if report.complete and not judgement.failed_totals and not notes:
            return
        suite = self._suite("the whole run")
        if not report.complete:
            case = self._case(suite, "leaktrace.run", "the measurement is complete")
            _result(case, "error", "incomplete", "memory may be missing from the report", losses)
        for expression in judgement.failed_totals:
            case = self._case(suite, "leaktrace.run", expression)
            message = f"{for_machines.in_total(report, expression)}, over the budget: {expression}"
            _result(case, "failure", "total-over-budget", message, [])
        if notes:
            _output(suite, notes)

    def _suite(self, name: str) -> ElementTree.Element:
        # Ant's schema has the time of day as people on the machine see it, without a zone.
        taken = self._report.taken.replace(tzinfo=None).isoformat(timespec="seconds")
        return ElementTree.SubElement(self._root, "testsuite", name=_clean(name), timestamp=taken,
                                      time=f"{self._report.elapsed_s:.3f}")

    def _case(self, suite: ElementTree.Element, class_name: str, name: str) -> ElementTree.Element:
        self._names[class_name, name] += 1
        repeat = self._names[class_name, name]
        name = name if repeat == 1 else f"{name} ({repeat})"
        return ElementTree.SubElement(suite, "testcase", classname=_clean(class_name), name=_clean(name))


def _result(case: ElementTree.Element, tag: str, kind: str, message: str, lines: Iterable[str]) -> None:
    result = ElementTree.SubElement(case, tag, type=kind, message=_clean(message))
    result.text = _clean("\n".join([message, *lines]))


def _output(element: ElementTree.Element, lines: Iterable[str]) -> None:
    ElementTree.SubElement(element, "system-out").text = _clean("\n".join(lines))


def _count(root: ElementTree.Element) -> None:
    for element in [root, *root.iter("testsuite")]:
        for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            element.set(attribute, str(sum(1 for _ in element.iter(tag))))
    for suite in root.iter("testsuite"):
        # The schema has it at a suite only.
        suite.set("skipped", str(sum(1 for _ in suite.iter("skipped"))))


def _name(site: Judged) -> str:
    """Name a site by what stays when the program is built again: no address, no line."""
    function = next((frame.function for frame in site.finding.frames if frame.function), "unknown function")
    return f"{function} [{site.fingerprint[:_FINGERPRINT]}]" if site.fingerprint else function


def _line(frame: Frame) -> str:
    """Return a frame with all that is known of it: whoever reads this has no other file of the run."""
    parts = [f"{frame.address:#x}", frame.function or f"({frame.why.value if frame.why else 'no name'})"]
    if frame.offset is not None and frame.function and not frame.inlined:
        parts[1] += f"+{frame.offset:#x}"
    if frame.inlined:
        parts.append("[inlined]")
    if frame.repeats > 1:
        parts.append(f"[{frame.repeats} times]")
    if frame.module:
        parts.append(f"[{frame.module}]")
    if frame.file:
        parts.append(f"{frame.file}:{frame.line}" if frame.line else frame.file)
    return " ".join(parts)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
