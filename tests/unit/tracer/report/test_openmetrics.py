"""OpenMetrics text: taken by the strict parser of prometheus_client and by Prometheus's own, and true to the report."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser

from symbolizer.frame import Frame, Why
from tracer.report.memory_model import MemoryHead, MemoryPart
from tracer.report.model import Finding, LossNote, Report, SourceTotal, Target, Totals
from tracer.report.openmetrics import LONGEST, PROCESSES, SITES, stack_name, write

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
#: It ships types, and none for this.
parse: Callable[[str], Any] = parser.text_string_to_metric_families
HEAD = MemoryHead(4711, "server", 9000, 8000, 8500, 4096, 4, (MemoryPart("outstanding", 4000), MemoryPart("files", 5000)))
LOSSES = (LossNote("outstanding_full", 12, 480, "", ""), LossNote("event", 3, 0, "", ""))


def text_of(report: Report, **options: Any) -> str:
    out = StringIO()
    write(report, out, **options)
    return out.getvalue()


def samples(report: Report, **options: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return all values by name and labels, after the parser has found nothing wrong."""
    found = {}
    for family in parse(text_of(report, **options)):
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            assert key not in found, "a series is there twice, for which Prometheus throws the whole answer away"
            found[key] = sample.value
    return found


def of(report: Report, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the values of one name by labels."""
    return {labels: value for (each, labels), value in samples(report).items() if each == name}


def test_totals(report: MakeReport) -> None:
    """The sums are the report's, of all sites and not only of those that are shown."""
    made = samples(report(totals=Totals(1000, 20, 5000, 100, 80), elapsed_s=2.5))
    bare = {name: value for (name, labels), value in made.items() if not labels}
    assert bare == {
        "leaktrace_elapsed_seconds": 2.5, "leaktrace_complete": 1, "leaktrace_live_bytes": 1000, "leaktrace_live_blocks": 20,
        "leaktrace_allocated_bytes_total": 5000, "leaktrace_allocations_total": 100, "leaktrace_frees_total": 80, "leaktrace_sites": 1}


def test_types_units_and_end(report: MakeReport) -> None:
    """Counters end in _total and gauges do not, units are the end of their family's name, and EOF is the last line."""
    text = text_of(report(losses=LOSSES, memory=(HEAD,)))
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1
    families = list(parse(text))
    assert {family.name: family.type for family in families if family.type != "gauge"} == dict.fromkeys(
        ("leaktrace_allocated_bytes", "leaktrace_allocations", "leaktrace_frees", "leaktrace_losses",
         "leaktrace_lost_bytes", "leaktrace_site_allocated_bytes"), "counter")
    for family in families:
        assert family.documentation and family.name.startswith("leaktrace_")
        assert family.unit == next((unit for unit in ("bytes", "seconds") if family.name.endswith(f"_{unit}")), ""), family.name


def test_a_site(report: MakeReport, finding: MakeFinding) -> None:
    """A site has bytes, blocks, all that it allocated and what is expected to be lost, under labels that say which it is."""
    made = samples(report(finding(verdict="lost", expected_loss=12.5)))
    labels = (("site", stack_name(finding().frames)), ("function", "make_node"), ("module", "/usr/lib/libnode.so.1"),
              ("source", "heap"), ("verdict", "lost"))
    assert {name: value for (name, each), value in made.items() if each == labels} == {
        "leaktrace_site_live_bytes": 4096, "leaktrace_site_live_blocks": 4, "leaktrace_site_allocated_bytes_total": 8192,
        "leaktrace_site_expected_loss_bytes_per_second": 12.5}


def test_the_function_is_the_programs_own(report: MakeReport, finding: MakeFinding) -> None:
    """Not the container's that allocated for it; without any name it is the innermost address in its file, without a stack empty."""
    frames = (Frame(1, "std::vector<int>::resize(int)", 0, "/bin/x"), Frame(2, "load(char const*)", 0, "/bin/y"))
    nameless = (Frame(3, module="/bin/z", why=Why.NO_SYMBOLS),)
    made = of(report(finding(frames=frames), finding(frames=nameless), finding(frames=())), "leaktrace_site_live_bytes")
    assert [(dict(labels)["function"], dict(labels)["module"]) for labels in made] == [
        ("load(char const*)", "/bin/y"), ("[z+0x3]", "/bin/z"), ("", "")]


def test_sites_that_no_label_tells_apart_are_one(report: MakeReport, finding: MakeFinding) -> None:
    """Sites of the same functions at other lines are one series with their sum, as Prometheus takes none twice."""
    again = tuple(Frame(frame.address + 9, frame.function, 1, frame.module, line=99) for frame in finding().frames)
    made = of(report(finding(bytes=10), finding(bytes=5, frames=again), finding(bytes=1, verdict="steady")),
              "leaktrace_site_live_bytes")
    assert sorted(made.values()) == [1, 15]


def test_any_name_for_a_site(report: MakeReport, finding: MakeFinding) -> None:
    """The caller may name sites as it names them elsewhere."""
    made = samples(report(), fingerprint=lambda frames: f"site of {len(frames)}")
    assert {dict(labels)["site"] for (name, labels) in made if name == "leaktrace_site_live_bytes"} == {"site of 2"}


def test_the_name_of_a_stack_survives_a_rebuild(finding: MakeFinding) -> None:
    """Addresses, lines, build ids and folders do not change it; functions, files and their order do."""
    one, two = finding().frames
    moved = Frame(1, one.function, 99, f"/elsewhere/{str(one.module).rpartition('/')[2]}", "ff", "other.c", 1)
    assert stack_name((moved, two)) == stack_name((one, two))
    others = [(two, one), (one,), (), (Frame(1, "make", 0, one.module), two), (Frame(1, one.function, 0, "/x"), two)]
    assert len({stack_name((one, two)), *(stack_name(each) for each in others)}) == len(others) + 1


def test_losses(report: MakeReport) -> None:
    """Each way to lose events is a series, the bytes where there are any, and the measurement is not complete."""
    made = samples(report(losses=LOSSES, complete=False))
    assert made[("leaktrace_losses_total", (("reason", "outstanding_full"),))] == 12
    assert made[("leaktrace_losses_total", (("reason", "event"),))] == 3
    assert [value for (name, _), value in made.items() if name == "leaktrace_lost_bytes_total"] == [480]
    assert made[("leaktrace_complete", ())] == 0


def test_processes(report: MakeReport) -> None:
    """Resident memory and its parts, and what each process holds; of one that has ended nothing."""
    held = Totals(700, 7, 900, 9, 2)
    made = report(memory=(HEAD,), targets=(Target(4711, "server", None, totals=held), Target(4712, "gone", None, totals=held, ended=True)))
    who = (("pid", "4711"), ("comm", "server"))
    assert of(made, "leaktrace_process_resident_bytes") == {who: 9000}
    assert of(made, "leaktrace_process_part_bytes") == {(*who, ("part", "outstanding")): 4000, (*who, ("part", "files")): 5000}
    assert of(made, "leaktrace_process_live_bytes") == {who: 700}


def test_sources_of_the_kernel(report: MakeReport) -> None:
    """A trace of the kernel has the sum of each source."""
    made = report(targets=(), sources=(SourceTotal("slab", 100, 2), SourceTotal("pages", 4096, 1)))
    assert of(made, "leaktrace_source_live_bytes") == {(("source", "slab"),): 100, (("source", "pages"),): 4096}


def test_the_number_of_series_is_bounded(report: MakeReport, finding: MakeFinding) -> None:
    """However many sites and processes there are, the first of them are series, and no label is longer than it may be."""
    sites = [finding(bytes=1000 - number, expected_loss=1.0, frames=(Frame(number, f"{'f' * 1000}{number}", 0, "/x" * 500),)) for number in range(300)]
    targets = tuple(Target(number, "w", None, totals=Totals(1, 1, 1, 1, 0)) for number in range(300))
    heads = tuple(MemoryHead(number, "w", 1, 1, 1, 1, 1, (MemoryPart("top", 1),)) for number in range(300))
    made = samples(report(*sites, targets=targets, memory=heads))
    held = [value for (name, _), value in made.items() if name == "leaktrace_site_live_bytes"]
    assert held == [1000 - number for number in range(SITES)]
    assert len(made) <= 4 * SITES + 3 * PROCESSES + 20
    assert max(len(text) for _, labels in made for _, text in labels) == LONGEST


def test_times(report: MakeReport) -> None:
    """Only where it is asked for, each value has the time at which it was taken."""
    for family in parse(text_of(report(), stamped=True)):
        assert {float(sample.timestamp) for sample in family.samples} == {report().taken.timestamp()}
    for family in parse(text_of(report())):
        assert {sample.timestamp for sample in family.samples} == {None}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e300, -0.5])
