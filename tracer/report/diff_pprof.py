"""A difference as a pprof profile: after, with before subtracted, as `go tool pprof -proto -diff_base` writes it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from tracer.report import pprof
from tracer.report.diff_model import Difference, Held, Row
from tracer.report.diff_text import describe_side
from tracer.report.model import Finding

#: The label of samples that are subtracted; pprof takes its percentages of their sum.
BASE = ("pprof::base", "true")


def write(made: Difference, top: int | None, out: BinaryIO) -> None:
    """Write the first top sites, None: all, gzipped.

    Figures are those measured, or where they are per a unit, rounded to whole ones. Of sites that hold nothing in
    either trace there is none.
    """
    rows = made.rows[:top]
    base = [_finding(made, row, row.before, -1) for row in rows if row.before.sites]
    new = [_finding(made, row, row.after, 1) for row in rows if row.after.sites]
    # Addresses differ between the two, so that there is no one map of them.
    report = replace(made.after.report, findings=(*base, *new), sites=None, mappings=(), losses=(), sampling=None,
                     complete=made.after.report.complete and made.before.report.complete,
                     notes=tuple(_notes(made)))
    profile = pprof.profile(report)
    place = len(profile.string_table)
    profile.string_table.extend(BASE)
    for sample in profile.sample[: len(base)]:
        sample.label.add(key=place, str=place + 1)
    out.write(gzip.compress(profile.SerializeToString(), 6, mtime=0))
    out.flush()


def _finding(made: Difference, row: Row, held: Held, sign: int) -> Finding:
    return replace(
        row.finding, bytes=round(sign * held.bytes), count=round(sign * held.count),
        allocated_bytes=round(sign * held.allocated_bytes), allocated_count=round(sign * held.allocated_count),
        verdict=held.verdict, error=None)


def _notes(made: Difference) -> Iterator[str]:
    yield f"before: {describe_side(made.before)}"
    yield f"after: {describe_side(made.after)}"
    if made.per:
        yield f"per {made.per.name}: {made.per.before:g} before, {made.per.after:g} after"
    yield from (warned.text for warned in made.warnings)
