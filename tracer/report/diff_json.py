"""A difference as one JSON document, schema leaktrace-diff/1. Keys are only ever added to this schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from typing import Any, TextIO

from symbolizer.frame import Frame
from tracer.report.diff_model import Difference, Held, Row, Side, State, percent

SCHEMA = "leaktrace-diff/1"


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write a difference as one line; top: how many sites, None: all."""
    out.write(json.dumps(document(made, top), ensure_ascii=True, allow_nan=False) + "\n")
    out.flush()


def document(made: Difference, top: int | None = None) -> dict[str, Any]:
    """Return the difference as JSON's own types.

    `bytes` and `count` are per unit where `per` is given, and `measured_bytes` and `measured_count` always as in the
    traces. `before` or `after` of a site is null where it is not there, `percent` where there was nothing before.
    """
    judgement = made.judgement
    return {
        "schema": SCHEMA,
        "before": _side(made.before, made.total_before),
        "after": _side(made.after, made.total_after),
        "per": asdict(made.per) if made.per else None,
        "warnings": [asdict(warned) for warned in made.warnings],
        "comparable": not any(warned.decides for warned in made.warnings),
        "totals": _change(made.total_before, made.total_after, made.total_error),
        "states": {state.value: len(made.of(state)) for state in State},
        "sites": [_row(made, row) for row in made.rows[:top]],
        "judgement": None if judgement is None else {
            "exit_code": judgement.exit_code, "conclusion": judgement.conclusion,
            "failed_sites": len(judgement.failed), "failed_totals": list(judgement.totals)},
    }


def _side(side: Side, total: Held) -> dict[str, Any]:
    report = side.report
    return {
        "source": side.source, "taken": report.taken.isoformat(), "elapsed_s": round(report.elapsed_s, 3),
        "kernel": report.kernel,
        "targets": [{"pid": target.pid, "comm": target.comm, "exe": target.exe} for target in report.targets],
        "complete": report.complete, "truncated": side.truncated, "sampling": report.sampling,
        "losses": {loss.name: loss.count for loss in report.losses},
        "totals": _held(total),
    }


def _row(made: Difference, row: Row) -> dict[str, Any]:
    over = made.judgement.failed.get(row.rank) if made.judgement else None
    return {
        "rank": row.rank, "fingerprint": row.fingerprint, "source": row.finding.source, "state": row.state.value,
        "before": _held(row.before) if row.before.sites else None,
        "after": _held(row.after) if row.after.sites else None,
        "change": _change(row.before, row.after, row.error) | {"significant": row.significant},
        "over_budget": over,
        "frames": [_frame(frame) for frame in row.finding.frames],
    }


def _held(held: Held) -> dict[str, Any]:
    return {"bytes": held.bytes, "count": held.count, "measured_bytes": held.measured_bytes,
            "measured_count": held.measured_count, "sites": held.sites, "verdict": held.verdict}


def _change(was: Held, now: Held, error: float) -> dict[str, Any]:
    grown = percent(was.bytes, now.bytes)
    return {"bytes": now.bytes - was.bytes, "count": now.count - was.count,
            "percent": grown if isfinite(grown) else None, "standard_error_bytes": error}


def _frame(frame: Frame) -> dict[str, Any]:
    """Return a frame as leaktrace/1 has it."""
    offset = None if frame.module_offset is None else f"{frame.module_offset:#x}"
    return asdict(frame) | {"address": f"{frame.address:#x}", "module_offset": offset,
                            "why": frame.why.value if frame.why else None}
