"""What the kernel's own leak detector found: blocks to which nothing points (/sys/kernel/debug/kmemleak).

Source: Documentation/dev-tools/kmemleak.rst; the lines are those of print_unreferenced() in mm/kmemleak.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import CannotTrace

KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
#: A scan passes over blocks that changed since the last one, for which a new one counts (kmemleak_scan()): so two.
SCANS = 2

_HEAD = re.compile(r"^unreferenced object 0x(?P<address>[0-9a-f]+) \(size (?P<size>\d+)\):$")
_TASK = re.compile(r'^  comm "(?P<comm>.*)", pid (?P<pid>-?\d+), jiffies (?P<jiffies>\d+)(?: \(age [\d.]+s\))?$')
#: Only blocks with a part for each processor say whose content is shown.
_PERCPU = re.compile(r"^  hex dump \(first \d+ bytes on cpu \d+\):$")
_STACK = re.compile(r"^  backtrace(?: \(crc [0-9a-f]+\))?:$")
#: `[<address>] function+0x1/0x2 [module]`; newer kernels leave out the address. One without a name is an address.
_FRAME = re.compile(
    r"^ {4}(?:\[<[0-9a-f]+>\] )?(?:(?P<function>[^\s+\[\]]+)\+0x(?P<offset>[0-9a-f]+)/0x[0-9a-f]+"
    r"(?: \[(?P<module>[^\s\]]+)[^\]]*\])?|(?P<nameless>0x[0-9a-f]+))\s*$")


@dataclass(frozen=True, slots=True)
class LeakFrame:
    """One frame of an allocation: function None where the kernel has no name, module None for the kernel itself."""

    function: str | None
    offset: int
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """A block to which nothing points. size in bytes; frames from the innermost on, those of the allocator included.

    comm, pid: the task that allocated it; jiffies: when, in kernel ticks. percpu: each processor has such a block.
    """

    address: int
    size: int
    comm: str
    pid: int
    jiffies: int
    frames: tuple[LeakFrame, ...]
    percpu: bool = False

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the frames' functions, "" where there is none."""
        return tuple(frame.function or "" for frame in self.frames)


def scan(path: Path) -> None:
    """Have the kernel scan its memory, which takes seconds. Raises OSError."""
    # Without buffer, so that the kernel's answer is that to the write; without O_CREAT, which debugfs calls forbidden.
    with path.open("r+b", buffering=0) as file:
        file.write(b"scan")


def read_unreferenced(path: Path = KMEMLEAK, scans: int = SCANS,
                      scan: Callable[[Path], None] = scan) -> tuple[Unreferenced, ...]:
    """Scan the kernel's memory and return the blocks to which nothing points. Blocks younger than 5 s are not told.

    Raises CannotTrace where the detector is absent or off, or may not be used.
    """
    try:
        for _ in range(scans):
            scan(path)
        return parse_kmemleak(path.read_bytes())
    except OSError as problem:
        raise CannotTrace(*_why_not(path, problem)) from None


def parse_kmemleak(data: bytes) -> tuple[Unreferenced, ...]:
    """Return the blocks in the bytes of the detector's file, in their order; other lines are passed over."""
    found: list[Unreferenced] = []
    head = task = None
    percpu = False
    frames: list[LeakFrame] | None = None
    for line in [*data.decode(errors="replace").split("\n"), ""]:
        if frames is not None and (match := _FRAME.match(line)) is not None:
            frames.append(LeakFrame(match["function"], int(match["offset"] or "0", 16), match["module"]))
            continue
        # Anything else ends a block: the content, which could look like one, comes before the frames.
        if head is not None and frames is not None:
            found.append(_block(head, task, frames, percpu))
            head = task = frames = None
        if (match := _HEAD.match(line)) is not None:
            head, task, percpu = match, None, False
        elif head is not None and task is None and (match := _TASK.match(line)) is not None:
            task = match
        elif head is not None and _STACK.match(line):
            frames = []
        elif _PERCPU.match(line):
            percpu = True
    return tuple(found)


def new_since(before: tuple[Unreferenced, ...], after: tuple[Unreferenced, ...]) -> tuple[Unreferenced, ...]:
    """Return the blocks of a later reading that an earlier one did not have."""
    known = {(block.address, block.jiffies) for block in before}
    return tuple(block for block in after if (block.address, block.jiffies) not in known)


def _block(head: re.Match[str], task: re.Match[str] | None, frames: list[LeakFrame], percpu: bool) -> Unreferenced:
    comm, pid, jiffies = (task["comm"], int(task["pid"]), int(task["jiffies"])) if task is not None else ("", 0, 0)
    return Unreferenced(int(head["address"], 16), int(head["size"]), comm, pid, jiffies, tuple(frames), percpu)


def _why_not(path: Path, problem: OSError) -> tuple[str, str]:
    if problem.errno in (errno.ENOENT, errno.ENOTDIR):
        return (f"The kernel's leak detector is not there: {path} does not exist.",
                "Mount debugfs (mount -t debugfs debugfs /sys/kernel/debug); the kernel needs CONFIG_DEBUG_KMEMLEAK.")
    if problem.errno == errno.EACCES:
        return f"This user may not use the kernel's leak detector ({path}).", "Run leaktrace with sudo."
    # What kmemleak_write() answers where it is off, by the command line or for want of memory; EBUSY before 3.15.
    if problem.errno in (errno.EPERM, errno.EBUSY):
        return "The kernel's leak detector is switched off.", "Start the kernel with kmemleak=on."
    return f"The kernel's leak detector cannot be asked ({path}: {problem.strerror}).", "Look for kmemleak in dmesg."
