"""What the kernel's own books say of the module's memory, beside what the trace says.

Only kernels made for testing keep such books (CONFIG_MEM_ALLOC_PROFILING, CONFIG_DEBUG_KMEMLEAK), which one builds: README, "Kernels".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.conftest import PATIENCE, ROOT, SOURCES, Held, Leaky
from tracer.attach.alloc_info import Profiling, profiling
from tracer.attach.kmemleak import KMEMLEAK

#: kmemleak names no block that is younger.
OLD_S = 6


def compared(folder: Path, book: str, commands: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of a comparison with one of the books, by function, after the module has obeyed."""
    text = "; ".join([*(f"echo {each} >/proc/leaky" for each in commands), f"sleep {OLD_S}"])
    report = folder / "report"
    done = subprocess.run(
        [sys.executable, "-m", "tracer.cli", "kernel", *SOURCES, "--cross-check", "--format", "json", "--output", report,
         "--", "sh", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = {note["book"]: note for note in json.loads(report.read_text())["cross_check"]}
    return {row["function"]: row for row in notes[book]["rows"]}


def figures(row: dict[str, Any]) -> tuple[Held, Held]:
    """Return what the trace and the kernel say."""
    return Held(row["count"], row["bytes"]), Held(row["kernel_count"], row["kernel_bytes"])


@pytest.fixture
def _account() -> None:
    if profiling() is not Profiling.ON:
        pytest.skip("this kernel keeps no account of its memory (CONFIG_MEM_ALLOC_PROFILING, and switched on)")


@pytest.fixture
def _detector() -> None:
    if not KMEMLEAK.exists():
        pytest.skip("this kernel has no leak detector (CONFIG_DEBUG_KMEMLEAK)")


@pytest.mark.usefixtures("_account")
def test_the_account_agrees_to_the_byte(leaky: Leaky, tmp_path: Path) -> None:
    """Of each source, some of it freed again, both say the same of each function."""
    # Too large for what memory per processor was set up with, which the account leaves out.
    rows = compared(tmp_path, "allocinfo", ("kmalloc 1000 100", "free kmalloc 300", "cache 500", "pages 30 2",
                                            "free pages 10", "percpu 10 30000", "vmalloc 10 50000"))  # fmt: skip
    kinds = {"kmalloc": "leaky_kmalloc", "cache": "leaky_cache_alloc", "pages": "leaky_pages"}
    for kind, function in kinds.items():
        held = Held(leaky.held(kind).count, leaky.held(kind).taken)
        assert (figures(rows[function]), rows[function]["standing"]) == ((held, held), "agrees")
    for function, least in (("leaky_percpu", Held(10, 10 * 30000)), ("leaky_vmalloc", Held(10, leaky.held("vmalloc").taken))):
        traced, kernel = figures(rows[function])
        assert traced == kernel and rows[function]["standing"] == "agrees", rows[function]
        # Kernels charge one processor's part or all; of an area, its pages and the list of them.
        assert traced.count >= least.count and least.taken <= traced.taken <= 4.5 * least.taken


@pytest.mark.usefixtures("_detector")
def test_the_detector_names_what_is_forgotten(leaky: Leaky, tmp_path: Path) -> None:
    """Blocks to which nothing points are in both, and those that the module still has are in the trace only."""
    rows = compared(tmp_path, "kmemleak", ("kmalloc 100 136", "forget kmalloc 100", "kmalloc_atomic 50 136"))
    traced, named = figures(rows["leaky_kmalloc"])
    # A stale pointer on some stack may hide a few.
    assert traced == Held(100, 100 * 192) and 90 <= named.count <= 100 and named.taken == named.count * 192
    assert rows["leaky_kmalloc"]["standing"] == "agrees" and "leaky_kmalloc_atomic" not in rows
