"""Frees that are wrong, as text and as JSON's own types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TextIO

from symbolizer.frame import Frame
from tracer.report.misuse_model import Kind, Misuse, Misuses

Describe = Callable[[Frame], str]
#: Stands for a stack that is empty.
NO_STACK = "(no room was left to record the stack)"


def write(misuses: Misuses, out: TextIO, describe: Describe) -> None:
    """Write each misuse in a line, and its stacks below; describe gives one line for a frame."""
    out.write(f"{title(misuses)}\n")
    for misuse in misuses.found:
        out.write(f"\t{sentence(misuse)}\n")
        for heading, frames in stacks(misuse):
            out.write(f"\t    {heading}:\n")
            for frame in frames:
                out.write(f"\t\t{describe(frame)}\n")
            if not frames:
                out.write(f"\t\t{NO_STACK}\n")
    out.writelines(f"{line}\n" for line in undecided(misuses))


def title(misuses: Misuses) -> str:
    """Return how many there are, in one line."""
    if not misuses.found:
        return "Misused frees: none."
    return f"Misused frees: {misuses.count} in {len(misuses.found)} {'place' if len(misuses.found) == 1 else 'places'}"


def undecided(misuses: Misuses) -> Iterator[str]:
    """Give a line of those that may be, if there are any."""
    if misuses.undecided:
        yield (f"{misuses.undecided} more may be mismatched; the code that allocated or freed has no symbols, "
               "so that it may be an operator new or delete.")


def sentence(misuse: Misuse) -> str:
    """Return one line: what was freed by what, in which functions, how often."""
    where = _innermost(misuse.freed)
    times = f"{misuse.count} time{'' if misuse.count == 1 else 's'} (pid {misuse.pid})"
    block = f"{misuse.allocated_by} in {_innermost(misuse.allocated)}"
    if misuse.kind is Kind.MISMATCH:
        return f"{block} freed by {misuse.freed_by} in {where}: {times}"
    if misuse.kind is Kind.DOUBLE:
        before = f"freed by {misuse.freed_before_by} in {_innermost(misuse.freed_before)}"
        return f"{block}, {before}, freed again by {misuse.freed_by} in {where}: {times}"
    return f"{misuse.freed_by} in {where} of an address that no allocator gave, or that was freed long before: {times}"


def _innermost(frames: tuple[Frame, ...] | None) -> str:
    named = next((frame.function for frame in frames or () if frame.function is not None), None)
    return named if named is not None else "code without a name"


def stacks(misuse: Misuse) -> list[tuple[str, tuple[Frame, ...]]]:
    """Return its stacks, each with a word on what happened there."""
    found = [("allocated", misuse.allocated), ("freed before", misuse.freed_before), ("freed", misuse.freed)]
    return [(title, frames) for title, frames in found if frames is not None]


def document(misuses: Misuses, frame_of: Callable[[Frame], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the list as JSON has it; frame_of gives that of a frame."""

    def frames(stack: tuple[Frame, ...] | None) -> list[dict[str, Any]] | None:
        return [frame_of(frame) for frame in stack] if stack is not None else None

    return [
        {
            "kind": misuse.kind.value,
            "count": misuse.count,
            "pid": misuse.pid,
            "allocated_by": misuse.allocated_by,
            "freed_by": misuse.freed_by,
            "freed_before_by": misuse.freed_before_by,
            "allocated": frames(misuse.allocated),
            "freed": frames(misuse.freed),
            "freed_before": frames(misuse.freed_before),
        }
        for misuse in misuses.found
    ]
