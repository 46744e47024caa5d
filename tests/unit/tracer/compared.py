"""Made-up traces for the tests of differences: sites by their calls, each with bytes and blocks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from symbolizer.frame import Frame
from tracer.report.diff_model import Side
from tracer.report.model import Finding, Report, Target, Totals


def site(calls: str, bytes_: int, count: int = 1, build: int = 0, **changes: Any) -> Finding:
    """Return a site; calls: functions, innermost first, with spaces between. build: moves addresses, lines and files."""
    frames = tuple([
        Frame(0x1000 * (build + 1) + 16 * place, name, 4 + build, f"/builds/{build}/server", f"{build:04x}",
              f"/src/{build}/server.c", 10 * place + build, module_offset=16 * place) for place, name in enumerate(calls.split())])
    said: dict[str, Any] = dict(
        rank=1, pid=100 + build, bytes=bytes_, count=count, allocated_bytes=2 * bytes_, allocated_count=2 * count,
        freed_count=count, oldest_s=None, growth_bytes_per_s=None, gained_bytes=None, gained_count=None, error=None,
        frames=frames)
    return Finding(**said | changes)


def side(*findings: Finding, source: str = "before", settings: Mapping[str, Any] | None = None, truncated: bool = False,
         unlisted: int = 0, **changes: Any) -> Side:
    """Return a side whose totals are the sums of its sites."""
    held, count = sum(each.bytes for each in findings), sum(each.count for each in findings)
    said: dict[str, Any] = dict(
        taken=datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC), elapsed_s=10.0, kernel="6.18",
        targets=(Target(100, "server", "/builds/0/server"),), totals=Totals(held, count, 2 * held, 2 * count, count),
        findings=findings, losses=(), complete=True)
    return Side(source, Report(**said | changes), settings, truncated, unlisted)
