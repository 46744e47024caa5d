"""Looks at a machine: asks for every need, and says whether a trace is possible at all."""

from __future__ import annotations

from collections.abc import Sequence

from tracer.attach.doctor_answer import Answer, Host, Status
from tracer.attach.doctor_needs import NEEDS, Need
from tracer.settings import AttachWay

#: Kinds of the kernel's memory, each with the need that tells of it.
MEMORY = ("slab", "pages", "percpu", "vmalloc")
#: What all of them need.
_KERNEL_NEEDS = ("capabilities", "unprivileged_bpf_disabled", "btf", "raw_tracepoints", "lockdown", "ring_buffer",
                 "mapped_arrays", "batches", "packages", "bcc")

Found = Sequence[tuple[Need, Answer]]


def look_around(host: Host, needs: Sequence[Need] = NEEDS) -> Found:
    """Return the answer to each need, in their order. Changes nothing that outlives this process."""
    return tuple((need, _look(need, host)) for need in needs)


def _look(need: Need, host: Host) -> Answer:
    try:
        return need.look(host)
    except (OSError, ImportError) as problem:
        # One look that goes wrong must not hide the others. An import fails where a row says that packages are absent.
        return Answer(Status.UNKNOWN, f"could not be looked at ({problem})")


def lacking(found: Found) -> tuple[str, ...]:
    """Return the ids of what is missing and without which no program can be traced; nothing if there is no such."""
    # What could not be tried is no reason by itself: why it could not is a row of its own.
    met = {need.essential for need, answer in found if answer.status is not Status.MISSING}
    return tuple(need.id for need, _ in found if need.essential and need.essential not in met)


def user_way(found: Found) -> AttachWay | None:
    """Return how user space would be traced, None where it cannot be."""
    statuses = _statuses(found)
    ways = (way for way in AttachWay if statuses.get(f"uprobe_{way}") is Status.OK)
    return None if lacking(found) else next(ways, None)


def lacking_for_kernel(found: Found) -> tuple[str, ...]:
    """Return the ids of what is missing and without which none of the kernel's memory can be traced.

    What could not be tried is named only where nothing is missing for sure: that is why it could not, mostly.
    """
    statuses = {id_: status for id_, status in _statuses(found).items() if id_ in _KERNEL_NEEDS}
    missing = tuple(id_ for id_, status in statuses.items() if status is Status.MISSING)
    return missing or tuple(id_ for id_, status in statuses.items() if status is Status.UNKNOWN)


def kernel_memory(found: Found) -> tuple[str, ...]:
    """Return the kinds of the kernel's memory that could be traced."""
    if lacking_for_kernel(found):
        return ()
    there = {id_ for id_, status in _statuses(found).items() if status is Status.OK}
    # Its functions have no event of their own before Linux 6.2, but ends that a program can sit at.
    return tuple(kind for kind in MEMORY if kind in there or (kind == "vmalloc" and "fentry" in there))


def _statuses(found: Found) -> dict[str, Status]:
    return {need.id: answer.status for need, answer in found}
