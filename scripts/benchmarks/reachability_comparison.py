"""Compare leaktrace's four kinds of blocks at a program's end with valgrind's, and these with what is stated."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine, output
from benchmarks.child import Failure
from benchmarks.gate_tools import finished
from benchmarks.reachability_readings import KINDS, Held, Kinds, failed, leaktrace, truth, valgrind
from benchmarks.verdict_programs import PROGRAMS, SUFFIXES, build

REACHABLE = PROGRAMS / "reachable"
# What the libraries hold at the end stays, so that both see it; all heuristics are on, as they are by default.
VALGRIND = ("valgrind", "--leak-check=full", "--show-leak-kinds=all", "--run-libc-freeres=no", "--run-cxx-freeres=no")
VALGRIND_OUTPUT = ("--xml=yes", "--xml-file={report}", "{program}")
LEAKTRACE = ("{leaktrace}", "run", "--reachability", "-T", "1000", "--format", "json", "--output", "{report}", "--")


@dataclass(frozen=True, slots=True)
class Row:
    """A program: what it states of its own blocks, and what the two tools say."""

    name: str
    truth: Kinds
    valgrind: Held
    leaktrace: Held

    @property
    def is_stated(self) -> bool:
        """Whether valgrind finds what the program states."""
        return self.valgrind.own == self.truth

    @property
    def agrees(self) -> bool:
        """Whether both tools say the same of the program's own blocks."""
        return not (self.leaktrace.error or self.valgrind.error) and self.leaktrace.own == self.valgrind.own

    @property
    def agrees_in_all(self) -> bool:
        """Whether they say the same of the libraries' blocks too."""
        return self.agrees and self.leaktrace.all == self.valgrind.all


def measure(options: argparse.Namespace) -> int:
    """Compare the programs that the options name, and print it."""
    sources = _sources(options.only)
    path = options.leaktrace.absolute()
    facts = machine.describe(path, "not used")
    rows = []
    with tempfile.TemporaryDirectory(prefix="leaktrace-reachability-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # under sudo leaktrace runs the program as the user
        build(sources, folder)
        for source in sources:
            row = _row(source, folder, path)
            print(f"{row.name}: {'agrees' if row.agrees else _difference(row)}", file=sys.stderr, flush=True)
            rows.append(row)
    print(output.as_text(facts, (), ()))
    print(f"\n{as_text(rows)}")
    if options.json:
        made = {"machine": facts, "programs": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    return 0


def _sources(names: Sequence[str] | None) -> list[Path]:
    sources = sorted(one for one in REACHABLE.iterdir() if one.suffix in SUFFIXES)
    unknown = set(names or ()) - {one.stem for one in sources}
    if unknown:
        raise Failure(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(s.stem for s in sources)}")
    return [one for one in sources if not names or one.stem in names]


def _row(source: Path, folder: Path, path: Path) -> Row:
    program = str(folder / source.stem)
    stated = truth(source.read_text())
    by_valgrind = _asked((*VALGRIND, *VALGRIND_OUTPUT), {"program": program}, folder, valgrind)
    by_leaktrace = _asked((*LEAKTRACE, "{program}"), {"program": program, "leaktrace": str(path)}, folder, leaktrace)
    return Row(source.stem, stated, by_valgrind, by_leaktrace)


def _asked(
    command: Sequence[str], values: dict[str, str], folder: Path, read: Callable[[str, str], Held]
) -> Held:
    report = folder / "report"
    report.unlink(missing_ok=True)
    try:
        _, code, told = finished([word.format(report=report, **values) for word in command], {}, 60.0)
    except Failure as failure:
        return failed(str(failure))
    if not report.exists() or not report.stat().st_size:
        lines = [line for line in told.splitlines() if line.strip()]
        return failed(f"exit code {code}: {lines[-1].strip()[:160] if lines else 'it said nothing'}")
    return read(report.read_text(), values["program"])


def as_text(rows: Sequence[Row]) -> str:
    """Return the table: what valgrind says of each kind of the program's own blocks, and whether leaktrace agrees."""
    lines = [("program", *KINDS, "leaktrace", "with the libraries' blocks"), ("---",) * (len(KINDS) + 3)]
    for row in rows:
        said = "the same" if row.agrees else _difference(row)
        amounts = (_amount(row.valgrind.own, kind) for kind in KINDS)
        lines.append((f"`{row.name}`", *amounts, said, "the same" if row.agrees_in_all else _difference_in_all(row)))
    table = "\n".join(f"| {' | '.join(one.replace('|', '/') for one in line)} |" for line in lines)
    wrong = [row.name for row in rows if not row.is_stated]
    also = f"\nvalgrind contradicts the program's own statement: {', '.join(wrong)}" if wrong else ""
    count = len(rows)
    return (
        f"{table}\n\nthe same four kinds, bytes and blocks: {sum(row.agrees for row in rows)} of {count}; "
        f"with the libraries' blocks: {sum(row.agrees_in_all for row in rows)} of {count}{also}"
    )


def _difference(row: Row) -> str:
    error = row.valgrind.error or row.leaktrace.error
    return f"error: {error}" if error else _unequal(row.leaktrace.own, row.valgrind.own)


def _difference_in_all(row: Row) -> str:
    return "" if row.valgrind.error or row.leaktrace.error else _unequal(row.leaktrace.all, row.valgrind.all)


def _unequal(said: Kinds, right: Kinds) -> str:
    return ", ".join(f"{kind} {_amount(said, kind)}" for kind in KINDS if said[kind] != right[kind])


def _amount(kinds: Kinds, kind: str) -> str:
    size, blocks = kinds.get(kind, (0, 0))
    return f"{size:,} bytes in {blocks:,}" if blocks else "none"
