"""A report to write, small enough to say what it must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from symbolizer.frame import Frame
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.report.model import Finding, Reachability, Report, Target, Totals

FINDING = Finding(
    rank=1, pid=4711, bytes=4096, count=4, allocated_bytes=8192, allocated_count=8, freed_count=4, oldest_s=4.2,
    growth_bytes_per_s=None, gained_bytes=None, gained_count=None, error=None,
    frames=(
        Frame(0x7F0000001234, "make_node", 18, "/usr/lib/libnode.so.1", "ab12", "src/node.c", 7),
        Frame(0x401136, "main", 0x36, "/usr/bin/server", "cd34"),
    ),
)  # fmt: skip
REPORT = Report(
    taken=datetime(2026, 3, 1, 9, 5, 7, tzinfo=timezone(timedelta(hours=2))),
    elapsed_s=5.01234, kernel="6.18.44", targets=(Target(4711, "server", "/usr/bin/server"),),
    totals=Totals(4096, 4, 8192, 8, 4), findings=(FINDING,), losses=(), complete=True,
)  # fmt: skip

_MADE, _FREED, _AGAIN = (
    Frame(0x401200, "make_row", 9, "/usr/bin/server", "cd34", "src/row.cpp", 11),
    Frame(0x401300, "drop_row", 5, "/usr/bin/server", "cd34", "src/row.cpp", 21),
    Frame(0x401400, "drop_all", 7, "/usr/bin/server", "cd34", "src/table.cpp", 31),
)  # fmt: skip
MISMATCH = Misuse(Kind.MISMATCH, 3, 4711, "new[]", "delete", None, (_MADE,), (_FREED,), None)
DOUBLE = Misuse(Kind.DOUBLE, 1, 4711, "malloc", "free", "free", (_MADE,), (_AGAIN,), (_FREED,))
UNKNOWN = Misuse(Kind.UNKNOWN, 2, 4711, None, "free", None, None, (_AGAIN,), None)
MISUSES = Misuses((MISMATCH, UNKNOWN, DOUBLE))
#: The fields of a finding that has a verdict.
LOST: dict[str, Any] = {
    "verdict": "lost", "confidence": "high", "evidence": "no pointer to it; 0 of 4 were ever freed",
    "reachability": Reachability((4096, 4), (0, 0), (16, 1), (32, 2)),
}  # fmt: skip


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """Return a function that gives a finding with some fields changed."""
    return lambda **changes: replace(FINDING, **changes)


@pytest.fixture
def report() -> Callable[..., Report]:
    """Return a function that gives a report of these findings (default: one), with some fields changed."""

    def make(*findings: Finding, **changes: Any) -> Report:
        return replace(REPORT, findings=findings or REPORT.findings, **changes)

    return make
