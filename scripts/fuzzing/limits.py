"""The bounds that each input must keep: processor time, and memory of the whole process."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

#: Seconds of processor time for one input of up to LONGEST_INPUT bytes; others use this machine, so no wall clock.
#: Counting what is reached makes Python some five times slower, which is in it.
SECONDS = 1.0
LONGEST_INPUT = 1 << 16
#: Bytes of memory, shared libraries and files not counted.
MEMORY = 1 << 30


class TooSlow(AssertionError):
    """An input took too much processor time."""


def timed(target: Callable[[bytes], None], seconds: float = SECONDS) -> Callable[[bytes], None]:
    """Return the target, which raises TooSlow where an input takes longer twice in a row."""

    def run(data: bytes) -> None:
        taken = 0.0
        # Imports, and what a garbage collection finds to do, count only once.
        for _ in range(2):
            begun = time.process_time()
            target(data)
            taken = time.process_time() - begun
            if taken <= seconds:
                return
        raise TooSlow(f"{len(data)} bytes took {taken:.1f} s")

    return run


def limit_memory(most: int = MEMORY) -> None:
    """Let this process have no more; what asks for it gets MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
