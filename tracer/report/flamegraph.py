"""Flame graphs as one SVG that needs nothing else: widths by value, the outermost calls at the bottom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TextIO
from zlib import crc32

from tracer.report.flame_tree import Node, flame_tree, printable
from tracer.report.model import Report
from tracer.report.wording import short, size

#: In pixels; a character of 12 px in the fonts that are asked for is no wider.
_WIDTH, _MARGIN, _ROW, _CHARACTER = 1200, 10, 18, 7.3
_HEAD = 58
#: Narrower calls are left out, and said to be: as a share of all.
NARROWEST = 0.001
#: Files that the legend names.
_NAMED = 12
_NO_FILE = "#c8c8c8"
#: What is left out of C++ names first where they are too long; longer ones than this many characters are cut at once.
_TEMPLATE, _PARAMETERS = re.compile(r"<[^<>]*>"), re.compile(r"(?<!operator)\((?!anonymous)[^()]*\)")
_LONGEST_TRIED = 4096
_STYLE = """
svg { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; background: #fff }
.said { fill: #222 } .title { font-size: 16px; font-weight: bold } .name { fill: #111; pointer-events: none }
rect { stroke: #fff; stroke-width: .5 } g:hover > rect { stroke: #000; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { svg { background: #16181d } .said { fill: #ddd }
  rect { stroke: #16181d } g:hover > rect { stroke: #fff } }
"""


def write(report: Report, out: TextIO) -> None:
    """Write one report's live bytes, coloured by the file that the code is in."""
    tree = flame_tree(report.findings, lambda finding: finding.bytes)
    colours = module_colours(tree)
    targets = [printable(f"{target.comm} ({target.pid})") for target in report.targets]
    whose = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "") or "the kernel"
    sites = len(report.findings)
    said = [f"{size(tree.total)} live in {sites:,} {'site' if sites == 1 else 'sites'}, "
            f"{report.elapsed_s:.0f} s after the start"]
    if sites < _sites(report):
        said.append(f"{_sites(report) - sites:,} more not shown")
    if report.sampling:
        said.append(f"estimates from {report.sampling}")
    if not report.complete:
        said.append("not complete: there are allocations that were not counted")
    draw(tree, out, lambda node: colours.get(node.module, _NO_FILE), f"Live memory of {whose}", "; ".join(said),
         legend=[(colour, (module or "no file").rpartition("/")[2]) for module, colour in colours.items()])


def draw(tree: Node, out: TextIO, colour: Callable[[Node], str], title: str, subtitle: str = "",
         say: Callable[[Node], str] | None = None, legend: Sequence[tuple[str, str]] = ()) -> None:
    """Write a tree as an SVG. Widths are by total, which has to be 0 or more in every node.

    colour: of a node, as CSS has it, light enough for dark text. say: the tooltip of a node, without it its name,
    bytes and share. legend: colours and what they mean, the most important first.
    """
    say = say or (lambda node: _say(node, tree.total))
    cells = list(_cells(tree))
    left_out = sum(1 for _ in tree.walk()) - len(cells)
    if left_out:
        thin = f"{left_out:,} {'call' if left_out == 1 else 'calls'} below {NARROWEST:.1%} left out"
        subtitle = f"{subtitle}; {thin}" if subtitle else thin
    rows = 1 + max(depth for depth, _, _ in cells)
    keys = list(_legend(legend[:_NAMED], len(legend) - _NAMED))
    bottom = _HEAD + rows * _ROW
    height = bottom + _MARGIN + _ROW * (1 + keys[-1][0] if keys else 0)
    out.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
              f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_text(title)}">\n'
              f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n"
              f'<text class="said title" x="{_MARGIN}" y="24">{_text(title)}</text>\n'
              f'<text class="said" x="{_MARGIN}" y="44">{_text(subtitle)}</text>\n')
    for depth, left, node in cells:
        out.write(_cell(node, left, bottom - (depth + 1) * _ROW, _scaled(node.total, tree), colour(node), say(node)))
    for row, left, fill, text in keys:
        top = bottom + _MARGIN + row * _ROW
        out.write(f'<rect x="{left:.0f}" y="{top}" width="12" height="12" fill="{_text(fill)}"/>'
                  f'<text class="said" x="{left + 16:.0f}" y="{top + 11}">{_text(text)}</text>\n')
    out.write("</svg>\n")
    out.flush()


def module_colours(tree: Node) -> dict[str | None, str]:
    """Return a colour for each file, those first that allocate most themselves.

    A file has the same colour in every graph, whatever folder it is in.
    """
    own: dict[str | None, float] = {}
    for depth, node in tree.walk():
        if depth:
            own[node.module] = own.get(node.module, 0) + node.own
    return {module: _colour(module) for module in sorted(own, key=lambda module: (-own[module], module or ""))}


def _colour(module: str | None) -> str:
    if module is None:
        return _NO_FILE
    number = crc32(module.rpartition("/")[2].encode("utf-8", "backslashreplace"))
    return f"hsl({number % 360} {55 + number // 360 % 4 * 10}% {68 + number // 1440 % 3 * 5}%)"


def _sites(report: Report) -> int:
    return len(report.sites.order) if report.sites is not None else len(report.findings)


def _cells(tree: Node) -> Iterator[tuple[int, float, Node]]:
    """Yield depth, left end in pixels and node of all that are wide enough to be seen, those below others first."""
    waiting = [(0, float(_MARGIN), tree)]
    while waiting:
        depth, left, node = waiting.pop()
        yield depth, left, node
        for child in node.children:
            if child.total >= tree.total * NARROWEST and child.total > 0:
                waiting.append((depth + 1, left, child))
                left += _scaled(child.total, tree)


def _scaled(value: float, tree: Node) -> float:
    room = _WIDTH - 2 * _MARGIN
    return room * value / tree.total if tree.total > 0 else room


def _cell(node: Node, left: float, top: float, width: float, fill: str, said: str) -> str:
    shown = _shortened(node.name, int((width - 6) / _CHARACTER)) if width > 4 * _CHARACTER else ""
    name = f'<text class="name" x="{left + 3:.1f}" y="{top + 13:.0f}">{_text(shown)}</text>' if shown else ""
    return (f'<g><title>{_text(said)}</title><rect x="{left:.2f}" y="{top:.0f}" width="{width:.2f}" '
            f'height="{_ROW - 1}" fill="{_text(fill)}"/>{name}</g>\n')


def _shortened(name: str, longest: int) -> str:
    """Return a name that fits: a C++ function's without the arguments of templates, then without its own, then cut."""
    for left_out in (_TEMPLATE, _PARAMETERS):
        shorter = ""
        while longest < len(name) <= _LONGEST_TRIED and (shorter := left_out.sub("", name)) != name:
            name = shorter
    return short(name, longest)


def _say(node: Node, total: float) -> str:
    share = node.total / total if total > 0 else 1.0
    own = f", {size(node.own)} of it its own" if node.own and node.children else ""
    where = f"\n{node.module}" if node.module else ""
    return f"{node.name}\n{size(node.total)}, {share:.1%}{own}{where}"


def _legend(entries: Sequence[tuple[str, str]], more: int) -> Iterator[tuple[int, float, str, str]]:
    """Yield row, left end, colour and text of each entry, in as many rows as they need."""
    row, left = 0, float(_MARGIN)
    for fill, text in [*entries, *([("none", f"and {more} more")] if more > 0 else [])]:
        text = short(text, 40)
        if left > _MARGIN and left + 16 + len(text) * _CHARACTER > _WIDTH - _MARGIN:
            row, left = row + 1, float(_MARGIN)
        yield row, left, fill, text
        left += 16 + (len(text) + 2) * _CHARACTER


def _text(text: str) -> str:
    """Return a text as XML has it; line breaks stay, what XML has no room for is escaped as printable() does."""
    return "\n".join([escape(printable(line)) for line in text.split("\n")])
