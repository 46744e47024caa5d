"""Measure the search for pointers to live blocks: by stage in an image made here, and whole in a real process."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import scan_process
from benchmarks.entry import run_script
from tracer.judge.pointers import PointerScan
from tracer.judge.reachability import classify

SCRIPTS = Path(__file__).resolve().parents[1]
SEED = 20
BLOCKS = 1_000_000
#: The part of words that are pointers.
POINTERS = 0.1
ROUNDS = 3
#: Words that are added at once.
PIECE = 1 << 23
HEAP, MAPPED = 0x5555_5555_7000, 0x7FFF_0000_0000
#: malloc's own word before a block, and what it rounds to
HEADER, UNIT = 8, 16
U64 = npt.NDArray[np.uint64]
Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class Image:
    """Live blocks, and the memory they are in: pieces of words, each with its address."""

    addresses: U64
    sizes: U64
    pieces: tuple[tuple[int, U64], ...]


def main(arguments: Sequence[str]) -> int:
    """Run the measurement; returns its exit code: 0 done, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="scripts/bench_scan", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--size", type=float, default=1.0, metavar="GB", help="memory to look at (default: 1)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, metavar="N", help=f"live blocks (default: {BLOCKS:,})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH",
                        help="the one to measure")
    options = parser.parse_args(arguments)
    return run_script(lambda: measure(options))


def measure(options: argparse.Namespace) -> int:
    """Measure each layout in rounds, and print medians."""
    figures: dict[str, Seconds] = {}
    for name, make in LAYOUTS.items():
        image = make(np.random.default_rng(SEED), options.blocks, int(options.size * (1 << 30)) // 8)
        rounds = [stages(image) for _ in range(1 if options.quick else ROUNDS)]
        figures[name] = {stage: statistics.median(one[stage] for one in rounds) for stage in rounds[0]}
        print(as_text(name, figures[name], options.size), flush=True)
    real: dict[str, list[float]] = {}
    if os.geteuid() == 0:
        real = scan_process.look(options.leaktrace, int(1024 * options.size), options.blocks)
        print(scan_process.as_text(real, options.size))
    else:
        print("a process of that size is looked at by root only: sudo scripts/bench_scan")
    if options.json:
        made = {"size_gb": options.size, "blocks": options.blocks, "s": figures, "process_s": real}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    return 0


def stages(image: Image) -> Seconds:
    """Return the seconds that each stage takes, and their sum."""
    times = [time.perf_counter()]
    scan = PointerScan(image.addresses, image.sizes)
    times.append(time.perf_counter())
    for start, words in image.pieces:
        scan.add(start, words)
    times.append(time.perf_counter())
    graph = scan.finish()
    times.append(time.perf_counter())
    classify(graph)
    times.append(time.perf_counter())
    names = ("table of blocks", "look at words", "make the graph", "classify")
    seconds = {name: end - begin for name, begin, end in zip(names, times, times[1:], strict=False)}
    return seconds | {"all": times[-1] - times[0]}


def as_text(name: str, seconds: Seconds, size: float) -> str:
    """Return the figures of one layout for a person to read."""
    lines = [f"  {stage:<16}{one:>7.3f} s  {one / size:>7.3f} s/GB" for stage, one in seconds.items()]
    return "\n".join([name, *lines])


def spread(random: np.random.Generator, blocks: int, words: int) -> Image:
    """Blocks of one size that fill the memory: nearly all pointers are from block to block."""
    size = max(UNIT, words * 8 // blocks // UNIT * UNIT) - HEADER
    return _image(random, np.full(blocks, size, np.uint64), words, HEAP)


def dense(random: np.random.Generator, blocks: int, words: int) -> Image:
    """Small blocks, of sizes as programs have them, at the low end of memory: most pointers are in roots."""
    return _image(random, _small(random, blocks), words, HEAP)


def apart(random: np.random.Generator, blocks: int, words: int) -> Image:
    """The same, half of it in a heap and half in mapped memory 42 TB further on."""
    return _image(random, _small(random, blocks), words, HEAP, MAPPED)


def _small(random: np.random.Generator, blocks: int) -> U64:
    return random.choice(np.array([24, 40, 56, 72, 104, 200], np.uint64), blocks)


def _image(random: np.random.Generator, sizes: U64, words: int, *areas: int) -> Image:
    steps = (sizes + np.uint64(HEADER + UNIT - 1)) // np.uint64(UNIT) * np.uint64(UNIT)
    parts = []
    for start, some in zip(areas, np.array_split(steps, len(areas)), strict=True):
        parts.append(np.uint64(start + UNIT) + np.cumsum(some) - some)
    addresses = np.concatenate(parts)
    pieces: list[tuple[int, U64]] = []
    for start in areas:
        for at in range(0, words // len(areas), PIECE):
            count = min(PIECE, words // len(areas) - at)
            piece = random.integers(0, 1 << 40, count, dtype=np.uint64)
            places = random.choice(count, int(count * POINTERS), replace=False, shuffle=False)
            piece[places] = addresses[random.integers(0, len(addresses), len(places))]
            pieces.append((start + 8 * at, piece))
    # A few globals, as roots of what else would all be lost.
    pieces.append((0x40_0000, addresses[random.integers(0, len(addresses), 100)]))
    return Image(addresses, sizes, tuple(pieces))


LAYOUTS: dict[str, Callable[[np.random.Generator, int, int], Image]] = {
    "blocks fill the memory": spread,
    "small blocks, much else": dense,
    "small blocks in two areas": apart,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
