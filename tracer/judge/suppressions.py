"""Leaks that somebody has decided to live with: LeakSanitizer's and valgrind's suppression files, read as they are.

LeakSanitizer: compiler-rt's sanitizer_suppressions.cpp.
valgrind: manual, section 2.5 "Suppressing errors"; coregrind/m_errormgr.c (3.19), which decides where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from symbolizer.frame import Frame
from tracer.errors import UsageError
from tracer.judge.patterns import glob, of_mangled, template
from tracer.judge.stack_rule import NO_NAME, Entry, Location, Rule, Stack, Template

#: Location lines in one entry, valgrind's own bound (VG_DEEPEST_BACKTRACE).
MOST_LINES = 500
#: Characters in a line, valgrind's own bound (RIDICULOUS in m_errormgr.c).
LONGEST_LINE = 100_000
#: Characters of a name that print_suppression() writes in full.
LONGEST_NAME = 4000
_BLANK = " \t\r\v\f"

_OTHER_KINDS = frozenset((
    "Param", "User", "CoreMem", "Addr1", "Addr2", "Addr4", "Addr8", "Addr16", "Addr32", "Jump", "Free", "Overlap",
    "Mempool", "Cond", "Value0", "Value1", "Value2", "Value4", "Value8", "Value16", "Value32", "FishyValue",
    "ReallocZero", "BadAlign", "BadSize",
))
_LEAK_KINDS = frozenset(("definite", "indirect", "possible", "reachable"))
_EXPECTED_LOCATION = "a line of a stack is fun:NAME, obj:FILE, src:FILE:LINE or ..."


@dataclass(frozen=True, slots=True, eq=False)
class Suppression:
    """One entry, and where it stands. rule: None if it speaks of another error than a leak, and never matches."""

    name: str
    source: str
    line: int
    rule: Rule | None
    builtin: bool = False

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Use:
    """What one suppression silenced."""

    sites: int = 0
    blocks: int = 0
    bytes: int = 0


class Suppressions:
    """Entries of all files of a run, and what each of them silenced; the first that matches counts."""

    def __init__(self, entries: Iterable[Suppression]) -> None:
        self._entries = tuple(entries)
        self._used: dict[Suppression, Use] = {}

    def match(self, frames: tuple[Frame, ...]) -> Suppression | None:
        """Return the first suppression of this stack; innermost frame first. Changes no count."""
        stack = Stack(frames)
        return next((each for each in self._entries if each.rule is not None and each.rule.matches(stack)), None)

    def record(self, suppression: Suppression, blocks: int, size: int) -> None:
        """Count one more site that this suppression silenced, with its live blocks and bytes."""
        use = self._used.get(suppression, Use())
        self._used[suppression] = Use(use.sites + 1, use.blocks + blocks, use.bytes + size)

    @property
    def used(self) -> dict[Suppression, Use]:
        """What each that was used silenced, in the order of the files."""
        return {each: self._used[each] for each in self._entries if each in self._used}

    @property
    def unused(self) -> tuple[Suppression, ...]:
        """Entries for leaks that silenced nothing; never built-in ones, which nobody wrote for this program."""
        return tuple(each for each in self._entries if each.rule and not each.builtin and each not in self._used)

    @property
    def skipped(self) -> int:
        """How many entries speak of other errors than leaks."""
        return sum(each.rule is None for each in self._entries)


def parse(text: str, source: str) -> tuple[Suppression, ...]:
    """Read a file of either format, told apart by the first line that says something: valgrind's begins with a brace.

    Raises UsageError for the first bad line, like both tools, because a line passed over is a leak that fails the gate.
    """
    lines = _Lines(text.removeprefix("\ufeff"), source)
    first = next(iter(_Lines(lines.text, source)), None)
    return tuple(_valgrind(lines) if first is not None and first.startswith("{") else _leak_sanitizer(lines))


def print_suppression(frames: tuple[Frame, ...], name: str) -> str:
    """Return an entry that silences this stack, in valgrind's form, which alone can say a whole stack.

    `fun:*` stands for the allocator. Where a name has `*` or `?` the entry has `?`, which is any one character, because
    the format cannot quote. A stack that goes on beyond this one's outermost frame is silenced too.
    """
    lines = ["fun:*"]
    for frame in Stack(frames).frames[: MOST_LINES - 1]:
        lines.append(f"obj:{_quoted(frame.module or NO_NAME)}" if frame.function is None
                     else f"fun:{_quoted(frame.function)}")
    title = " ".join(name.split())[:LONGEST_NAME]
    if not title or title[0] in "#{}":
        title = f"leak {title}".strip()
    return "\n".join(["{", f"   {title}", "   Memcheck:Leak", *(f"   {line}" for line in lines), "}", ""])


def _quoted(text: str) -> str:
    # White space at the end of a line is not part of it, and a line ends where the name does not.
    safe = re.sub(r"[*?]|[^\S ]| $", "?", text[:LONGEST_NAME])
    return safe if len(text) <= LONGEST_NAME else f"{safe}*"


class _Lines:
    """Lines without blanks around them, empty lines and comments; number is that of the last one given."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source, self.number = text, source, 0
        self._rest = enumerate(text.split("\n"), 1)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number, line in self._rest:
            self.number = number
            if len(line) > LONGEST_LINE:
                self.refuse("is too long", f"a line has at most {LONGEST_LINE} characters")
            line = line.strip(_BLANK)
            if line and not line.startswith("#"):
                return line
        raise StopIteration

    def required(self, expected: str) -> str:
        """Return the next line of an entry that has to have one."""
        line = next(self, None)
        if line is None:
            self.refuse("ends inside an entry", expected)
        return line

    def refuse(self, what: str, expected: str) -> NoReturn:
        raise UsageError(f"{self.source}:{self.number}: the suppression file {what}.", f"Expected: {expected}.")

    def refuse_line(self, line: str, expected: str) -> NoReturn:
        self.refuse(f"has {line if len(line) <= 80 else line[:77] + '...'!r}", expected)


