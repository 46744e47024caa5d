"""Compares a trace of the kernel with what the kernel's own books say: its account by line of source, and kmemleak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tracer.attach.alloc_info import TaggedSite
from tracer.attach.kernel_points import possible_processors
from tracer.attach.kmemleak import SCANS, new_since
from tracer.collect.kernel_records import Source
from tracer.errors import CannotTrace
from tracer.judge.cross_check import (
    Amount,
    CrossCheck,
    Standing,
    TracedSite,
    bare_name,
    compare_account,
    compare_unreferenced,
)
from tracer.kernel_books import Books
from tracer.kernel_names import KernelNames
from tracer.report.cross_model import CrossNote, CrossOnly, CrossRow

NOTHING = Amount()


class Tables(Protocol):
    """The kernel side's tables, row i of all being the same site (KernelProgram)."""

    @property
    def sites(self) -> np.ndarray: ...
    @property
    def stacks(self) -> np.ndarray: ...
    @property
    def about(self) -> np.ndarray: ...
    @property
    def charged(self) -> np.ndarray | None: ...


@dataclass(slots=True)
class _Sums:
    """What the sites of one stack of functions hold, and all that they ever allocated and freed.

    held_apart, moved_apart: bytes of these that memory per processor takes beyond one processor's part.
    """

    held: Amount = NOTHING
    moved: Amount = NOTHING
    held_apart: int = 0
    moved_apart: int = 0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.held + other.held, self.moved + other.moved, self.held_apart + other.held_apart,
                     self.moved_apart + other.moved_apart)  # fmt: skip

    def of(self, *, one_part: bool) -> tuple[Amount, Amount]:
        """Return what is held and what moved, of memory per processor one part or all."""
        if not one_part:
            return self.held, self.moved
        return self.held - Amount(self.held_apart), self.moved - Amount(self.moved_apart)


#: By the functions of a stack, and the one that the kernel's account charges (TracedSite.charged).
_ByFunctions = dict[tuple[tuple[str, ...], str | None], _Sums]
#: Caches whose objects the account leaves out (SLAB_NOLEAKTRACE in mm/slub.c).
_UNCHARGED = (b"kmemleak_object", b"kmemleak_scan_area")
_PAGE = 4096


