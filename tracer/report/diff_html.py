"""A difference as one page that opens from disk without a network: sums, a flame graph, and a table of sites."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from math import isinf
from string import Template
from typing import TextIO

from tracer.report import diff_flamegraph, diff_text
from tracer.report.diff_model import Difference, Row, State
from tracer.report.flame_tree import printable
from tracer.report.text import describe
from tracer.report.wording import known_by, size

#: Sites in the table unless told otherwise: a page with the stacks of 10,000 would have 20 MB.
TABLED = 1000
#: The columns that can be sorted by: what a cell has as its number, and their titles.
_COLUMNS = ("State", "Function", "Change", "%", "Before", "After", "Blocks")
_STYLE_OF_GRAPH = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write a difference with the first top sites; None: TABLED of them in the table, and all in the graph."""
    graph = io.StringIO()
    diff_flamegraph.write(made, top, graph)
    drawn = graph.getvalue()
    style, script = _file("colours.css") + _file("diff.css"), _file("diff.js")
    names = [diff_text.name_of_file(side.source) for side in (made.before, made.after)]
    styles = [style, *_STYLE_OF_GRAPH.findall(drawn)]
    policy = (f"default-src 'none'; style-src {' '.join(map(_source, styles))}; script-src {_source(script)}; "
              "base-uri 'none'; form-action 'none'")
    out.write(Template(_file("diff.html")).substitute(
        title=_text(" → ".join(names)), policy=policy, style=style, script=script,
        head="\n".join(_head(made)), graph=drawn, rows="".join(_row(made, row) for row in made.rows[: top or TABLED]),
        more=_more(made, top or TABLED),
        columns="".join(f'<th scope="col"><button type="button">{name}</button></th>' for name in _COLUMNS),
        states="".join(f"<option>{state.value}</option>" for state in State)))
    out.flush()


def _head(made: Difference) -> Iterator[str]:
    was, now = made.total_before, made.total_after
    per = f" per {made.per.name}" if made.per else ""
    change = now.bytes - was.bytes
    yield (f'<p class="sum {"grew" if change > 0 else "shrank"}">{_text(_size(change))}{_text(per)}</p>'
           f"<p>{_text(size(was.bytes))} → {_text(size(now.bytes))} in {diff_text.number(was.count)} → "
           f"{diff_text.number(now.count)} blocks. {_text(diff_text.sites(made))}.</p>")
    yield f"<dl><dt>Before</dt><dd>{_text(diff_text.describe_side(made.before))}</dd>"
    yield f"<dt>After</dt><dd>{_text(diff_text.describe_side(made.after))}</dd></dl>"
    for warned in made.warnings:
        yield f'<p class="warning">{"Not comparable: " if warned.decides else ""}{_text(warned.text)}.</p>'
    if made.judgement is not None and made.judgement.conclusion:
        yield f'<p class="judged">{_text(made.judgement.conclusion)}</p>'


def _more(made: Difference, tabled: int) -> str:
    left = len(made.rows) - tabled
    return f'<p class="soft">{left} more with smaller changes not listed; -T lists more.</p>' if left > 0 else ""


def _row(made: Difference, row: Row) -> str:
    name = known_by(row.finding.frames) or "no name"
    stack = "\n".join(describe(frame) for frame in row.finding.frames)
    over = made.judgement.failed.get(row.rank) if made.judgement else None
    marks = [f"over budget: {over}"] if over else []
    marks += [] if row.significant else ["no more than chance"]
    verdicts = [each for each in dict.fromkeys((row.before.verdict, row.after.verdict)) if each]
    marks += [" → ".join(verdicts)] if verdicts else []
    grown = "" if isinf(row.percent) else f"{row.percent:+.0f}%"
    was, now = row.before.bytes, row.after.bytes
    cells = ((row.bytes, _size(row.bytes)), (row.percent if grown else 1e300, grown), (was, size(was)),
             (now, size(now)), (row.count, diff_text.signed(row.count)))
    said = "".join(f" <em>{_text(mark)}</em>" for mark in marks)
    return (f'<tr class="{row.state.value}"><td>{row.state.value}</td>'
            f"<td><details><summary>{_text(name)}{said}</summary>"
            f"<pre>{_text(stack)}</pre></details></td>"
            + "".join(f'<td data-number="{value!r}">{_text(text)}</td>' for value, text in cells) + "</tr>\n")


def _size(change: float) -> str:
    return f"{'+' if change >= 0 else ''}{size(change)}"


def _text(text: str) -> str:
    """Return a text as HTML has it; of the target's texts, what is not shown as it is becomes an escape."""
    return "\n".join([escape(printable(line)) for line in text.split("\n")])


def _file(name: str) -> str:
    return files("tracer.report").joinpath("html", name).read_text("utf-8")


def _source(text: str) -> str:
    """Return how a policy allows exactly this text, which stands between the tags as it is."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
