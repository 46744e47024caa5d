"""What a look at the machine found: a table for people, and JSON, schema leaktrace-doctor/1."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TextIO

SCHEMA = "leaktrace-doctor/1"
#: Columns of the status and of the title, with the space behind them.
_STATUS, _TITLE = 10, 21
_INDENT = " " * _STATUS
#: A terminal that is wider gets no longer lines: they are harder to read.
WIDEST, NARROWEST = 110, 60
_SIGNS = {"ok": "✓", "partly": "~", "missing": "✗", "unknown": "?"}
#: For terminals and files whose encoding has no such signs.
_PLAIN_SIGNS = {"ok": "+", "partly": "~", "missing": "-", "unknown": "?"}
#: SGR codes (console_codes(4)): green, yellow, red, dim.
_COLOURS = {"ok": "32", "partly": "33", "missing": "31", "unknown": "2"}
_BOLD = "1"

#: Text, and the code of how it looks, to what is written.
Paint = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Row:
    """One need: its id and title, how far it is met, what is lost without it, and what to do, "" for nothing.

    `status` is ok, partly, missing or unknown; `serves` says what for, such as user and kernel.
    """

    need: str
    title: str
    group: str
    status: str
    found: str
    without: str
    remedy: str
    serves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checkup:
    """All that was found. `way` is how user space would be traced, None if it cannot be.

    `memory` is which of the kernel's memory could be traced. The needs for want of which nothing can be traced are
    named by their ids in `lacking` and `lacking_for_kernel`.
    """

    kernel: str
    machine: str
    way: str | None
    lacking: tuple[str, ...]
    memory: tuple[str, ...]
    lacking_for_kernel: tuple[str, ...]
    rows: tuple[Row, ...]


def document(checkup: Checkup) -> dict[str, Any]:
    """Return it as JSON's own types. Keys are only ever added to this schema."""
    return {
        "schema": SCHEMA,
        "kernel": checkup.kernel,
        "machine": checkup.machine,
        "can_trace": {"user": checkup.way, "kernel": list(checkup.memory)},
        "lacking": {"user": list(checkup.lacking), "kernel": list(checkup.lacking_for_kernel)},
        "needs": [
            {"need": row.need, "title": row.title, "group": row.group, "status": row.status, "found": row.found,
             "without": row.without, "remedy": row.remedy, "for": list(row.serves)}
            for row in checkup.rows
        ],
    }


def write_json(checkup: Checkup, out: TextIO) -> None:
    """Write one document as one line."""
    out.write(json.dumps(document(checkup), ensure_ascii=True) + "\n")


def write(checkup: Checkup, out: TextIO, *, width: int = 80, colour: bool = False) -> None:
    """Write the verdict, then each group with its rows; in width columns, coloured if asked for."""
    width = max(NARROWEST, min(width, WIDEST))
    paint = _painted if colour else _plain
    signs = _SIGNS if _has_signs(out) else _PLAIN_SIGNS
    out.writelines(f"{line}\n" for line in _verdict(checkup, width, paint))
    said: set[str] = set()
    for group, rows in groupby(checkup.rows, key=lambda row: row.group):
        out.write(f"\n{paint(group, _BOLD)}\n")
        for (status, found), same in groupby(rows, key=lambda row: (row.status, row.found)):
            alike = list(same)
            if status == "unknown" and len(alike) > 1:
                alike = [replace(alike[0], title="", found=f"{', '.join(row.title for row in alike)}: {found}")]
            for row in alike:
                out.writelines(f"{line}\n" for line in _row(row, width, paint, signs, said))
    out.write(f"\n{summary(checkup.rows)}\n")
    out.flush()


def summary(rows: Sequence[Row]) -> str:
    """Return how many rows have which status."""
    counts = {status: sum(row.status == status for row in rows) for status in _SIGNS}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) + "."


def _verdict(checkup: Checkup, width: int, paint: Paint) -> Iterator[str]:
    yield f"Linux {checkup.kernel} on {checkup.machine}"
    yield ""
    user = f"yes, by uprobe {checkup.way}" if checkup.way else f"no{_reason(checkup, checkup.lacking)}"
    kernel = ", ".join(checkup.memory) or f"no{_reason(checkup, checkup.lacking_for_kernel)}"
    if checkup.way or checkup.memory:
        yield paint("This machine can trace:", _BOLD)
    else:
        yield paint("This machine can trace nothing as it is:", _BOLD)
    for title, text, good in (("user space", user, bool(checkup.way)), ("kernel", kernel, bool(checkup.memory))):
        lines = textwrap.wrap(text, width - 14)
        yield f"  {title:12}{paint(lines[0], _COLOURS['ok' if good else 'missing'])}"
        yield from (f"{'':14}{paint(line, _COLOURS['ok' if good else 'missing'])}" for line in lines[1:])


def _reason(checkup: Checkup, lacking: Sequence[str]) -> str:
    """Return for want of what, as the end of a sentence."""
    titles = [row.title for row in checkup.rows if row.need in lacking]
    return f", for want of: {', '.join(titles)}" if titles else ""


def _row(row: Row, width: int, paint: Paint, signs: dict[str, str], said: set[str]) -> Iterator[str]:
    """Give a row's lines: what is lost and what to do only where it is not met, and the same advice only once."""
    status = paint(f"{signs[row.status]} {row.status}".ljust(_STATUS), _COLOURS[row.status])
    title = f"{row.title:{_TITLE}}" if row.title else ""
    found = textwrap.wrap(row.found, width - _STATUS - len(title), break_on_hyphens=False) or [""]
    yield f"{status}{title}{found[0]}"
    yield from (" " * (_STATUS + len(title)) + line for line in found[1:])
    if row.status in ("partly", "missing"):
        yield from _remark("lost", row.without, width)
    if row.remedy and row.status != "ok" and row.remedy not in said:
        said.add(row.remedy)
        yield from _remark("do", row.remedy, width)


def _remark(name: str, text: str, width: int) -> Iterator[str]:
    head = f"{_INDENT}{name}: "
    yield from textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head),
                             break_long_words=False, break_on_hyphens=False)


def _has_signs(out: TextIO) -> bool:
    try:
        "".join(_SIGNS.values()).encode(getattr(out, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _painted(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m"


def _plain(text: str, code: str) -> str:
    return text
