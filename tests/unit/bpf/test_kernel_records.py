"""What a trace of the kernel keeps has the same layout in C, by gcc, and in tracer/collect/kernel_records.py."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer import limits, records
from tracer.collect import kernel_records
from tracer.collect.kernel_records import Source

BPF = Path(__file__).parents[3] / "bpf"
KERNEL_H = (BPF / "kernel.h").read_text()
TYPES = """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdio.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;
    #undef __always_inline
    #define __always_inline inline __attribute__((always_inline))
"""
DEPTH = 64


def piece(file: str, pattern: str) -> str:
    """Return a piece of a file of bpf/."""
    found = re.search(pattern, (BPF / file).read_text(), re.MULTILINE | re.DOTALL)
    assert found, pattern
    return found[0]


def headers() -> str:
    """Return the records of a trace of the kernel, as C."""
    return "\n".join([
        f"#define KERNEL\n#define MAX_DEPTH {DEPTH}\n#define KERNEL_FRAMES {DEPTH}\n#define STACK_COPY 1024", TYPES,
        (BPF / "records.h").read_text(), KERNEL_H, piece("kernel_maps.h", r"^struct kernel_config \{.*?^\};\n.*?;$"),
        piece("kernel_maps.h", r"^struct loss_count \{.*?^\};\n.*?;$")])


def numbers_of(folder: Path, expressions: Sequence[str], text: str | None = None) -> dict[str, int]:
    """Return what numbers the compiler makes of expressions."""
    prints = "".join(f'printf("%llu\\n", (unsigned long long)({each}));' for each in expressions)
    (folder / "made.c").write_text(f"{text or headers()}\nint main(void) {{ {prints} return 0; }}")
    subprocess.run(["gcc", "-Wall", "-Werror", "-Wno-unused-function", "-o", folder / "made", folder / "made.c"], check=True)
    answer = subprocess.run([folder / "made"], capture_output=True, check=True, text=True)
    return dict(zip(expressions, map(int, answer.stdout.split()), strict=True))


@pytest.mark.parametrize(("struct", "dtype", "other_names"), [
    ("kernel_site", kernel_records.KERNEL_SITE, {}), ("kernel_config", kernel_records.CONFIG, {}),
    ("loss_count", records.LOSS_COUNT, {}), ("block_bucket", records.BLOCK_BUCKET, {}),
    ("outstanding", records.OUTSTANDING, {"weight": "process"}), ("site", records.SITE, {}),
    ("rule_bucket", records.RULE_BUCKET, {}), ("stack", records.stack_dtype(DEPTH), {}),
])
def test_layouts(tmp_path: Path, struct: str, dtype: np.dtype[np.void], other_names: dict[str, str]) -> None:
    """Each field of a dtype lies where the field of the struct does, and both end together."""
    fields = [name for name in dtype.names or () if name != "packed"]
    places = [f"offsetof(struct {struct}, {other_names.get(name, name)})" for name in fields]
    at: Any = dtype.fields
    made = numbers_of(tmp_path, [f"sizeof(struct {struct})", *places])
    assert [*made.values()] == [dtype.itemsize, *(at[name][1] for name in fields)]


def test_a_miss_is_its_head_then_addresses_then_a_copy(tmp_path: Path) -> None:
    """A stack to learn from is unpacked as the C lays it out."""
    names = ["point", "skip", "depth", "context", "copied", "addresses", "data"]
    made = numbers_of(tmp_path, [*(f"offsetof(struct kernel_miss, {name})" for name in names), "sizeof(struct kernel_miss)"])
    head = kernel_records.MISS.size
    assert [*made.values()] == [0, 2, 4, 8, 16, head, head + 8 * DEPTH, head + 8 * DEPTH + kernel_records.COPY_BYTES]
    assert kernel_records.MISS.unpack(bytes(range(24))) == (0x0100, 0x0302, 0x07060504, 0x0F0E0D0C0B0A0908, 0x1716151413121110)


def test_a_blocks_size_and_what_is_wasted_are_one_word(tmp_path: Path) -> None:
    """The size is the lower bits, up to 2^40; a trace of programs has other bits there."""
    text = headers() + """
        static u64 word(u64 size, u64 extra)
        {
            struct outstanding made = {.size = size, .extra = extra};
            return ((u64 *)&made)[1];
        }
    """
    made = numbers_of(tmp_path, ["word(5, 3)", "word((1ULL << 40) - 1, 0)"], text)
    assert made["word(5, 3)"] == 5 | 3 << kernel_records.SIZE_BITS
    assert made["word((1ULL << 40) - 1, 0)"] == kernel_records.SIZE_MASK


def test_constants(tmp_path: Path) -> None:
    """Sources, rules, and how large stacks and their copies are have the same numbers on both sides."""
    pairs = {
        "SOURCE_PAGES": Source.PAGES, "SOURCE_PERCPU": Source.PERCPU, "SOURCE_VMALLOC": Source.VMALLOC, "SOURCE_SLAB": Source.SLAB,
        "SOURCE_SHIFT": kernel_records.SOURCE_SHIFT, "POINTS": kernel_records.POINTS, "KERNEL_RULE_STEP": kernel_records.RULE_STEP,
        "KERNEL_RULE_END": kernel_records.RULE_END, "KERNEL_RULE_BEGIN(3)": kernel_records.RULE_BEGIN + 3,
        "KERNEL_STACK": kernel_records.STACK_BYTES, "KERNEL_COPY": kernel_records.COPY_BYTES,
        "KERNEL_RULE(0x1234 << 8 | 2)": 2, "KERNEL_RULE_VALUE(0x1234 << 8 | 2)": 0x1234,
        "BLOCKS_PER_BUCKET": limits.BLOCKS_PER_BUCKET,
    }  # fmt: skip
    assert numbers_of(tmp_path, [*pairs]) == pairs
    assert len(Source) == 4


def test_every_struct_that_python_reads_states_its_size() -> None:
    """No record of kernel.h is without an assertion, but the name of a process, which is only bytes."""
    structs = re.findall(r"^struct (\w+) \{", KERNEL_H, re.MULTILINE)
    assert set(structs) - set(re.findall(r"^RECORD_SIZE\(struct (\w+), ", KERNEL_H, re.MULTILINE)) == {"process_name"}


# ---- keys ----

MOST = (1 << 64) - 1


def test_keys_of_sources_are_apart(tmp_path: Path) -> None:
    """A source lies above the address; a slab object's key is no address, and the address can be made of it again."""
    objects = ("0xffff888012345678ULL", "0xffffffffffffffffULL", "0xffffc90000000000ULL")
    expressions = [f"KERNEL_KEY({source}, {address})" for source in ("SOURCE_PAGES", "SOURCE_PERCPU", "SOURCE_VMALLOC") for address in objects]
    made = numbers_of(tmp_path, expressions)
    assert len(set(made.values())) == len(expressions)
    assert {key >> kernel_records.SOURCE_SHIFT for key in made.values()} == {Source.PAGES, Source.PERCPU, Source.VMALLOC}
    for written, key in numbers_of(tmp_path, [f"SLAB_KEY({address})" for address in objects]).items():
        address = int(written[9:-4], 16)
        assert key >> kernel_records.SOURCE_SHIFT == Source.SLAB and not key >> 47 & 0x1FFF
        assert key ^ (1 << kernel_records.SOURCE_SHIFT) - 1 == address


