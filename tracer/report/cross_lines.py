"""A comparison with the kernel's own books, in lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tracer.report.cross_model import CrossNote, CrossOnly, CrossRow
from tracer.report.model import Report

#: What each book is called.
NAMES = {"allocinfo": "the kernel's own account (/proc/allocinfo)", "kmemleak": "the kernel's leak detector (kmemleak)"}
#: What a row says, where it is not that both agree.
_STANDINGS = {"agrees": "", "differs": "differs", "inaccurate": "not exact", "older": "older ones freed?"}
_HEAD = ("leaktrace, bytes", "blocks", "kernel, bytes", "blocks", "difference", "blocks")
_WIDTHS = (17, 10, 17, 10, 17, 10)


def lines(report: Report, top: int) -> Iterator[str]:
    """Give the lines of each comparison, of each of its lists at most `top` functions; none where nothing was asked."""
    for note in report.cross_checks:
        yield f"Compared with {NAMES.get(note.book, note.book)}:"
        if note.rows:
            yield "\t" + _columns(_HEAD) + "  function"
            yield from (f"\t{_row(row)}" for row in note.rows[:top])
            yield from _more(len(note.rows) - top)
        # What is held is mostly in use: that the detector does not name it says nothing.
        if note.book != "kmemleak":
            yield from _only("in the trace only", note.only_traced, top)
        yield from _only("in the kernel's books only", note.only_kernel, top)
        if note.summary:
            yield note.summary
        yield from note.notes


def documents(notes: Sequence[CrossNote]) -> list[dict[str, Any]]:
    """Return comparisons as JSON's own types, with all functions."""
    return [asdict(note) | {"rows": [_document(row) for row in note.rows]} for note in notes]


def _document(row: CrossRow) -> dict[str, Any]:
    size, count = row.difference
    return asdict(row) | {"difference_bytes": size, "difference_count": count}


def _row(row: CrossRow) -> str:
    size, count = row.difference
    figures = (f"{row.bytes:,}", f"{row.count:,}", f"{row.kernel_bytes:,}", f"{row.kernel_count:,}",
               f"{size:+,}" if size else "0", f"{count:+,}" if count else "0")
    remarks = [each for each in (_STANDINGS.get(row.standing, row.standing), *row.places[:1]) if each]
    more = f", … ({len(row.places)} places)" if len(row.places) > 1 else ""
    return f"{_columns(figures)}  {row.function}" + (f" ({', '.join(remarks)}{more})" if remarks else "")


def _columns(texts: Sequence[str]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, _WIDTHS, strict=True))


def _only(where: str, amounts: Sequence[CrossOnly], top: int) -> Iterator[str]:
    if not amounts:
        return
    yield f"\t{where}:"
    for each in amounts[:top]:
        yield "\t" + _columns((f"{each.bytes:,}", f"{each.count:,}", "", "", "", "")).rstrip() + f"  {each.function}"
    yield from _more(len(amounts) - top)


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"\tand {count} more function{'' if count == 1 else 's'}"
