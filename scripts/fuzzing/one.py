"""Fuzzes one target in this process until the time is up or it finds something: python -m fuzzing.one TARGET …."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris


def main(arguments: list[str]) -> None:
    """Take the target's name, then what libFuzzer takes: its options, and the corpus, which is filled if empty."""
    name, *options = arguments
    # Only what is imported within reports what it reaches.
    with atheris.instrument_imports(include=["symbolizer", "tracer.attach.btf", "tracer.columns", "tracer.recording",
                                             "tracer.report", "tracer.store", "fuzzing.targets"]):
        from fuzzing import seeds, targets
    from fuzzing.limits import limit_memory, timed
    from tests.programs.hostile_seeds import build_seeds

    for folder in (Path(option) for option in options if not option.startswith("-")):
        if folder.is_dir() and not any(folder.iterdir()):
            with tempfile.TemporaryDirectory() as work:
                for number, seed in enumerate(seeds.seeds(name, build_seeds(Path(work)))):
                    (folder / f"seed-{number}").write_bytes(seed)
    limit_memory()
    target = timed(targets.TARGETS[name]())
    atheris.Setup([f"fuzz-{name}", *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