def test_a_block_of_pages_is_known_by_any_of_its_pages(tmp_path: Path) -> None:
    """All pages of a block of an order give one key, other orders and other blocks others; the order can be read from it."""
    text = headers() + "\n" + piece("kernel_pages.c", r"^#define PAGES_KEY\(.*?\)\)\)$")
    first = 0x3_FFF8_0000_0000 // 64
    expressions = [f"PAGES_KEY({first + page}ULL, {order})" for order in (0, 1, 3, 10) for page in (0, 1, 7, 8, 1023, 1024)]
    made = [*numbers_of(tmp_path, expressions, text).values()]
    by_order = {order: made[at * 6 : at * 6 + 6] for at, order in enumerate((0, 1, 3, 10))}
    assert [len(set(keys)) for keys in by_order.values()] == [6, 5, 4, 2]
    assert by_order[3][0] == by_order[3][1] == by_order[3][2] != by_order[3][3]
    assert len({keys[0] for keys in by_order.values()}) == 4
    for order, keys in by_order.items():
        # As pages_freed() reads it.
        assert {(key << 4 & MOST) >> 52 for key in keys} == {order}
        assert {key >> kernel_records.SOURCE_SHIFT for key in keys} == {Source.PAGES}


# ---- how long blocks lived ----


def test_every_power_of_two_has_its_bucket(tmp_path: Path) -> None:
    """An age of 2^n ns, and the last one before it, are in the bucket of their power: all of 64 bits."""
    text = headers() + "\n" + piece("ledger.c", r"^static [^\n]*\blifetime_bucket\(.*?^}$")
    ages = [age for power in range(64) for age in ((1 << power) - 1, 1 << power, (1 << power) + 1)]
    made = numbers_of(tmp_path, [f"lifetime_bucket({age}ULL)" for age in dict.fromkeys(ages)], text)
    last = records.LIFETIME_BUCKETS - 1
    assert [*made.values()] == [min(max((age >> records.LIFETIME_SHIFT).bit_length() - 1, 0), last) for age in dict.fromkeys(ages)]
    assert set(made.values()) == set(range(records.LIFETIME_BUCKETS))


