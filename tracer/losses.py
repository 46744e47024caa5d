"""What each way to lose an event means for the figures, in the order of bpf/losses.h."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """One counter of the losses map: its name in reports, what it says, and whether bytes are missing because of it."""

    name: str
    enumerator: str
    meaning: str
    remedy: str
    hides_bytes: bool = True


LOSSES = (
    Loss("outstanding_full", "LOSS_OUTSTANDING_FULL",
         "allocations ({bytes} bytes) are missing from the report: the table of outstanding blocks was full",
         "raise --max-outstanding, or sample with --sample-bytes"),
    Loss("sites_full", "LOSS_SITES_FULL",
         "allocations ({bytes} bytes) are counted, but not at their call site: the table of stacks was full",
         "raise --max-stacks, or lower --depth", hides_bytes=False),
    Loss("in_flight", "LOSS_IN_FLIGHT",
         "calls of allocator functions are missing from the report: their beginning was not understood",
         "either over 8192 threads allocate at once, or the program ran another one (exec) on a kernel before 5.15"),
    Loss("missed_free", "LOSS_MISSED_FREE",
         "blocks ({bytes} bytes) were given out again though their free was not seen; they are counted as freed then",
         "name the function that frees them with --free-fn"),
    Loss("stack_no_copy", "LOSS_STACK_NO_COPY",
         "stacks end early: no copy of the stack, or too short a one, while unwinding rules were still being learnt",
         "trace for longer; later allocations of the same path have complete stacks", hides_bytes=False),
    Loss("stack_unreadable", "LOSS_STACK_UNREADABLE",
         "stacks end early: the memory of a frame could not be read",
         "the innermost frames are right; use --unwind fp if the program keeps frame pointers", hides_bytes=False),
    Loss("stack_unsupported", "LOSS_STACK_UNSUPPORTED",
         "stacks end early: the unwinding rule of a function is one that leaktrace does not follow",
         "the innermost frames are right; -v names the function", hides_bytes=False),
    Loss("stack_depth", "LOSS_STACK_DEPTH",
         "stacks are deeper than --depth; their outermost frames are cut, and stacks that differ there only are one",
         "raise --depth (up to 127)", hides_bytes=False),
    Loss("event", "LOSS_EVENT",
         "events (an exec, a loaded library, a --trace line) were lost: the ring buffer was full",
         "allocators loaded meanwhile are found at the next report", hides_bytes=False),
    Loss("result_unreadable", "LOSS_RESULT_UNREADABLE",
         "allocations ({bytes} bytes) are missing from the report: the pointer their function stored could not be read",
         "look for a program that passes posix_memalign an address it may not write"),
    Loss("late", "LOSS_LATE",
         "programs of the selection ran for a moment before they were traced: what they allocated then is missing",
         "start them after leaktrace with `leaktrace run`, or give leaktrace a processor of its own"),
    Loss("misuses_full", "LOSS_MISUSES_FULL",
         "misused frees are missing from the report: the table of their stacks was full",
         "mend those that are named, and trace again", hides_bytes=False),
    Loss("nested", "LOSS_NESTED",
         "allocations and frees were not counted: interrupts came while others were being counted, deeper than is kept",
         "figures of sites that work in interrupts may be off by so many; trace fewer sources at once"),
    Loss("bulk", "LOSS_BULK",
         "times more objects were freed together than are looked at: the rest counts as outstanding until it is given "
         "out again", "tell such sites by their growth, which ends"),
    Loss("stack_corrected", "LOSS_STACK_CORRECTED",
         "stacks, of one in 1021 that are compared, were not those that the kernel finds; each was corrected",
         "nothing: it says how far the others can be trusted", hides_bytes=False),
)


def loss_index(name: str) -> int:
    """Return the place of a loss in the losses map."""
    return next(index for index, loss in enumerate(LOSSES) if loss.name == name)
