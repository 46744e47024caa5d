"""Reports with a table of all their sites, as a session gives them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from symbolizer.frame import Frame
from tracer.report.model import Finding, LossNote, Report, Target, Totals
from tracer.report.site_table import VERDICTS, SiteTable

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
#: Bytes of each block.
BLOCK = 10


def report(sites: Sequence[tuple[int, int]], elapsed_s: float = 5.0, comm: str = "server", top: int = 10,
           first_name: str = "make_0") -> Report:
    """Return a report of sites, each blocks allocated and of those freed; order: by blocks held.

    Site number n has the key 100 + n and the function make_n, which main calls; the first has another name if given.
    """
    allocated = np.array([each for each, _ in sites], np.int64)
    freed = np.array([each for _, each in sites], np.int64)
    count = allocated - freed
    number = len(sites)
    names = [first_name, *(f"make_{each}" for each in range(1, number))]

    def finding(row: int, rank: int) -> Finding:
        frames = (Frame(0x1000 + row, names[row], 2, "/usr/bin/server"), Frame(0x9000, "main", 7, "/usr/bin/server"))
        return Finding(rank, 4711, int(count[row]) * BLOCK, int(count[row]), int(allocated[row]) * BLOCK,
                       int(allocated[row]), int(freed[row]), 1.0, None, None, None, None, frames, verdict="growing")

    nothing = np.zeros(number)
    order = np.argsort(-count, kind="stable")
    order = order[count[order] > 0]
    table = SiteTable(np.arange(100, 100 + number, dtype=np.uint64), count * BLOCK, count, allocated * BLOCK, allocated,
                      freed, nothing, nothing, np.full(number, VERDICTS.index("growing"), np.uint8), nothing, nothing, order, finding)
    totals = Totals(int(count.sum()) * BLOCK, int(count.sum()), int(allocated.sum()) * BLOCK, int(allocated.sum()),
                    int(freed.sum()))
    return Report(BEGAN + timedelta(seconds=elapsed_s), elapsed_s, "6.1.0", (Target(4711, comm, "/usr/bin/server"),),
                  totals, table.findings(top), (LossNote("stacks_full", 3, 0, "were lost", "raise it"),), True,
                  sites=table)
