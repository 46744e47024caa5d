"""A thread of ours leaves the processor of another one, and may go anywhere afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tracer.attach.processors import step_aside

BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint('there', flush=True)\nwhile True: pass"


def my_processor() -> int:
    with open("/proc/thread-self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[36])


@pytest.mark.parametrize("which", [0, 1])
def test_it_leaves(which: int) -> None:
    """From wherever it was, it is elsewhere than a thread that works, and is bound to nothing."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("there is one processor only")
    with subprocess.Popen([sys.executable, "-c", BUSY, str(allowed[which])], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout and busy.stdout.readline() == b"there\n"
            os.sched_setaffinity(0, {allowed[which]})
            os.sched_setaffinity(0, allowed)
            step_aside(busy.pid)
            assert my_processor() != allowed[which]
            assert sorted(os.sched_getaffinity(0)) == allowed
        finally:
            busy.kill()


def test_one_that_is_gone() -> None:
    """Of a thread that has ended nobody needs to leave anything."""
    allowed = os.sched_getaffinity(0)
    step_aside((1 << 22) + 1)
    assert os.sched_getaffinity(0) == allowed