def _leak_sanitizer(lines: _Lines) -> Iterator[Suppression]:
    for line in lines:
        kind, colon, pattern = line.partition(":")
        # LeakSanitizer also stops at other sanitizers' kinds: it knows this one only.
        if kind != "leak" or not colon:
            lines.refuse_line(line, "leak:PATTERN, a comment that begins with #, or valgrind's { as the first line")
        if not pattern.strip("^$"):
            # LeakSanitizer lets most of these match everything, which is never what a forgotten name meant.
            lines.refuse_line(line, "a name after leak:, or leak:* for every leak")
        yield Suppression(pattern, lines.source, lines.number, Template(template(pattern)))


def _valgrind(lines: _Lines) -> Iterator[Suppression]:
    for line in lines:
        if line != "{":
            lines.refuse_line(line, "{ on a line of its own, which begins an entry of valgrind's")
        name = lines.required("the name of the entry")
        number = lines.number
        if name == "}":
            lines.refuse_line(name, "the name of the entry")
        kinds = "the tool and the kind of error, as Memcheck:Leak"
        tools, colon, kind = (what := lines.required(kinds)).partition(":")
        if not colon:
            lines.refuse_line(what, kinds)
        if "Memcheck" not in tools.split(",") or kind in _OTHER_KINDS:
            while lines.required("} after the entry") != "}":
                pass
            yield Suppression(name, lines.source, number, None)
        elif kind == "Leak":
            yield Suppression(name, lines.source, number, _leak_entry(lines))
        else:
            lines.refuse_line(what, "a kind of error that Memcheck has; for leaks Memcheck:Leak")


def _leak_entry(lines: _Lines) -> Rule | None:
    kinds = _LEAK_KINDS
    locations: list[Location] = []
    while (line := lines.required("} after the entry")) != "}":
        if line.startswith("match-leak-kinds:") and not locations:
            kinds = _leak_kinds(lines, line)
        elif len(locations) == MOST_LINES:
            lines.refuse("has an entry that is too long", f"at most {MOST_LINES} lines of a stack")
        else:
            locations.append(_location(lines, line))
    if all(location.dots for location in locations):
        lines.refuse("has an entry that names nothing", "at least one line that is not `...`")
    # All kinds are the same here: a block counts because it is live, whatever points to it.
    return Entry.of(locations) if kinds else None


def _leak_kinds(lines: _Lines, line: str) -> frozenset[str]:
    given = line.partition(":")[2].strip(_BLANK)
    if given in ("all", "none"):
        return _LEAK_KINDS if given == "all" else frozenset()
    kinds = frozenset(given.split(","))
    if not kinds <= _LEAK_KINDS:
        lines.refuse_line(line, "all, none, or some of definite,indirect,possible,reachable")
    return kinds


def _location(lines: _Lines, line: str) -> Location:
    kind, colon, text = line.partition(":")
    if line == "...":
        return Location("...", ())
    if not colon or kind not in ("fun", "obj", "src"):
        lines.refuse_line(line, _EXPECTED_LOCATION)
    if kind == "src":
        text, _, number = text.partition(":")
        if number and not re.fullmatch("[0-9]{1,9}", number):
            lines.refuse_line(line, "a line number after src:FILE:")
        return Location(kind, (glob(text),), int(number or 0))
    tests = (glob(text), *of_mangled(text)) if kind == "fun" else (glob(text),)
    return Location(kind, tests, everything=not text.strip("*") and bool(text))
