"""Who may import whom (DESIGN.md, section 1), read from the import statements, those inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bpf", "symbolizer", "tracer")

BASE = ("tracer.settings", "tracer.kernel_settings", "tracer.errors", "tracer.records", "tracer.losses", "tracer.limits")
#: What reads recordings: it needs neither root nor BCC.
RECORDED = ("tracer.late_names", "tracer.store", "tracer.ages", "tracer.columns", "tracer.untrusted", "tracer.recorder", "tracer.recorded_sites", "tracer.recording")
#: What compares them; like all that follows, without a tracer.
COMPARED = ("tracer.diff", "tracer.diff_gate", "tracer.diff_inputs", "tracer.diff_warnings")
SESSION = ("tracer.session", "tracer.address_maps", "tracer.kernel_session", "tracer.kernel_books", "tracer.kernel_cross", "tracer.kernel_report", "tracer.kernel_names", "tracer.closing", "tracer.containers", "tracer.events", "tracer.fill", "tracer.gate", "tracer.holdings",
           "tracer.listener", "tracer.looks", "tracer.memory_heads", "tracer.memory_watch", "tracer.pointed", "tracer.verdicts", "tracer.membership", "tracer.misuses", "tracer.poller", "tracer.reporter", "tracer.requirements", "tracer.naming", "tracer.roster", "tracer.stack_pool", "tracer.symbols",
           "tracer.pointer_names", "tracer.pointer_places", "tracer.stack_frames", "tracer.thread_locals")
STAGES = ("tracer.attach", "tracer.collect", "tracer.judge", "tracer.report")
BCC_IMPORTERS = ("tracer.attach", "tracer.collect.drain", "tracer.collect.unwind_rules")


def is_in(module: str, places: Iterable[str]) -> bool:
    """Whether a module is one of these places, or below one."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, modules: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Give line and full name of each import; `from tracer import records` is tracer.records."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"line {node.lineno}: imports here name the whole module"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield node.lineno, name if name in modules else node.module


SOURCES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def trespasses(importers: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Return the imports of our own modules by the importers that are not allowed."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for module, path in SOURCES.items() if is_in(module, importers)
        for line, name in imported(path.read_text(), SOURCES)
        # `tracer` itself is the version and nothing else.
        if name != "tracer" and is_in(name, PACKAGES) and not is_in(name, allowed)
    ]


def test_the_kernel_side_stands_alone() -> None:
    """bpf imports nothing of ours."""
    assert trespasses(["bpf"], []) == []


def test_the_symbolizer_stands_alone() -> None:
    """symbolizer imports nothing of ours but itself."""
    assert trespasses(["symbolizer"], ["symbolizer"]) == []


def test_the_base_knows_no_stage() -> None:
    """Settings, errors, records, losses and limits import no stage, no session and no command line."""
    assert trespasses(BASE, [*BASE, "bpf", "symbolizer"]) == []


def test_attach_and_collect_know_only_each_other() -> None:
    """attach and collect import each other and what is below them, and nothing that judges, reports or drives."""
    places = ["tracer.attach", "tracer.collect"]
    assert trespasses(places, [*places, *BASE, "bpf", "symbolizer"]) == []


def test_judge_sees_snapshots() -> None:
    """judge imports of collect the snapshot only, and what is below it."""
    assert trespasses(["tracer.judge"], ["tracer.judge", "tracer.collect.snapshot", *BASE, "symbolizer"]) == []


def test_report_sees_the_model() -> None:
    """report imports itself and the symbolizer's frame only, so that a saved report needs nothing else."""
    assert trespasses(["tracer.report"], ["tracer.report", "symbolizer.frame"]) == []


def test_the_live_view_sees_the_model() -> None:
    """live imports itself, report and the symbolizer's frame only: it shows whatever gives reports."""
    assert trespasses(["tracer.live"], ["tracer.live", "tracer.report", "symbolizer.frame"]) == []


def test_what_serves_sees_the_model() -> None:
    """serve imports itself, report, errors and what names a site: its processes need nothing that traces."""
    allowed = ["tracer.serve", "tracer.report", "tracer.judge.fingerprint", "tracer.errors", "symbolizer.frame"]
    assert trespasses(["tracer.serve"], allowed) == []


def test_textual_is_imported_by_the_live_view_only() -> None:
    """It takes longer to import than most commands take: nothing imports it, or the view, but what shows the view."""
    importers = {module for module, path in SOURCES.items()
                 for _, name in imported(path.read_text(), SOURCES) if is_in(name, ["textual", "tracer.live"])}
    assert {module for module in importers if not is_in(module, ["tracer.live"])} == {"tracer.cli.live"}


def test_a_recording_needs_no_tracer() -> None:
    """What writes and reads recordings imports the report's model and the symbolizer, and nothing that traces."""
    assert trespasses(RECORDED, [*RECORDED, "tracer.errors", "tracer.report", "symbolizer"]) == []


def test_a_comparison_needs_no_tracer() -> None:
    """What compares reports imports what reads and judges them, and nothing that traces."""
    places = [*COMPARED, *RECORDED, "tracer.losses", "tracer.errors", "tracer.judge", "tracer.report", "symbolizer"]
    assert trespasses(COMPARED, places) == []


def test_session_does_not_know_the_command_line() -> None:
    """session, and fill which belongs to it, import everything but the command line."""
    assert trespasses(SESSION, [*BASE, *SESSION, *STAGES, "bpf", "symbolizer"]) == []


def test_bcc_is_imported_in_few_places() -> None:
    """Only attach, collect.drain and collect.unwind_rules import bcc, so all else is tested without root."""
    importers = {module for module, path in SOURCES.items()
                 if any(is_in(name, ["bcc"]) for _, name in imported(path.read_text(), SOURCES))}
    assert [module for module in sorted(importers) if not is_in(module, BCC_IMPORTERS)] == []
    assert importers, "nobody imports bcc: this test reads imports no longer"


def test_every_module_has_its_place() -> None:
    """A module that no rule above speaks of would be free of them all."""
    places = ["bpf", "symbolizer", *BASE, *RECORDED, *COMPARED, *SESSION, *STAGES, "tracer.live", "tracer.serve", "tracer.cli"]
    assert [module for module in SOURCES if module != "tracer" and not is_in(module, places)] == []


@pytest.mark.parametrize(("source", "name"), [
    ("import tracer.session", "tracer.session"),
    ("from tracer import session", "tracer.session"),
    ("from tracer.session import Session", "tracer.session"),
    ("def late():\n    import tracer.session as s", "tracer.session"),
])
def test_imports_are_found_however_written(source: str, name: str) -> None:
    """Each way to write an import gives the module's full name."""
    assert [each for _, each in imported(source, {"tracer.session"})] == [name]
