"""Leaks that somebody has decided to live with: LeakSanitizer's and valgrind's suppression files, read as they are.

LeakSanitizer: compiler-rt's sanitizer_suppressions.cpp, TemplateMatch() in sanitizer_common.cpp, lsan_common.cpp.
valgrind: manual, section 2.5 "Suppressing errors"; coregrind/m_errormgr.c (3.19), which decides where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn, Protocol

from symbolizer.demangle import demangle
from symbolizer.frame import Frame
from tracer.errors import UsageError
from tracer.judge.fingerprint import plain_name

#: Location lines in one entry, valgrind's own bound (VG_DEEPEST_BACKTRACE).
MOST_LINES = 500
#: Characters in a line, valgrind's own bound (RIDICULOUS in m_errormgr.c).
LONGEST_LINE = 100_000
#: Characters of a name that print_suppression() writes in full.
LONGEST_NAME = 4000
_BLANK = " \t\r\v\f"

# What the sanitizers and valgrind put in the place of a name they do not have.
_NO_MODULE, _NO_NAME = "<unknown module>", "???"

_ALLOCATORS = (
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "posix_memalign", "aligned_alloc", "valloc", "pvalloc",
    *(f"_Zn{kind}{size}{more}" for kind in "wa" for size in "mj"
      for more in ("", "RKSt9nothrow_t", "St11align_val_t", "St11align_val_tRKSt9nothrow_t")),
    "__builtin_new", "__builtin_vec_new",
)
_ALLOCATOR_FRAMES = re.compile(
    r"(?:__libc_)?(?:malloc|calloc|realloc|reallocarray|memalign|posix_memalign|aligned_alloc|valloc|pvalloc)"
    r"|operator new(?:\[\])?\(.*\)"
)
# Where valgrind's own allocator lies, as its stacks and so its suppressions show it.
_ALLOCATOR_FILES = tuple(
    f"/usr/{folder}/valgrind/vgpreload_{tool}-amd64-linux.so"
    for folder in ("lib", "libexec", "lib/x86_64-linux-gnu") for tool in ("core", "memcheck")
)

_OTHER_KINDS = frozenset((
    "Param", "User", "CoreMem", "Addr1", "Addr2", "Addr4", "Addr8", "Addr16", "Addr32", "Jump", "Free", "Overlap",
    "Mempool", "Cond", "Value0", "Value1", "Value2", "Value4", "Value8", "Value16", "Value32", "FishyValue",
    "ReallocZero", "BadAlign", "BadSize",
))
_LEAK_KINDS = frozenset(("definite", "indirect", "possible", "reachable"))
_EXPECTED_LOCATION = "a line of a stack is fun:NAME, obj:FILE, src:FILE:LINE or ..."


class Stack:
    """A stack as suppressions see it: without the allocator itself, and never empty."""

    def __init__(self, frames: tuple[Frame, ...]) -> None:
        first = 0
        while first < len(frames) - 1 and _ALLOCATOR_FRAMES.fullmatch(frames[first].function or ""):
            first += 1
        self.frames = frames[first:] or (Frame(0),)

    @cached_property
    def texts(self) -> frozenset[str]:
        """Everything that a pattern of LeakSanitizer's is compared with."""
        found: set[str] = set()
        for frame in self.frames:
            found.update((frame.module or _NO_MODULE, frame.file or ""))
            if frame.function is not None:
                found.update(_names(frame))
        return frozenset(found - {""})


class Rule(Protocol):
    """What decides whether a stack is suppressed."""

    def matches(self, stack: Stack) -> bool:
        """Whether it is."""


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
        lines.append(f"obj:{_quoted(frame.module or _NO_NAME)}" if frame.function is None
                     else f"fun:{_quoted(frame.function)}")
    title = " ".join(name.split())[:LONGEST_NAME]
    if not title or title[0] in "#{}":
        title = f"leak {title}".strip()
    return "\n".join(["{", f"   {title}", "   Memcheck:Leak", *(f"   {line}" for line in lines), "}", ""])


def _quoted(text: str) -> str:
    # White space at the end of a line is not part of it, and a line ends where the name does not.
    safe = re.sub(r"[*?]|[^\S ]| $", "?", text[:LONGEST_NAME])
    return safe if len(text) <= LONGEST_NAME else f"{safe}*"


