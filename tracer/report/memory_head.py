"""The head of a report: where the memory of a process went, as a few lines or as JSON's own types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tracer.report import wording
from tracer.report.memory_model import MemoryHead, MemoryLimit, MemoryPart

#: Parts that have a line of their own; the smaller ones share one.
LINES = 4
#: Parts that are named in the line of all small ones.
NAMED = 2
#: A part below this share of resident memory is not worth a line of its own.
_WORTH = 0.02
#: Of outstanding bytes, what is not resident is said from this share on.
_ABSENT = 0.05
_LABELS = {
    "overhead": "headers and rounding of these blocks",
    "free": "free inside the allocator, between blocks in use",
    "top": "free at the end of the heap",
    "stacks": "thread stacks",
    "data": "global variables",
    "anonymous": "other anonymous mappings, which no traced block covers",
    "files": "files: programs, libraries and mapped data",
    "shared": "shared memory",
    "remainder": "the kernel's own pages and what is not known",
}
#: In a list, and in a sentence.
_SHORT = {
    "outstanding": "outstanding blocks",
    "before": "memory in use that was not traced",
    "overhead": "headers and rounding",
    "free": "free between blocks",
    "top": "free at the heap's end",
    "allocator": "the allocator's own and free memory",
    "stacks": "stacks",
    "data": "global variables",
    "anonymous": "other anonymous mappings",
    "files": "files",
    "shared": "shared memory",
    "remainder": "other",
}
#: What grows inside the allocator, in a sentence.
_INSIDE = {
    "free": "fragmentation: free memory between blocks",
    "top": "memory that the allocator keeps at the heap's end",
    "allocator": "the allocator's own and free memory, or other anonymous mappings",
    "before": "what the allocator holds beyond traced blocks, most likely fragmentation",
}
_EVENTS = {"oom_kill": "killed for want of memory {}×", "oom": "out of memory {}×", "max": "at its limit {}×",
           "high": "throttled {}×"}


def lines(head: MemoryHead) -> list[str]:
    """Return the head as lines of text without their ends, at most nine."""
    return [_title(head), *_parts(head), *_conclusion(head), *limit_lines(head.limit)]


def document(head: MemoryHead) -> dict[str, Any]:
    """Return the head as JSON's own types. Keys are only ever added."""
    made = asdict(head)
    made["parts"] = [asdict(part) for part in head.parts]
    made["conclusion"] = conclusion(head)
    if head.limit is not None:
        made["limit"]["events"] = dict(head.limit.events)
    return made


def conclusion(head: MemoryHead) -> str | None:
    """Return in one sentence what is to be said of the memory as a whole, None if nothing is."""
    amount = wording.size(head.cause_amount)
    if head.cause == "grows by blocks":
        return f"Resident memory grows by blocks that are held: {amount}/s."
    if head.cause == "grows by free memory":
        what = _INSIDE.get(head.cause_part or "", _INSIDE["before"])
        return f"Resident memory grows by {what}: {amount}/s. Blocks that are held do not grow with it."
    if head.cause == "grows elsewhere":
        return f"Resident memory grows, most of it by {_SHORT.get(head.cause_part or '', 'other')}: {amount}/s."
    if head.cause == "fragmented":
        return (f"The heap is fragmented: {amount} of it are free between blocks that are in use, "
                "so the system does not get them back.")
    return None


def duration(seconds: float) -> str:
    """Return a time as its two largest units: "3 h 20 min"."""
    left = round(seconds)
    days, hours, minutes = left // 86400, left // 3600 % 24, left // 60 % 60
    if days > 99:
        return f"{days:,} days"
    for (large, unit), (small, lesser) in (((days, "d"), (hours, "h")), ((hours, "h"), (minutes, "min")),
                                           ((minutes, "min"), (left % 60, "s"))):
        if large:
            return f"{large} {unit} {small} {lesser}" if small else f"{large} {unit}"
    return f"{left} s"


