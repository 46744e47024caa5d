"""Made-up reports of a trace, and a session that gives them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np

from symbolizer.frame import Frame
from tracer.report.model import Finding, LossNote, Report, Target, Totals
from tracer.report.site_table import VERDICTS, SiteTable

PROGRAM = "/opt/shop/bin/server"


def report(held: Sequence[int], elapsed_s: float = 1.0, *, names: Sequence[str] | None = None, keys: Sequence[int] | None = None,
           counts: Sequence[int] | None = None, verdicts: Sequence[str | None] | None = None, losses: tuple[LossNote, ...] = (),
           before: Report | None = None, last: bool = False, file: str | None = None, evidence: str = "grew all the time") -> Report:
    """Return a report of sites that hold so many bytes; before: the one that growth is counted from."""
    size = len(held)
    named = list(names or [f"site_{number}" for number in range(size)])
    codes = np.array([VERDICTS.index(each) for each in verdicts or ["undecided"] * size], np.uint8)
    bytes_, count = np.array(held, np.int64), np.array(counts or [max(1, each // 100) if each else 0 for each in held], np.int64)
    growth = np.full(size, np.nan)
    if before is not None and before.sites is not None and len(before.sites) == size:
        growth = (bytes_ - before.sites.bytes) / (elapsed_s - before.elapsed_s)
    loss = np.where(codes == 2, np.nan_to_num(growth), 0.0)

    def finding(row: int, rank: int) -> Finding:
        frames = (Frame(0x1000 + row, "operator new(unsigned long)", 9, "/usr/lib/libstdc++.so.6"),
                  Frame(0x5000 + row, named[row], 16, PROGRAM, "ab12", file, 2 if file else None),
                  Frame(0x7000, "main", 32, PROGRAM))
        return Finding(
            rank=rank, pid=77, bytes=int(bytes_[row]), count=int(count[row]), allocated_bytes=int(bytes_[row]) * 2,
            allocated_count=int(count[row]) * 2, freed_count=int(count[row]), oldest_s=elapsed_s, growth_bytes_per_s=None,
            gained_bytes=None, gained_count=None, error=None, frames=frames, verdict=VERDICTS[codes[row]], confidence="high",
            evidence=evidence, expected_loss=float(loss[row]))

    table = SiteTable(
        np.array(keys if keys is not None else range(1, size + 1), np.uint64), bytes_, count, bytes_ * 2, count * 2, count,
        np.full(size, elapsed_s), growth, codes, loss, np.nan_to_num(growth), np.argsort(-bytes_, kind="stable"), finding)
    return Report(
        taken=datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC), elapsed_s=elapsed_s, kernel="6.18", findings=table.findings(),
        targets=(Target(77, "server", PROGRAM, ended=last),), losses=losses, complete=not losses, sites=table, last=last,
        totals=Totals(int(bytes_.sum()), int(count.sum()), int(bytes_.sum()) * 2, int(count.sum()) * 2, int(count.sum())))


class Session:
    """Gives a report every 50 ms until it is stopped. ends, fails: with that many, by itself or by an error."""

    def __init__(self, *, ends: int | None = None, fails: int | None = None) -> None:
        self._ends, self._fails = ends, fails
        self._stopped = threading.Event()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def stop(self) -> None:
        """End with a last report."""
        self._stopped.set()

    def ask(self) -> None:
        """Nothing needs it."""

    def reports(self) -> Iterator[Report]:
        """Give reports."""
        made = 0
        while True:
            made += 1
            if made == self._fails:
                raise ZeroDivisionError("made up")
            over = self._stopped.wait(0.05) or made == self._ends
            yield report([1000 * made, 500, 300], made / 20, names=["leak_here", "cache", "table"],
                         verdicts=["growing", "steady", "steady"], last=over)
            if over:
                return


def main() -> None:
    """Show a made-up trace on this terminal: run_live's, with its exit code. Arguments: how it goes, the file to record to."""
    from tracer.cli import live
    from tracer.errors import CannotTrace, LeaktraceError
    from tracer.live.site_list import SiteList
    from tracer.settings import Settings

    how = sys.argv[1]

    def begin(_: object) -> Session:
        if how == "not begun":
            raise CannotTrace("It cannot be.", "Do something else.")
        return Session(ends=5 if how == "ends" else None, fails=5 if how == "trace fails" else None)

    if how == "view fails":
        def fail(*_: object) -> None:
            raise ZeroDivisionError("made up")

        SiteList.render_line = fail  # type: ignore[assignment, method-assign]
    try:
        code = live.run_live(begin, Settings(interval=0.25), sys.argv[2] if len(sys.argv) > 2 else None)
    except LeaktraceError as problem:
        print(f"leaktrace: {problem.message}\n{problem.remedy}", file=sys.stderr)
        code = problem.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
