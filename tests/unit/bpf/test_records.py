"""bpf/records.h by itself: what it asserts holds, whatever is defined."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tracer import limits, records

RECORDS_H = (Path(__file__).parents[3] / "bpf" / "records.h").read_text()
TYPES = """
    #include <stdint.h>
    typedef uint64_t u64; typedef uint32_t u32; typedef uint8_t u8;
"""


def compiles(folder: Path, text: str, **definitions: int) -> bool:
    (folder / "records.c").write_text(TYPES + text)
    flags = [f"-D{name}={value}" for name, value in definitions.items()]
    answer = subprocess.run(["gcc", "-fsyntax-only", "-Wall", *flags, folder / "records.c"], capture_output=True,
                            check=False)
    return answer.returncode == 0


@pytest.mark.parametrize("depth", [1, 64, 127])
def test_sizes_hold_at_every_depth(tmp_path: Path, depth: int) -> None:
    """Every asserted size is true for the least depth, the usual and the greatest."""
    assert compiles(tmp_path, RECORDS_H, MAX_DEPTH=depth, STACK_COPY=limits.STACK_COPY)


def test_every_struct_states_its_size() -> None:
    """No struct is without an assertion, so that none changes unseen."""
    structs = re.findall(r"^struct (\w+) \{", RECORDS_H, re.MULTILINE)
    asserted = re.findall(r"^RECORD_SIZE\(struct (\w+), ", RECORDS_H, re.MULTILINE)
    assert len(structs) > 5 and structs == asserted


def test_a_wrong_size_does_not_compile(tmp_path: Path) -> None:
    """A field more, and the compiler refuses."""
    assert not compiles(tmp_path, RECORDS_H.replace("u64 trampoline;", "u64 trampoline, more;"), MAX_DEPTH=64,
                        STACK_COPY=limits.STACK_COPY)


def test_no_piece_without_a_bit(tmp_path: Path) -> None:
    """A copy of more pieces than `missing` has bits does not compile."""
    assert not compiles(tmp_path, RECORDS_H, MAX_DEPTH=64, STACK_COPY=33 * records.COPY_PIECE)


@pytest.mark.parametrize("depth", [1, 64, 127])
def test_sizes_in_python(depth: int) -> None:
    """The stated sizes, worked out, are those of tracer/records.py."""
    stated = dict(re.findall(r"^RECORD_SIZE\(struct (\w+), (.+)\);$", RECORDS_H, re.MULTILINE))
    numbers = {"MAX_DEPTH": depth, "STACK_COPY": limits.STACK_COPY, "LIFETIME_BUCKETS": records.LIFETIME_BUCKETS}

    def size(name: str) -> int:
        total = 0
        for term in stated[name].split("+"):
            product = 1
            for factor in term.split("*"):
                product *= numbers.get(factor.strip()) or int(factor)
            total += product
        return total

    assert {name: size(name) for name in stated} == {
        "comm": records.COMM_STRUCT.size,
        "wanted_group": records.WANTED_GROUP_STRUCT.size,
        "origin": 8,
        "freed_block": 32,
        "misuse": records.MISUSE_STRUCT.size,
        "misuse_event": records.EVENT_STRUCT.size + records.MISUSE_STRUCT.size,
        "outstanding": records.OUTSTANDING.itemsize,
        "block_bucket": records.BLOCK_BUCKET.itemsize,
        "site": records.SITE.itemsize,
        "stack": records.stack_dtype(depth).itemsize,
        "rule_bucket": records.RULE_BUCKET.itemsize,
        "image": records.IMAGE.itemsize,
        "event": records.EVENT_STRUCT.size,
        "trace_event": records.EVENT_STRUCT.size + records.TRACE_STRUCT.size,
        "miss_event": records.EVENT_STRUCT.size + records.MISS_STRUCT.size + limits.STACK_COPY,
    }
