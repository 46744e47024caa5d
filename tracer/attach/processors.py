"""Which processor this thread of ours runs on, beside the threads that it lets go."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def step_aside(tid: int) -> None:
    """Leave the processor of a thread that has just been let go, if there is another one.

    Whoever holds a thread works by turns with it, on one processor. But a program that begins soon waits in a probe for
    an answer, and while it does nobody else gets any time there. Nothing keeps this thread away from there later.
    """
    with suppress(OSError, ValueError, IndexError):
        # The 39th field (proc_pid_stat(5)); the second one may hold spaces.
        its_own = int(Path(f"/proc/{tid}/stat").read_bytes().rpartition(b")")[2].split()[36])
        allowed = os.sched_getaffinity(0)
        if others := allowed - {its_own}:
            os.sched_setaffinity(0, others)
            os.sched_setaffinity(0, allowed)
