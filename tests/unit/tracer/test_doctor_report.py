"""How the findings of `leaktrace doctor` are written: for a stranger at a terminal of any width, and for programs."""

from __future__ import annotations

import io
import json
import re

import pytest

from tracer.report.doctor import Checkup, Row, document, summary, write, write_json

OK = Row("ring_buffer", "ring buffer", "BPF", "ok", "one was made", "Nothing can be traced.", "", ("user", "kernel"))
PARTLY = Row("container", "container", "User", "partly", "in one", "Others are not seen.", "Leave it.", ("user",))
MISSING = Row("kprobes", "kprobes", "Kernel", "missing", "No such device", "Some functions stay dark.", "Leave it.", ("kernel",))
UNKNOWN = tuple(Row(each, f"title {each}", "Kernel", "unknown", "not tried", "Less.", "Use sudo.", ("kernel",))
                for each in ("one", "two"))


def checkup(*rows: Row, way: str | None = "session", memory: tuple[str, ...] = ("slab", "pages"),
            lacking: tuple[str, ...] = ()) -> Checkup:
    return Checkup("6.1.0", "x86_64", way, lacking, memory, lacking, rows)


def text(checked: Checkup, width: int = 80, colour: bool = False) -> str:
    out = io.StringIO()
    write(checked, out, width=width, colour=colour)
    return out.getvalue()


def test_the_verdict_comes_first() -> None:
    """What can be traced stands above everything else."""
    lines = text(checkup(OK)).splitlines()
    assert lines[:5] == ["Linux 6.1.0 on x86_64", "", "This machine can trace:", "  user space  yes, by uprobe session",
                         "  kernel      slab, pages"]


def test_a_verdict_of_nothing_says_why() -> None:
    """For want of what nothing can be traced is said by title, not by id."""
    written = text(checkup(MISSING, way=None, memory=(), lacking=("kprobes",)))
    assert "can trace nothing as it is" in written and "  user space  no, for want of: kprobes" in written


def test_what_is_met_takes_a_line() -> None:
    """No loss and no advice stands below what is ok."""
    written = text(checkup(OK))
    assert "\nBPF\n✓ ok      ring buffer          one was made\n\n" in written and "Nothing can" not in written


def test_what_is_not_met_says_what_is_lost_and_what_to_do() -> None:
    """Loss and advice stand below it, the same advice once in the whole table."""
    written = text(checkup(PARTLY, MISSING))
    assert "~ partly  container            in one\n          lost: Others are not seen.\n          do: Leave it.\n" in written
    assert "✗ missing kprobes              No such device\n          lost: Some functions stay dark.\n\n" in written


def test_what_could_not_be_tried_is_one_row() -> None:
    """Needs with the same answer of not knowing are told together, without a loss that may not be one."""
    assert "? unknown title one, title two: not tried\n          do: Use sudo.\n" in text(checkup(*UNKNOWN))


@pytest.mark.parametrize(("width", "widest"), [(20, 60), (60, 60), (80, 80), (100, 100), (400, 110)])
def test_it_fits(width: int, widest: int) -> None:
    """No line is wider than the terminal, down to 60 columns; on a wide one lines stay short enough to be read."""
    long = Row("x", "a title", "G", "missing", "found " * 40, "lost " * 40, "do " * 60, ("user",))
    lines = text(checkup(long, way=None, lacking=("x",)), width).splitlines()
    assert max(map(len, lines)) <= widest and max(map(len, lines)) > widest - 8


def test_colour_says_nothing_that_words_do_not() -> None:
    """Without its colours the text is the same, and without being asked for there are none."""
    rows = (OK, PARTLY, MISSING, *UNKNOWN)
    plain, painted = text(checkup(*rows)), text(checkup(*rows), colour=True)
    assert "\033" not in plain and "\033[31m" in painted and re.sub(r"\033\[\d+m", "", painted) == plain


def test_signs_where_the_encoding_has_none() -> None:
    """A terminal of ASCII gets signs of ASCII."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    write(checkup(OK, MISSING), out)
    assert b"+ ok " in raw.getvalue() and b"- missing kprobes" in raw.getvalue()


def test_summary() -> None:
    """Rows are counted by status, those that do not occur left out."""
    assert summary((OK, MISSING, *UNKNOWN)) == "1 ok, 1 missing, 2 unknown."


def test_json() -> None:
    """One line, with the keys that the schema promises, and each row as it is."""
    out = io.StringIO()
    write_json(checkup(OK, MISSING, lacking=("kprobes",)), out)
    assert out.getvalue().count("\n") == 1
    made = json.loads(out.getvalue())
    assert made == document(checkup(OK, MISSING, lacking=("kprobes",)))
    assert (made["schema"], made["kernel"], made["machine"]) == ("leaktrace-doctor/1", "6.1.0", "x86_64")
    assert made["can_trace"] == {"user": "session", "kernel": ["slab", "pages"]}
    assert made["lacking"] == {"user": ["kprobes"], "kernel": ["kprobes"]}
    assert made["needs"][1] == {
        "need": "kprobes", "title": "kprobes", "group": "Kernel", "status": "missing", "found": "No such device",
        "without": "Some functions stay dark.", "remedy": "Leave it.", "for": ["kernel"]}