def _names(frame: Frame) -> tuple[str, ...]:
    if frame.function is None:
        return (_NO_NAME,)
    plain = plain_name(frame.function)
    return (frame.function,) if plain == frame.function else (frame.function, plain)


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
        yield Suppression(pattern, lines.source, lines.number, _Template(template(pattern)))


@dataclass(frozen=True, slots=True)
class _Template:
    test: Callable[[str], object]

    def matches(self, stack: Stack) -> bool:
        return any(self.test(text) for text in stack.texts)


def template(pattern: str) -> Callable[[str], object]:
    """Return the test that a pattern of LeakSanitizer's is: a part of the text, `*` any text, `^` start, `$` end.

    What follows a `$` is not looked at. LeakSanitizer stops at the first of several places where the text before a `$`
    could stand (`foo$` is not in `foofoo`); here as documented, the end is what counts.
    """
    wanted, dollar, _ = pattern.partition("$")
    pieces = [re.escape(piece) for piece in re.split(r"\*+", wanted.removeprefix("^"))]
    return _in_order(pieces if wanted.startswith("^") else ["", *pieces], bool(dollar))


def glob(pattern: str) -> Callable[[str], object]:
    """Return the test for a whole text in which `*` is any text and `?` any one character; nothing else is special."""
    if not re.search(r"[*?]", pattern):
        return pattern.__eq__
    return _in_order([".".join(map(re.escape, piece.split("?"))) for piece in re.split(r"\*+", pattern)], True)


def _in_order(pieces: list[str], to_end: bool) -> Callable[[str], object]:
    """Return the test for these regular expressions one after another, the first at the start, any text between."""
    first, *others = pieces
    last = r"\Z" if to_end else ""
    if others and to_end:
        last = rf".*{others.pop()}\Z"
    # Atomic groups: each piece where it first stands, once and for all, so that time does not grow with each `*`.
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in others) + last, re.DOTALL).match


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
    locations: list[_Location] = []
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
    return _Entry.of(locations) if kinds else None


def _leak_kinds(lines: _Lines, line: str) -> frozenset[str]:
    given = line.partition(":")[2].strip(_BLANK)
    if given in ("all", "none"):
        return _LEAK_KINDS if given == "all" else frozenset()
    kinds = frozenset(given.split(","))
    if not kinds <= _LEAK_KINDS:
        lines.refuse_line(line, "all, none, or some of definite,indirect,possible,reachable")
    return kinds


def _location(lines: _Lines, line: str) -> _Location:
    kind, colon, text = line.partition(":")
    if line == "...":
        return _Location("...", ())
    if not colon or kind not in ("fun", "obj", "src"):
        lines.refuse_line(line, _EXPECTED_LOCATION)
    if kind == "src":
        text, _, number = text.partition(":")
        if number and not re.fullmatch("[0-9]{1,9}", number):
            lines.refuse_line(line, "a line number after src:FILE:")
        return _Location(kind, (glob(text),), int(number or 0))
    tests = (glob(text), *_of_mangled(text)) if kind == "fun" else (glob(text),)
    return _Location(kind, tests, everything=not text.strip("*") and bool(text))


