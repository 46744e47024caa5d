"""Whether leaktrace's names, files, lines and inlined calls are llvm-symbolizer's, and if not, why not."""

from __future__ import annotations

import json
import posixpath
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.symbol_process import run
from benchmarks.symbol_requests import Request
from benchmarks.symbol_tools import CACHE, LEAKTRACE, LLVM, Job

EQUAL = "equal"
UNEXPLAINED = "unexplained"
_THUNK = re.compile(r"_ZT[hvc]")
_CLONE = re.compile(r"(\.(cold|part|isra|constprop|lto_priv|localalias)(\.[0-9]+)*)+")


class Place(NamedTuple):
    """One frame as a symbolizer told it; None for what it does not know."""

    function: str | None
    file: str | None
    line: int | None


class Function(NamedTuple):
    """The function that covers an address, as the ELF symbols tell it; `before` is the line of the byte before it."""

    names: Collection[str] = ()
    before: Place | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a frame may differ; `applies` gets our frame, the other's, and the function if it is not an inlined call."""

    name: str
    why: str
    applies: Callable[[Place, Place, Function], bool]


def _is_alias(ours: Place, theirs: Place, function: Function) -> bool:
    return ours[1:] == theirs[1:] and {ours.function, theirs.function} <= set(function.names)


def _is_clone(ours: Place, theirs: Place, function: Function) -> bool:
    whole, base = ours.function or "", theirs.function or ""
    return (
        ours[1:] == theirs[1:]
        and whole in function.names
        and whole.startswith(base)
        and _CLONE.fullmatch(whole, len(base)) is not None
    )


def _has_no_line(ours: Place, theirs: Place, _: Function) -> bool:
    return ours.function == theirs.function and ours.line is None and theirs.line is None


def _is_thunk(ours: Place, theirs: Place, function: Function) -> bool:
    same = ours.function == theirs.function or {ours.function, theirs.function} <= set(function.names)
    return same and ours.line is None and _THUNK.match(ours.function or "") is not None


def _has_the_line_before(ours: Place, theirs: Place, function: Function) -> bool:
    same = ours.function == theirs.function and ours.line is None
    return same and function.before is not None and theirs[1:] == function.before[1:]


EXPLANATIONS = (
    Explanation(
        "another name of the same function",
        "several ELF symbols begin at its first byte (a constructor's C1 and C2, functions that were folded)",
        _is_alias,
    ),
    Explanation(
        "a clone's name",
        "the ELF symbol tells which part of a function it is (.cold, .isra.0); DWARF has one name for all of them",
        _is_clone,
    ),
    Explanation(
        "a file without a line",
        "the line table has line 0 there; llvm-symbolizer then names the compiled file, leaktrace none",
        _has_no_line,
    ),
    Explanation(
        "a thunk's line",
        "the compiler made the function, and DWARF has none at this address, only a line, which leaktrace leaves out",
        _is_thunk,
    ),
    Explanation(
        "the line of the function before",
        "the function has no line up to there; llvm-symbolizer shows the last one before it, leaktrace none",
        _has_the_line_before,
    ),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """An address at which the two do not agree; `kinds` are the names of explanations, or UNEXPLAINED."""

    vaddr: int
    kinds: tuple[str, ...]
    ours: tuple[Place, ...]
    theirs: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: how many addresses were compared, and every difference."""

    compared: int
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Return kind → number of addresses; one with several kinds counts for each."""
        kinds = Counter(kind for one in self.differences for kind in one.kinds)
        names = [*(one.name for one in EXPLANATIONS), UNEXPLAINED]
        return {EQUAL: self.compared - len(self.differences), **{name: kinds[name] for name in names}}


def kinds_of_difference(ours: Sequence[Place], theirs: Sequence[Place], function: Function) -> tuple[str, ...]:
    """Return what explains the difference of two inline chains, innermost first; empty if they are equal."""
    if len(ours) != len(theirs):
        return (UNEXPLAINED,)
    kinds = []
    for depth, (mine, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if mine != other:
            # Only the outermost function has a symbol.
            kinds.append(_kind(mine, other, function if depth == len(ours) else Function()))
    return (UNEXPLAINED,) if UNEXPLAINED in kinds else tuple(dict.fromkeys(kinds))


def _kind(ours: Place, theirs: Place, function: Function) -> str:
    return next((one.name for one in EXPLANATIONS if one.applies(ours, theirs, function)), UNEXPLAINED)


def llvm_places(answer: Mapping[str, object]) -> tuple[Place, ...]:
    """Return the frames of one line of llvm-symbolizer's JSON, paths made plain (`a/../b` is `b`)."""
    symbols = answer.get("Symbol") or ()
    assert isinstance(symbols, Sequence)
    found = (
        Place(
            one["FunctionName"] or None,
            posixpath.normpath(one["FileName"]) if one["FileName"] else None,
            one["Line"] or None,
        )
        for one in symbols
    )
    return tuple(found)


def check(job: Job) -> Verdict:
    """Ask both for the job's addresses, and compare."""
    ours = [json.loads(line) for line in _own(job).splitlines()]
    theirs = _llvms(job, job.requests)
    before = _llvms(job, [one._replace(vaddr=mine["start"] - 1) for one, mine in zip(job.requests, ours, strict=True)])
    differences = []
    for request, mine, other, last in zip(job.requests, ours, theirs, before, strict=True):
        frames = tuple(Place(*frame) for frame in mine["frames"])
        kinds = kinds_of_difference(frames, other, Function(mine["aliases"], last[0] if last else None))
        if kinds:
            differences.append(Difference(request.vaddr, kinds, frames, other))
    return Verdict(len(job.requests), tuple(differences))


def _llvms(job: Job, requests: Sequence[Request]) -> list[tuple[Place, ...]]:
    questions = "".join(f"{line}\n" for line in LLVM.asked(job, requests))
    command = [*LLVM.command(job), "--output-style=JSON", "--no-demangle"]
    return [llvm_places(json.loads(line)) for line in run(command, questions).output.splitlines()]


def _own(job: Job) -> str:
    lines = "".join(f"{line}\n" for line in LEAKTRACE.asked(job, job.requests))
    # What an earlier version left in the user's cache would be compared otherwise.
    with tempfile.TemporaryDirectory(prefix="leaktrace-bench-") as cache:
        return run([*LEAKTRACE.command(job), "--json"], lines, {CACHE: cache}).output


def as_text(verdict: Verdict) -> str:
    """Return the verdict for a person: counts, what each kind means, and every difference that nothing explains."""
    head = "names (as the linker knows them), files, lines and inlined calls beside llvm-symbolizer's"
    parts = [f"{verdict.compared:,} addresses: {head}", ""]
    reasons = {one.name: one.why for one in EXPLANATIONS}
    parts += [f"  {count:>6}  {name}{_why(reasons, name)}" for name, count in verdict.counts.items()]
    for one in verdict.differences:
        if UNEXPLAINED in one.kinds:
            parts += ["", f"  {one.vaddr:#x}"]
            parts += [f"    leaktrace  {_flat(place)}" for place in one.ours]
            parts += [f"    llvm       {_flat(place)}" for place in one.theirs]
    return "\n".join(parts)


def _why(reasons: Mapping[str, str], name: str) -> str:
    return f": {reasons[name]}" if name in reasons else ""


def _flat(place: Place) -> str:
    return f"{place.function or '??'} at {place.file or '??'}:{place.line or 0}"
