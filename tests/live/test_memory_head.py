"""Where the memory of real processes went, against what glibc itself and the programs say."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.live.conftest import RunningProgram
from tracer.attach.glibc_free import GlibcHeap, length, read_glibc_heap
from tracer.attach.memory_use import Kind, read_use
from tracer.attach.target import find_process
from tracer.judge.reconcile import Held, chunk_bytes
from tracer.memory_watch import MemoryWatch
from tracer.report.memory_head import conclusion, lines
from tracer.report.memory_model import MemoryHead

Build = Callable[..., Path]
Run = Callable[..., RunningProgram]
MB = 1 << 20
STEPS = 8


def read_heap(pid: int) -> GlibcHeap:
    """Read what glibc holds, with time enough to follow every list."""
    file = os.open(f"/proc/{pid}/mem", os.O_RDONLY)

    def read(address: int, size: int) -> bytes:
        try:
            return os.pread(file, size, address)
        except OSError:
            return b""

    try:
        use = read_use(Path(f"/proc/{pid}"))
        found = read_glibc_heap(read, use.mappings, use.resident(Kind.ANONYMOUS), use.of(Kind.STACK), clock=lambda: 0.0)
    finally:
        os.close(file)
    assert found is not None
    return found


def held(truth: dict[str, int]) -> Held:
    return Held(truth["bytes"], truth["count"], chunk_bytes(np.array([truth["bytes"]]), np.array([truth["count"]])))


def observe(program: RunningProgram, steps: int) -> MemoryHead:
    """Let a program do its steps, one a second by the watch's own clock, and return what is known after the last."""
    seconds = itertools.count(step=1000)
    # A clock that stands still within a report: reading then costs nothing, so that it is done every time.
    now = 0.0
    watch = MemoryWatch(find_process(program.pid), clock=lambda: now)
    head = None
    for _ in range(steps):
        now = float(next(seconds)) / 1000
        head = watch.observe(held(program.work()[0]))
        assert head is not None
        assert sum(part.bytes for part in head.parts) == head.rss
    assert head is not None
    return head


def size(head: MemoryHead, name: str) -> int:
    return sum(part.bytes for part in head.parts if part.name == name)


def test_glibcs_books_are_read_from_outside(build: Build, run_program: Run) -> None:
    """What the arenas hold, what of it is free, and large blocks, are what malloc_info() says: one arena, then four."""
    program = run_program(build("memory_heap.c", "-pthread"))
    for arenas in (1, 4, 4):
        truth, found = program.work()[0], read_heap(program.pid)
        assert found.complete
        assert (found.arenas, found.system_bytes, length(found.mapped)) == (arenas, truth["arena"], truth["mapped"])
        free = length(found.free) + length(found.tops)
        # What malloc_info() prints into is allocated meanwhile.
        assert free == pytest.approx(truth["free"], rel=0.001)
        # Each thread has freed hundreds of blocks, of which its cache keeps seven a size.
        assert len(found.cached) >= 300 * arenas


def test_a_static_programs_books_are_found(build: Build, run_program: Run) -> None:
    """A program with glibc inside has its main arena in its own data."""
    program = run_program(build("memory_heap.c", "-static", "-pthread", name="static_heap"))
    truth, found = program.work()[0], read_heap(program.pid)
    assert (found.system_bytes, found.complete) == (truth["arena"], True)
    assert length(found.free) + length(found.tops) == pytest.approx(truth["free"], rel=0.001)


def test_growth_by_blocks_is_told(build: Build, run_program: Run) -> None:
    """A program that keeps ever more blocks grows by what is outstanding, at the rate it keeps them."""
    head = observe(run_program(build("memory_parts.c", "-pthread"), "leak"), STEPS)
    assert (conclusion(head) or "").startswith("Resident memory grows by blocks that are held: ")
    assert head.cause_amount == pytest.approx(2_000 * 1_008, rel=0.05)
    assert size(head, "outstanding") == pytest.approx(head.outstanding_bytes, rel=0.01)


def test_growth_by_fragmentation_is_not_called_a_leak(build: Build, run_program: Run) -> None:
    """A heap that grows by gaps between small blocks is told as fragmentation, and its gaps are counted."""
    head = observe(run_program(build("memory_parts.c", "-pthread"), "fragment"), STEPS)
    assert (conclusion(head) or "").startswith("Resident memory grows by fragmentation: free memory between blocks")
    gaps = sum(300 * (16_000 + 200 * step - 32) for step in range(STEPS))
    assert size(head, "free") + size(head, "before") == pytest.approx(gaps, rel=0.03)


def test_every_kind_of_memory_shows_in_its_part(build: Build, run_program: Run, tmp_path: Path) -> None:
    """Stacks, a mapped file, shared memory, anonymous mappings, globals and blocks each appear where they belong."""
    file = tmp_path / "data"
    file.write_bytes(bytes(3 * MB))
    head = observe(run_program(build("memory_parts.c", "-pthread"), "parts", str(file)), 1)
    for name, least, more in (("stacks", 4 * MB, 200 << 10), ("files", 3 * MB, 2 * MB), ("shared", 5 * MB, 64 << 10),
                              ("anonymous", 7 * MB, 200 << 10), ("data", 2 * MB, 1 * MB),
                              ("outstanding", 4_000_000, 0)):
        assert least * 0.99 <= size(head, name) <= least + more, (name, lines(head))
    assert size(head, "overhead") == pytest.approx(4_000 * 8, rel=0.05)
    assert size(head, "before") < 64 << 10
    assert len(lines(head)) <= 9


def test_a_process_that_is_gone_has_no_head(build: Build, run_program: Run) -> None:
    """A process that ends between two reports makes its head nothing, not an error."""
    program = run_program(build("memory_parts.c", "-pthread"), "leak")
    watch = MemoryWatch(find_process(program.pid))
    program.process.kill()
    program.process.wait()
    assert watch.observe(Held(0, 0, 0)) is None


def test_a_limit_shows(build: Build, run_program: Run) -> None:
    """A process in a group with a limit has it in its head, with the usage and the time that is left."""
    folder = Path("/sys/fs/cgroup/memory/leaktrace-memory-head")
    if not folder.parent.is_dir():
        pytest.skip("there is no hierarchy of version 1 for memory")
    program = run_program(build("memory_parts.c", "-pthread"), "leak")
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(512 * MB))
        (folder / "cgroup.procs").write_text(str(program.pid))
        head = observe(program, STEPS)
        assert head.limit is not None and (head.limit.limit, head.limit.path) == (512 * MB, "/leaktrace-memory-head")
        assert head.limit.reached_in_s == pytest.approx((512 * MB - head.limit.usage) / 2_016_000, rel=0.1)
        assert "reaches its limit in" in lines(head)[-1]
    finally:
        program.process.kill()
        program.process.wait()
        subprocess.run(["rmdir", str(folder)], check=False)
