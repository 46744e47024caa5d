"""Cuts long C++ and Rust names to a width: what is in brackets goes first, a function's own name last."""

from __future__ import annotations

import re

CUT = "…"
#: Characters of a name that are looked at; the linker's own limits are far above what anybody reads.
_LONGEST = 8192
#: Levels of brackets that are told apart.
_DEEPEST = 16
#: Operators have brackets in their names, which enclose nothing.
_TOKEN = re.compile(r"(?<!\w)operator ?(?:\(\)|\[\]|<=>|<<=?|>>=?|->\*?|[<>]=?)|\(anonymous namespace\)"
                    r"|[<(>)]|[^<(>)o]+|o", re.DOTALL)
_CLOSES = {"<": ">", "(": ")"}


def cut(name: str, room: int) -> str:
    """Return a name in at most room characters (room: 1 or more).

    What is in angle brackets and parentheses becomes an ellipsis, the innermost first; then the type that is returned
    goes, then the namespaces from the left, and last the middle.
    """
    if len(name) <= room:
        return name
    levels = _levels(name[:_LONGEST])
    shorter = name
    for depth in range(min(max((level for _, level in levels), default=0), _DEEPEST), 0, -1):
        shorter = _collapsed(levels, depth)
        if len(shorter) <= room:
            return shorter
    shorter = _own(shorter)
    while len(shorter) > room and "::" in shorter.removeprefix(f"{CUT}::"):
        shorter = f"{CUT}::{shorter.removeprefix(f'{CUT}::').partition('::')[2]}"
    return shorter if len(shorter) <= room else middle(shorter, room)


def middle(text: str, room: int) -> str:
    """Return a text in at most room characters, its middle left out where it is longer."""
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return text[: room - 1 - end] + CUT + text[len(text) - end :]


def _levels(name: str) -> list[tuple[str, int]]:
    """Return the pieces of a name, each with how many brackets are around it; a bracket is inside of itself."""
    found, inside = [], []
    for piece in _TOKEN.findall(name):
        if piece in _CLOSES:
            inside.append(_CLOSES[piece])
            found.append((piece, len(inside)))
            continue
        found.append((piece, len(inside)))
        if piece == ")" and ")" in inside:
            # A < before it was a comparison.
            while inside.pop() != ")":
                pass
        elif piece == ">" and inside[-1:] == [">"]:
            inside.pop()
    return found


def _collapsed(levels: list[tuple[str, int]], depth: int) -> str:
    """Return a name whose brackets at a depth hold an ellipsis, if anything."""
    made: list[str] = []
    for piece, level in levels:
        if level < depth or (level == depth and piece in (*_CLOSES, *_CLOSES.values())):
            made.append(piece)
        elif made[-1] != CUT:
            made.append(CUT)
    return "".join(made)


def _own(name: str) -> str:
    """Return a name, whose brackets are empty, without the type that the function returns."""
    before, _, rest = name.partition("(")
    start = before.rfind(" ", 0, before.find("operator") if "operator" in before else None)
    return name if start < 0 or not rest else name[start + 1 :]