def test_numbers_that_are_no_counts(report: MakeReport, finding: MakeFinding, value: float) -> None:
    """Infinite and missing numbers are written as the format has them."""
    (made,) = of(report(finding(expected_loss=value)), "leaktrace_site_expected_loss_bytes_per_second").values()
    assert made == value or (made != made and value != value)


@given(text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_label(report: MakeReport, finding: MakeFinding, text: str) -> None:
    r"""Quotes, backslashes and line ends in names do not end a label or a line, also a \ before the closing quote."""
    for hostile in (text, f'{text}"}} 1\n# EOF\n', f"{text}\\"):
        made = report(finding(frames=(Frame(1, hostile, 0, hostile),)), targets=(Target(1, hostile, None, totals=Totals(1, 1, 1, 1, 0)),),
                      memory=(MemoryHead(1, hostile, 1, 1, 1, 1, 1, ()),), kernel=hostile)
        assert len(samples(made)) == len(samples(report(targets=(Target(1, "x", None, totals=Totals(1, 1, 1, 1, 0)),),
                                                        memory=(MemoryHead(1, "x", 1, 1, 1, 1, 1, ()),))))


def test_prometheus_reads_it(report: MakeReport, finding: MakeFinding, tmp_path: Path) -> None:
    """Prometheus's own parser takes the report with its times, and finds the values in the database made of it."""
    tool = shutil.which("promtool")
    if tool is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs promtool, of Debian's prometheus")
    hostile = finding(bytes=77, frames=(Frame(1, 'f<"\\\n>', 0, "/x"),), expected_loss=float("inf"))
    made = report(finding(verdict="growing", expected_loss=1.5), hostile, losses=LOSSES, memory=(HEAD,))
    (tmp_path / "metrics").write_text(text_of(made, stamped=True))
    subprocess.run([tool, "tsdb", "create-blocks-from", "openmetrics", "metrics", "data"], cwd=tmp_path, check=True, timeout=60)
    # It looks for a log of what is not in the database yet.
    (tmp_path / "data" / "wal").mkdir()
    dump = subprocess.run([tool, "tsdb", "dump", "data"], cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True).stdout
    series = {line.rpartition("} ")[0]: line.rpartition("} ")[2].split() for line in dump.splitlines()}
    assert len(series) == len(samples(made))
    (of_site,) = [value for key, value in series.items() if "leaktrace_site_live_bytes" in key and "make_node" in key]
    assert float(of_site[0]) == 4096 and int(of_site[1]) == round(made.taken.timestamp() * 1000)
