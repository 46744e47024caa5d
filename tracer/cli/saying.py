"""What is said on stderr beside the reports."""

from __future__ import annotations

import sys

from tracer.report.model import Report


def say(line: str) -> None:
    """Write one line to stderr."""
    print(f"leaktrace: {line}", file=sys.stderr, flush=True)


class LossTeller:
    """Says each loss of a trace when it has grown since it was last said."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def tell(self, report: Report) -> None:
        """Say what is new of a report's losses."""
        for loss in report.losses:
            if self._told.get(loss.name) != loss.count:
                self._told[loss.name] = loss.count
                say(f"{loss.count} {loss.meaning}: {loss.remedy}")