@dataclass(frozen=True, slots=True)
class _Location:
    """One line of an entry. number: a source line, 0 for any."""

    kind: str
    tests: tuple[Callable[[str], object], ...]
    number: int = 0
    everything: bool = False

    @property
    def dots(self) -> bool:
        return self.kind == "..."

    def matches(self, frame: Frame) -> bool:
        if self.kind == "fun":
            return self._accepts(_names(frame))
        if self.kind == "obj":
            return self._accepts((frame.module or _NO_NAME,))
        # valgrind compares with the name that debug information has; leaktrace's may have its folder in front.
        file = frame.file or ""
        return bool(file) and self.number in (0, frame.line) and self._accepts((file, file.rpartition("/")[2]))

    @property
    def is_allocator(self) -> bool:
        """Whether this line is what valgrind's stacks begin with and ours do not have."""
        if self.kind == "fun":
            return self._accepts(_ALLOCATORS) or self._accepts(map(demangle, _ALLOCATORS))
        return self._accepts(_ALLOCATOR_FILES if self.kind == "obj" else ("vg_replace_malloc.c",))

    def _accepts(self, texts: Iterable[str]) -> bool:
        return any(test(text) for text in texts for test in self.tests)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Lines that a stack begins with, innermost first.

    allocators: positions of lines that stand for the allocator, if what comes before them in the entry does too. An
    entry whose first line does not is taken as written for leaktrace, whose stacks begin at the allocator's caller.
    """

    lines: tuple[_Location, ...]
    allocators: frozenset[int]

    @classmethod
    def of(cls, locations: list[_Location]) -> _Entry:
        last = max(index for index, line in enumerate(locations) if not line.dots)
        # The last line has to say something of the program: `fun:calloc` alone would silence malloc's blocks too.
        allocators = frozenset(
            index for index, line in enumerate(locations)
            if not line.dots and (line.everything or (index < last and line.is_allocator))
        )
        return cls(tuple(locations), allocators)

    def matches(self, stack: Stack) -> bool:
        """Whether the stack begins like this; time grows with lines × frames at most, however many `...` there are."""
        reached = self._from(0)
        if self.lines[0].dots or 0 in self.allocators:
            reached = self._after_allocator(reached)
        for frame in stack.frames:
            if len(self.lines) in reached or not reached:
                break
            reached = self._after(frame, reached)
        return len(self.lines) in reached

    def _after_allocator(self, reached: set[int]) -> set[int]:
        """Return the lines that may come next after the frame that valgrind's stacks have and ours do not."""
        after = {each for index in reached if self.lines[index].dots for each in self._from(index)}
        to_try = sorted(reached & self.allocators)
        while to_try:
            index = to_try.pop()
            following = self._from(index + 1)
            if not self.lines[index].everything:
                # `fun:malloc` above `fun:_Znwm` is one allocator; `fun:*` is one frame.
                more = following & self.allocators - after
                to_try += [each for each in more if not self.lines[each].everything]
            after |= following
        return after

    def _after(self, frame: Frame, reached: set[int]) -> set[int]:
        """Return the lines that may come next after this frame; one where recursion was folded may be several lines."""
        after: set[int] = set()
        to_try, tried = list(reached), set(reached)
        while to_try:
            index = to_try.pop()
            if index == len(self.lines) or self.lines[index].dots:
                after |= self._from(index)
            elif self.lines[index].matches(frame):
                following = self._from(index + 1)
                after |= following
                if frame.repeats > 1:
                    to_try += following - tried
                    tried |= following
        return after

    def _from(self, index: int) -> set[int]:
        """Return this line, and the one after it if this one may be nothing."""
        reached = {index}
        while index < len(self.lines) and self.lines[index].dots:
            index += 1
            reached.add(index)
        return reached


def _of_mangled(pattern: str) -> tuple[Callable[[str], object], ...]:
    """Return the test of demangled names that a mangled one in a suppression is; none if it cannot be told.

    valgrind compares mangled names, and frames have demangled ones. A whole name is demangled. Of one with wildcards
    what comes before the first `*` can be read if it is whole identifiers, as in `_ZN3Foo3bar*` and `_ZNSt6vectorI*`.
    """
    if not re.search(r"[*?]", pattern):
        name = plain_name(demangle(pattern))
        return () if name == pattern else (name.__eq__,)
    found = re.fullmatch(r"\**_Z(N[rVKRO]*)?(St)?([^*?]*)\*+", pattern)
    if found is None:
        return ()
    names, rest = ["std"] if found[2] else [], found[3]
    cut = ""
    while length := re.match("[1-9][0-9]{0,3}", rest):
        size, text = int(length[0]), rest[length.end():]
        if len(text) < size:
            # The wildcard stands inside an identifier of known length.
            cut = rf"{re.escape(text)}\w{{{size - len(text)}}}" if text else ""
            rest = "" if text else rest
            break
        names.append("(anonymous namespace)" if text.startswith("_GLOBAL__N_") else text[:size])
        rest = text[size:]
    if names and (special := re.fullmatch("([CD])[0-5](.*)", rest)):
        names.append(names[-1] if special[1] == "C" else f"~{names[-1]}")
        rest = special[2]
    ends = {"": r"(?!\w)", "E": r"\(", "I": "<", "EI": "<"}
    inside = re.fullmatch("[1-9][0-9]*", rest)
    if (rest not in ends and inside is None) or not (names or cut):
        return ()
    path = "::".join([*map(re.escape, names), *([cut] if cut else [])])
    # A template function's demangled name begins with the type it returns.
    return (re.compile(rf"(?:[^(]*[ *&])?{path}{'::' if inside else ends[rest]}", re.DOTALL).match,)