class BookCheck:
    """The comparison of one trace. begin() once everything is attached, then check() at any time."""

    def __init__(self, books: Books, tables: Tables, names: KernelNames, sources: Sequence[str],
                 processors: int | None = None) -> None:
        """names: without the allocators' frames. sources: that are traced. processors: how many there could be."""
        self._books, self._tables, self._names = books, tables, names
        self._sources = frozenset(sources)
        self._processors = processors or possible_processors()
        self._before: Sequence[TaggedSite] = ()
        self._first: tuple[_ByFunctions, _ByFunctions] = ({}, {})
        self._jiffies: int | None = None

    def begin(self) -> None:
        """Read what is there before. Raises CannotTrace."""
        self._jiffies = self._books.jiffies()
        if self._books.account is not None:
            self._before, self._first = self._reading(self._books.account)

    def check(self) -> tuple[CrossNote, ...]:
        """Read the kernel's books again and compare; a book that can no longer be read says so."""
        notes = []
        for name, book, compare in (("allocinfo", self._books.account, self._with_account),
                                    ("kmemleak", self._books.detector, self._with_detector)):
            if book is not None:
                try:
                    notes.append(compare())
                except CannotTrace as problem:
                    notes.append(CrossNote(name, summary=str(problem)))
        if self._books.problem is not None:
            notes.append(CrossNote("kmemleak", summary=self._books.problem))
        return tuple(notes)

    def _with_account(self) -> CrossNote:
        assert self._books.account is not None
        after, last = self._reading(self._books.account)
        # What moved while the account was read is known, and not only a share of the time: all of it may be missing.
        # Of memory per processor, kernels charge one part, later ones all of them and what is kept beside them
        # (pcpu_alloc_tag_alloc_hook() in mm/percpu.c): it is what agrees better.
        found = max((compare_account(_between(self._first, last, one_part), self._before, after, gap=1.0)
                     for one_part in (False, True)), key=_agreeing)  # fmt: skip
        held = held_by_function(self._before)
        rows = tuple(_row(row.function, row.traced, row.other,
                          "older" if _is_older(row.standing, row.difference, held.get(row.function, NOTHING))
                          else row.standing.value, row.places) for row in found.rows)
        return _note("allocinfo", found, rows, (*self._older(rows), *self._not_traced(),
                     *self._set_up_early(), "leaktrace's own allocations are in the kernel's account only."))

    def _with_detector(self) -> CrossNote:
        assert self._books.detector is not None
        blocks = new_since(self._books.earlier, self._books.detector(SCANS))
        if self._jiffies is not None:
            # What was allocated before may have been lost meanwhile; the trace cannot know it.
            blocks = tuple(block for block in blocks if block.jiffies >= (self._jiffies or 0))
        now = self._sums(self._copied(), self._in_detector)
        found = compare_unreferenced([TracedSite(functions, sums.of(one_part=True)[0])
                                      for (functions, _), sums in now.items()], blocks)  # fmt: skip
        rows = tuple(_row(row.function, row.traced, row.other, row.standing.value, row.places) for row in found.rows)
        return _note("kmemleak", found, rows, ("kmemleak names a block only once nothing points to it and it is 5 s "
                                               "old; what else the trace holds is no contradiction.",))

    def _reading(self, account: Callable[[], Sequence[TaggedSite]]
                 ) -> tuple[Sequence[TaggedSite], tuple[_ByFunctions, _ByFunctions]]:
        """Read the account, and the trace right before and after it."""
        before = self._copied()
        tags = account()
        after = self._copied()
        return tags, (self._sums(before, self._in_account), self._sums(after, self._in_account))

    def _copied(self) -> tuple[np.ndarray, ...]:
        """Copy the rows in use: counters, stacks, what is said of them, the functions that are charged."""
        used, names = np.flatnonzero(self._tables.sites["allocated_count"]), self._tables.charged
        charged = names["function"][used] if names is not None else np.full(len(used), None)
        return self._tables.sites[used], self._tables.stacks[used], self._tables.about[used], charged

    def _sums(self, taken: tuple[np.ndarray, ...],
              in_book: Callable[[np.void, np.void, str | None], _Sums | None]) -> _ByFunctions:
        """Return sums by stack of functions; in_book(counters, about, serves): what of a site is in a book, or None."""
        found: _ByFunctions = {}
        for counters, stack, about, charged in zip(*taken, strict=True):
            named = self._names.stack(stack["addresses"][: int(stack["depth"])])
            amounts = in_book(counters, about, named.serves)
            if amounts is None:
                continue
            functions = tuple(frame.function or f"{frame.address:#x}" for frame in named.frames)
            key = functions, charged.decode("utf-8", "backslashreplace") if charged is not None else None
            found[key] = found.get(key, _Sums()) + amounts
        return found

    def _amounts(self, counters: np.void, about: np.void) -> _Sums:
        made, gone = int(counters["allocated_bytes"]), int(counters["freed_bytes"])
        count, ended = int(counters["allocated_count"]), int(counters["freed_count"])
        held, moved = made - gone, made + gone
        apart = 0, 0
        if about["source"] == Source.PERCPU:
            one = (held - int(about["wasted_bytes"])) // self._processors
            apart = held - one, moved - moved // self._processors
        return _Sums(Amount(held, count - ended), Amount(moved, count + ended), *apart)

    def _in_account(self, counters: np.void, about: np.void, serves: str | None) -> _Sums | None:
        """Return what the kernel's account has of a site. An area stands for its pages: most pass no tracepoint."""
        counted_there = ("slab", "vmalloc") if "vmalloc" in self._sources else ("slab",)
        if (about["source"] == Source.PAGES and serves in counted_there) or about["name"] in _UNCHARGED:
            return None
        sums = self._amounts(counters, about)
        if about["source"] == Source.VMALLOC:
            sums.held, sums.moved = (Amount(each.bytes, each.bytes // _PAGE) for each in (sums.held, sums.moved))
        return sums

    def _in_detector(self, counters: np.void, about: np.void, _serves: str | None) -> _Sums | None:
        """Return what kmemleak follows of a site: all but pages."""
        return self._amounts(counters, about) if about["source"] != Source.PAGES else None

    def _set_up_early(self) -> list[str]:
        if "percpu" not in self._sources:
            return []
        return ["Memory per processor that fits into what was set up at boot is in the trace only."]

    def _not_traced(self) -> list[str]:
        missing = [name for name in ("slab", "pages", "percpu") if name not in self._sources]
        if not missing:
            return []
        return [f"Not traced, and so in the kernel's account only: {', '.join(missing)}."]

    @staticmethod
    def _older(rows: Sequence[CrossRow]) -> list[str]:
        count = sum(row.standing == "older" for row in rows)
        if not count:
            return []
        return [f"Less in the kernel's account by no more than it held before the trace: {count} of those that differ. "
                "Blocks from then that were freed since may be why."]


def held_by_function(tags: Iterable[TaggedSite]) -> dict[str, Amount]:
    """Return what each function holds by the kernel's account."""
    found: dict[str, Amount] = {}
    for tag in tags:
        name = bare_name(tag.function)
        found[name] = found.get(name, NOTHING) + Amount(tag.bytes, tag.calls)
    return found


def _agreeing(found: CrossCheck) -> int:
    return sum(row.standing is Standing.AGREES for row in found.rows)


def _is_older(standing: Standing, difference: Amount, before: Amount) -> bool:
    """Whether blocks that were freed since the beginning, whose frees the trace cannot count, explain a difference."""
    return (standing is Standing.DIFFERS and 0 <= difference.bytes <= before.bytes
            and 0 <= difference.count <= before.count)


def _between(first: tuple[_ByFunctions, _ByFunctions], last: tuple[_ByFunctions, _ByFunctions], one_part: bool
             ) -> list[TracedSite]:
    """Return what was gained from one reading to another, and as allocated what moved during both."""
    found = []
    for key in last[1]:
        (began, earlier), (_, begun), (ends, later), (_, now) = (
            each.get(key, _Sums()).of(one_part=one_part) for each in (*first, *last))
        found.append(TracedSite(key[0], ends - began, begun - earlier + now - later, key[1]))
    return found


def _row(function: str, traced: Amount, other: Amount, standing: str, places: tuple[str, ...]) -> CrossRow:
    return CrossRow(function, traced.bytes, traced.count, other.bytes, other.count, standing, places)


def _note(book: str, found: CrossCheck, rows: tuple[CrossRow, ...], notes: tuple[str, ...]) -> CrossNote:
    only = [tuple(CrossOnly(name, amount.bytes, amount.count) for name, amount in each)
            for each in (found.only_traced, found.only_other)]
    return CrossNote(book, rows, only[0], only[1], found.summary, notes)