# ---- one look at a bucket ----

FAKE = """
    #define ATOMICS
    #define NULL ((void *)0)
    #define SPREAD 0x9E3779B97F4A7C15ULL
    #define BLOCK_BUCKETS 1
    static struct block_bucket *the_bucket;
    static struct outstanding beyond;
    static struct block_bucket *look(u32 *index) { return *index ? NULL : the_bucket; }
    static struct outstanding *look_beyond(u64 *key) { return *key == 99 ? &beyond : NULL; }
    static const struct { struct block_bucket *(*lookup)(u32 *); } blocks = { look };
    static const struct { struct outstanding *(*lookup)(u64 *); } overflow = { look_beyond };
"""
FIND = """
    /* The record's place, -1 for none, -2 for that beyond the bucket. */
    int find(void *bucket, u64 key)
    {
        struct record_place place = {};
        the_bucket = bucket;
        struct outstanding *found = record_find(key, &place);
        if (found == &beyond)
            return place.key ? -3 : -2;
        if (!found)
            return -1;
        return place.key == &the_bucket->keys[found - the_bucket->records] ? found - the_bucket->records : -3;
    }
"""


def test_a_record_is_found_in_each_place(tmp_path: Path) -> None:
    """The look without branches finds a key in any place, none that is not there, and looks beyond only where there is more."""
    text = headers() + FAKE + "\n".join(
        piece("outstanding.c", pattern) for pattern in (r"^struct record_place \{.*?^\};$", r"^static [^\n]*\bbucket_of\(.*?^}$",
                                                        r"^static [^\n]*\brecord_find\(.*?^}$")) + FIND
    (tmp_path / "find.c").write_text(text)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", tmp_path / "find.so", tmp_path / "find.c"], check=True)
    library = ctypes.CDLL(str(tmp_path / "find.so"))
    bucket = np.zeros((), records.BLOCK_BUCKET)

    def find(key: int) -> int:
        return int(library.find(bucket.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(key)))

    keys = [MOST, 2, 0xFFFF888000000000, 1 << 63, 0xFFFF888000000008, 3, (1 << 63) - 1]
    bucket["keys"] = keys
    assert [find(key) for key in keys] == [*range(7)]
    assert [find(key) for key in (4, 99, MOST - 1, 1 << 62)] == [-1] * 4
    bucket["overflowed"] = 1
    assert (find(99), find(98), find(3)) == (-2, -1, 5)
