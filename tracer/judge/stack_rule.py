"""Whether a suppression's rule holds for a stack, as LeakSanitizer and valgrind decide it.

LeakSanitizer: compiler-rt's lsan_common.cpp. valgrind: coregrind/m_errormgr.c (3.19).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from symbolizer.demangle import demangle
from symbolizer.frame import Frame
from tracer.judge.fingerprint import plain_name

# What the sanitizers and valgrind put in the place of a name they do not have.
_NO_MODULE, NO_NAME = "<unknown module>", "???"

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


@dataclass(frozen=True, slots=True)
class Template:
    """The rule of a line of LeakSanitizer's: some name in the stack passes the test of its pattern."""

    test: Callable[[str], object]

    def matches(self, stack: Stack) -> bool:
        """Whether one does."""
        return any(self.test(text) for text in stack.texts)


@dataclass(frozen=True, slots=True)
class Location:
    """One line of an entry of valgrind's. number: a source line, 0 for any."""

    kind: str
    tests: tuple[Callable[[str], object], ...]
    number: int = 0
    everything: bool = False

    @property
    def dots(self) -> bool:
        """Whether it stands for any frames, or none."""
        return self.kind == "..."

    def matches(self, frame: Frame) -> bool:
        """Whether the frame is one that the line describes."""
        if self.kind == "fun":
            return self._accepts(_names(frame))
        if self.kind == "obj":
            return self._accepts((frame.module or NO_NAME,))
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
class Entry:
    """The rule of an entry of valgrind's: lines that a stack begins with, innermost first.

    allocators: positions of lines that stand for the allocator, if what comes before them in the entry does too. An
    entry whose first line does not is taken as written for leaktrace, whose stacks begin at the allocator's caller.
    """

    lines: tuple[Location, ...]
    allocators: frozenset[int]

    @classmethod
    def of(cls, locations: list[Location]) -> Entry:
        """Return the rule of these lines, of which one at least is not `...`."""
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


def _names(frame: Frame) -> tuple[str, ...]:
    if frame.function is None:
        return (NO_NAME,)
    plain = plain_name(frame.function)
    return (frame.function,) if plain == frame.function else (frame.function, plain)
