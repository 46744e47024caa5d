"""Which blocks a program's end found reachable or lost: the truth that it states, and what two tools say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as xml
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from benchmarks.child import Failure
from benchmarks.verdict_programs import first_comment

KINDS = ("definitely", "indirectly", "possibly", "reachable")
#: Frames between a program and its allocator: valgrind's own library, and the C++ library that calls it for others.
_BETWEEN = re.compile(r"vgpreload_|libstdc\+\+")
_VALGRIND_KINDS = {
    "Leak_DefinitelyLost": "definitely",
    "Leak_IndirectlyLost": "indirectly",
    "Leak_PossiblyLost": "possibly",
    "Leak_StillReachable": "reachable",
}

Amount = tuple[int, int]
"""Bytes and blocks."""
Kinds = Mapping[str, Amount]
"""An amount for each of KINDS."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a tool says: of all blocks, and of those that the program itself asked for; error: nothing, and why."""

    all: Kinds
    own: Kinds
    error: str = ""


def truth(source: str) -> Kinds:
    """Return what a source's first comment says of its own blocks: `Truth: definitely 1,040 bytes in 2 blocks, …`."""
    stated = first_comment(source).partition("Truth: ")[2]
    if not stated:
        raise Failure("a program's first comment has no truth")
    return {kind: _amount(re.search(rf"{kind} ([\d,]+) bytes? in ([\d,]+) blocks?", stated)) for kind in KINDS}


def _amount(match: re.Match[str] | None) -> Amount:
    return (int(match[1].replace(",", "")), int(match[2].replace(",", ""))) if match else (0, 0)


def valgrind(document: str, program: str) -> Held:
    """Read memcheck's XML, made with all kinds shown; program: the path of the executable."""
    try:
        records = [_record(error) for error in xml.fromstring(document).iter("error") if _is_leak(error)]
    except xml.ParseError as error:
        return failed(f"no report: {error}")
    own = ((kind, amount) for kind, amount, modules in records if is_own(modules, program))
    return Held(_sums((kind, amount) for kind, amount, _ in records), _sums(own))


def _is_leak(error: xml.Element) -> bool:
    return error.findtext("kind", "") in _VALGRIND_KINDS


def _record(error: xml.Element) -> tuple[str, Amount, list[str]]:
    """Return a loss record's kind, its amount without what is lost through it, and its frames' modules."""
    size = int(error.findtext("xwhat/leakedbytes", "0"))
    # The number beside the text holds the indirectly lost ones too, which have a record of their own.
    direct = re.search(r"\(([\d,]+) direct, ", error.findtext("xwhat/text", ""))
    if direct:
        size = int(direct[1].replace(",", ""))
    modules = [frame.findtext("obj", "") for frame in error.iterfind("stack/frame")]
    return _VALGRIND_KINDS[error.findtext("kind", "")], (size, int(error.findtext("xwhat/leakedblocks", "0"))), modules


def leaktrace(document: str, program: str) -> Held:
    """Read leaktrace's JSON: the last document, which is of the program's end."""
    lines = [line for line in document.splitlines() if line.strip()]
    if not lines:
        return failed("its report is empty")
    try:
        report = json.loads(lines[-1])
        total = report["totals"]["reachability"]
        sites = [site for site in report["sites"] if site["reachability"] and is_own(_modules(site), program)]
        own = (pair for site in sites for pair in _pairs(site["reachability"]))
        return Held(_sums(_pairs(total)), _sums(own)) if total else failed("it did not scan")
    except (ValueError, KeyError, TypeError) as error:
        return failed(f"its report is not as expected: {type(error).__name__} {error}")


def _modules(site: Mapping[str, Any]) -> list[str]:
    return [frame["module"] or "" for frame in site["frames"]]


def _pairs(kinds: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Amount]]:
    return [(kind, (int(kinds[kind]["bytes"]), int(kinds[kind]["count"]))) for kind in KINDS]


def is_own(modules: Iterable[str], program: str) -> bool:
    """Return whether the innermost frame that does not just pass a wish on is the program's; modules: innermost first.

    What the dynamic loader and the C and C++ libraries ask for on their own account differs by their versions.
    """
    first = next((one for one in modules if not _BETWEEN.search(PurePath(one).name)), "")
    return bool(first) and first == program


def _sums(records: Iterable[tuple[str, Amount]]) -> Kinds:
    made = dict.fromkeys(KINDS, (0, 0))
    for kind, (size, blocks) in records:
        made[kind] = (made[kind][0] + size, made[kind][1] + blocks)
    return made


def failed(why: str) -> Held:
    """Return what a tool has not said."""
    return Held({}, {}, why)
