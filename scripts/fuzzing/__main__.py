"""Fuzz the symbolizer's parsers; what is found is kept, with how to repeat it. Corpora grow from run to run."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzzing.limits import LONGEST_INPUT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "fuzz"
SECONDS = 60
#: Wall clock for one input; processor time is watched by limits.py.
HANG_SECONDS = 60
NAMES = (
    "elf", "unwind", "eh_frame", "cfa_program", "debugdata", "debug_links", "plt", "perf_map", "kallsyms", "units",
    "skips", "unit_lines", "line_table", "memory_image", "names", "maps", "btf", "recording", "whole",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Fuzz the targets one after the other; returns 0 nothing found, 1 something, 2 wrong usage, 3 cannot fuzz."""
    options = _parser().parse_args(arguments)
    wrong = set(options.targets) - set(NAMES)
    if wrong or (options.repeat is not None and len(options.targets) != 1):
        print(f"scripts/fuzz: the targets are {', '.join(NAMES)}, and --repeat needs one of them.", file=sys.stderr)
        return 2
    if importlib.util.find_spec("atheris") is None:
        print("scripts/fuzz: there is no atheris here.\nInstall it: pip install atheris", file=sys.stderr)
        return 3
    if options.repeat is not None:
        return 1 if _run(options.targets, [str(options.repeat)]) else 0
    found = [name for name in options.targets or NAMES if not _fuzz(name, options.seconds, options.build)]
    print(f"scripts/fuzz: {len(found)} of {len(options.targets or NAMES)} targets found something"
          + (f": {', '.join(found)}" if found else ""))
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(NAMES)} (default: each)")
    parser.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help="for each target (%(default)s)")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="only run the one target given with this input")
    parser.add_argument("--build", type=Path, default=FOLDER, metavar="FOLDER", help="where all is kept (%(default)s)")
    return parser


def _fuzz(name: str, seconds: int, build: Path) -> bool:
    """Fuzz one target; return whether nothing was found."""
    corpus, crashes = build / "corpus" / name, build / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    code = _run([name], [
        f"-max_total_time={seconds}", f"-timeout={HANG_SECONDS}", f"-max_len={LONGEST_INPUT}", "-rss_limit_mb=3072",
        f"-artifact_prefix={crashes}/{name}-", "-print_final_stats=1", str(corpus)])
    for file in sorted(set(crashes.iterdir()) - before):
        print(f"scripts/fuzz: {name} found something; repeat it with", flush=True)
        print(f"  scripts/fuzz {name} --repeat {file}", flush=True)
    return code == 0


def _run(targets: Sequence[str], options: Sequence[str]) -> int:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    command = [sys.executable, "-m", "fuzzing.one", *targets, *options]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
