"""What the reports for machines say alike."""

from __future__ import annotations

import posixpath

from tracer.report.model import Finding


def amount(size: int, count: int) -> str:
    """Return bytes and blocks in words."""
    return f"{size} bytes in {count} {'allocation' if count == 1 else 'allocations'} not given back"


def held(finding: Finding) -> str:
    """Return what a site holds in words, and whether that is an estimate."""
    return ("about " if finding.error else "") + amount(finding.bytes, finding.count)


def below(folder: str | None, file: str | None) -> str | None:
    """Return a file's path relative to the folder if it lies below; a relative one is taken as relative to it."""
    if not file or not folder:
        return None
    path = posixpath.relpath(posixpath.join(folder, file), folder)
    return None if path == ".." or path.startswith("../") else path
