"""Measure recordings: how large they are, what writing them takes, and what reading and reporting them takes."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import machine, output
from benchmarks.entry import run_script
from benchmarks.figures import Figure
from benchmarks.record_load import PROFILES, Load, Profile
from tracer.recorder import Recorder

SITES, SECONDS, INTERVAL_S = 10_000, 3600, 5.0
#: MB of an hour; seconds of the processor and MB of memory for a report of it; % of the processor while recording.
LIMIT_MB, LIMIT_REPORT_S, LIMIT_MEMORY_MB, LIMIT_SHARE = 20.0, 3.0, 500.0, 1.0
_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Run the bench; returns 0 done, 1 a figure is over its limit, 3 cannot measure here."""
    parser = argparse.ArgumentParser(prog="scripts/bench_record", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, and only to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the recordings there")
    options = parser.parse_args(arguments)
    return run_script(lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Measure every profile, and print it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = [figure for profile in PROFILES
                   for figure in measured(profile, folder, SECONDS // (10 if options.quick else 1))]
    facts = machine.describe(_ROOT / "scripts" / "leaktrace", "")
    print(output.as_text(facts, (), figures))
    if options.json:
        options.json.write_text(json.dumps(output.as_json(facts, (), figures), indent=1) + "\n")
    return 0 if all(figure.reached for figure in figures) else 1


def measured(profile: Profile, folder: Path, seconds: int) -> list[Figure]:
    """Record one profile for so long, and report it; return what is promised of it."""
    path = folder / f"{profile.name.replace(' ', '_')}.leaktrace"
    size, took = record(profile, path, seconds)
    report_s, memory_mb = reported(path)
    whole = seconds / SECONDS
    name = profile.name
    return [
        Figure(f"{name}: one hour of {SITES:,} sites", size / 1e6 / whole, "MB", LIMIT_MB if profile.is_real else None),
        Figure(f"{name}: writing the first report", took[0], "s"),
        Figure(f"{name}: writing a report", float(np.median(took[1:-1])), "s"),
        Figure(f"{name}: writing the last report", took[-1], "s"),
        Figure(f"{name}: of the processor", 100 * sum(took) / seconds, "%", LIMIT_SHARE),
        Figure(f"{name}: leaktrace report, of the processor", report_s, "s", LIMIT_REPORT_S),
        Figure(f"{name}: memory for it", memory_mb, "MB", LIMIT_MEMORY_MB),
    ]


def record(profile: Profile, path: Path, seconds: int) -> tuple[int, list[float]]:
    """Record; return the bytes of the file and the processor's seconds for each report."""
    took = []
    recorder = Recorder(str(path), {}, None)
    for report in Load(profile, SITES, INTERVAL_S).reports(int(seconds / INTERVAL_S)):
        begun = time.process_time()
        recorder.write(report)
        took.append(time.process_time() - begun)
    recorder.close()
    return path.stat().st_size, took


def reported(path: Path) -> tuple[float, float]:
    """Return seconds of the processor and MB that `leaktrace report` takes for the last report as text."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "tracer.cli", "report", str(path)], cwd=_ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The memory is that of the largest child so far: a smaller one does not show.
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