def _title(head: MemoryHead) -> str:
    growth = f", {_rate(head.growth_bytes_per_s)}" if head.growth_bytes_per_s else ""
    remarks = [f"PSS {wording.size(head.pss)}"] if head.pss != head.rss else []
    if head.swap:
        remarks.append(f"{wording.size(head.swap)} more in swap")
    if head.hugetlb:
        remarks.append(f"{wording.size(head.hugetlb)} more in reserved huge pages")
    if head.age_s >= 1:
        remarks.append(f"as of {duration(head.age_s)} ago")
    more = f" ({', '.join(remarks)})" if remarks else ""
    return (f"Memory of {head.comm} (pid {head.pid}): {wording.size(head.rss)} resident{growth}, "
            f"{wording.size(head.anonymous)} of it anonymous{more}")


def _parts(head: MemoryHead) -> Iterator[str]:
    """Give a line for what is outstanding, then for the largest parts, then one for all the small ones."""
    outstanding = next((part for part in head.parts if part.name == "outstanding"), MemoryPart("outstanding", 0))
    others = sorted((part for part in head.parts if part.name != "outstanding" and part.bytes > 0),
                    key=lambda part: -part.bytes)
    large = [part for part in others if part.bytes >= _WORTH * head.rss or part.growth_bytes_per_s][:LINES]
    small = [part for part in others if part not in large]
    yield _line(outstanding, _outstanding(head))
    for part in large:
        yield _line(part, label(head, part.name))
    if small:
        named = ", ".join(f"{_SHORT.get(part.name, part.name)} {wording.size(part.bytes)}" for part in small[:NAMED])
        if len(small) > NAMED:
            named += " and others"
        yield _line(MemoryPart("", sum(part.bytes for part in small)), named if len(small) > 1
                    else label(head, small[0].name))


def _line(part: MemoryPart, label: str) -> str:
    growth = f", {_rate(part.growth_bytes_per_s)}" if part.growth_bytes_per_s else ""
    return f"{wording.size(part.bytes):>11}  {label}{growth}"


def _outstanding(head: MemoryHead) -> str:
    text = f"outstanding in {wording.blocks(head.outstanding_count)}"
    if head.absent > _ABSENT * head.outstanding_bytes:
        text += f" of {wording.size(head.outstanding_bytes)}, the rest of which is not in memory"
    return text


def label(head: MemoryHead, name: str) -> str:
    """Return what a part of resident memory is, in words."""
    if name == "before":
        if head.since_start:
            return "in use or free inside the allocator, not counted as either"
        return "allocated before the trace, and still in use" + ("" if head.complete else ", or free and not counted")
    if name == "allocator":
        return f"{head.allocator}'s own and free memory, blocks from before the trace, other anonymous mappings"
    return ("at least, " if name == "free" and not head.complete else "") + _LABELS.get(name, name)


def _conclusion(head: MemoryHead) -> Iterator[str]:
    if sentence := conclusion(head):
        yield f"  {sentence}"


def limit_lines(limit: MemoryLimit | None) -> Iterator[str]:
    """Give the line of the control group, where there is a limit or something has happened in it."""
    if limit is None or (limit.limit is None and not limit.events and not limit.stall_percent):
        return
    parts = [f"{wording.size(limit.usage)} used"]
    if limit.limit is not None:
        percent = f" ({limit.usage / limit.limit:.0%})" if limit.limit else ""
        parts = [f"{wording.size(limit.usage)} of {wording.size(limit.limit)} used{percent}"]
    if limit.reached_in_s is not None and limit.growth_bytes_per_s is not None:
        parts.append(f"reaches its limit in {duration(limit.reached_in_s)} at {_rate(limit.growth_bytes_per_s)}")
    parts += [_EVENTS.get(name, f"{name} {{}}×").format(f"{count:,}") for name, count in limit.events]
    if limit.stall_percent:
        parts.append(f"waited for memory {limit.stall_percent:.1f}% of the last 10 s")
    yield f"  Control group {limit.path}: {'; '.join(parts)}"


def _rate(bytes_per_s: float) -> str:
    return f"{'+' if bytes_per_s > 0 else ''}{wording.size(bytes_per_s)}/s"
