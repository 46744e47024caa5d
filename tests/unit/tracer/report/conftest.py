"""A report to write, small enough to say what it must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from symbolizer.frame import Frame
from tracer.report.model import Finding, Report, Target, Totals

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
