"""A look at the memory of a real process: how long it stands still, and how long all of it takes."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.child import Failure

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "programs" / "bench_pointers.c"
#: Looks that are counted. The one before them also finds the memory for the copy, which depends on the machine's state.
LOOKS = 5


def look(leaktrace: Path, megabytes: int, blocks: int) -> dict[str, list[float]]:
    """Return the seconds of each look at a process of that size, the first one included: "took" and "stood still".

    Raises Failure where it cannot be traced or looked at.
    """
    with tempfile.TemporaryDirectory(prefix="leaktrace-scan-") as folder:
        program = Path(folder) / "bench_pointers"
        subprocess.run(["gcc", "-O2", "-o", program, PROGRAM], check=True)
        words = [str(leaktrace), "-c", f"{program} {megabytes} {blocks}", "--reachability", "--format", "json",
                 "--max-image", f"{2 * megabytes}m", "--max-outstanding", str(2 * blocks), "3600"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL) as process:
            assert process.stdin and process.stdout
            try:
                while (line := process.stdout.readline()) and "ready" not in line:
                    pass
                if not line:
                    raise Failure("leaktrace ended before the program was ready")
                return _looks(process)
            finally:
                process.stdin.close()
                process.stdout.read()


def _looks(process: subprocess.Popen[str]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"took": [], "stood still": []}
    for _ in range(LOOKS + 1):
        process.send_signal(signal.SIGUSR1)
        assert process.stdout
        (scan,) = json.loads(process.stdout.readline())["scans"]
        if scan["failed"]:
            raise Failure(f"the memory was not looked at: {scan['failed']}")
        seconds["took"].append(scan["took_s"])
        seconds["stood still"].append(scan["stopped_s"])
    return seconds


def as_text(seconds: Mapping[str, list[float]], size: float) -> str:
    """Return the figures for a person to read; size in GB."""
    lines = ["a process of that size, under leaktrace"]
    for name, each in seconds.items():
        middle = sorted(each[1:])[len(each[1:]) // 2]
        lines.append(f"  {name:<16}{middle:>7.3f} s  {middle / size:>7.3f} s/GB  (the first time {each[0]:.3f} s)")
    return "\n".join(lines)
