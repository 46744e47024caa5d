"""RuleTable (tracer/collect/rule_table.py): what Python puts there, bpf/sites.c finds.

The look-up is the C's own, compiled; and once more in Python, as the C states it.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer import limits, records
from tracer.collect.rule_table import SPREAD, RuleTable, rule_key
from tracer.limits import MAX_SLOTS

BPF = Path(__file__).parents[4] / "bpf"
SITES_C, UNWIND_H = (BPF / "sites.c").read_text(), (BPF / "unwind.h").read_text()

FAKE = """
    #include <stdint.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32;
    #define __always_inline inline __attribute__((always_inline))
    #define NULL ((void *)0)
    struct rule_bucket { u64 keys[4]; u64 rules[4]; };
    static struct rule_bucket *buckets;
    static struct rule_bucket *look(u32 *index)
    {
        return *index < 1u << RULE_BUCKET_BITS ? &buckets[*index] : NULL;
    }
    static const struct { struct rule_bucket *(*lookup)(u32 *); } rules = { look };
"""


def c_function(text: str, name: str) -> str:
    found = re.search(rf"^static [^\n]*\b{name}\([^;]*?\n{{\n.*?^}}$", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[0]


LookUp = Callable[[np.ndarray, int], int]


@pytest.fixture(scope="module")
def look_up(tmp_path_factory: pytest.TempPathFactory) -> LookUp:
    """Return rule_of() of bpf/sites.c, for 8 buckets."""
    folder = tmp_path_factory.mktemp("rules")
    spread = re.search(r"^#define SPREAD .*$", SITES_C, re.MULTILINE)
    assert spread
    (folder / "rules.c").write_text("\n".join([
        "#define RULE_BUCKET_BITS 3", FAKE, spread[0], c_function(UNWIND_H, "mask_of_zero"),
        c_function(SITES_C, "rule_in"), c_function(SITES_C, "rule_of"),
        "u64 find(void *table, u64 key) { buckets = table; return rule_of(key); }",
    ]))
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", folder / "rules.so", folder / "rules.c"], check=True)
    find = ctypes.CDLL(str(folder / "rules.so")).find
    find.argtypes, find.restype = (ctypes.c_void_p, ctypes.c_uint64), ctypes.c_uint64
    return lambda buckets, key: int(find(buckets.ctypes.data, key))


def found_in_python(buckets: np.ndarray, key: int) -> int:
    """Do as rule_of() of bpf/sites.c: hash, four keys, then those of the neighbour; 0 where the key is not."""
    shift = 64 - (len(buckets).bit_length() - 1)
    home = (key * SPREAD & (1 << 64) - 1) >> shift
    for index in (home, home ^ 1):
        for place in range(records.RULES_PER_BUCKET):
            if int(buckets["keys"][index, place]) == key:
                return int(buckets["rules"][index, place])
    return 0


def empty(buckets: int = 8) -> np.ndarray:
    return np.zeros(buckets, records.RULE_BUCKET)


#: Return addresses of one program, some interrupted, of several images.
KEYS = st.builds(
    lambda step, image, interrupted: rule_key(0x5555_5555_0000 + step * 5 | interrupted * records.INTERRUPTED, image),
    st.integers(0, 500), st.integers(0, 130), st.booleans())


def test_the_constants_are_those_of_the_c() -> None:
    """Both sides spread keys by the same number, and agree on how many rules a bucket has."""
    assert re.search(rf"^#define SPREAD 0x{SPREAD:X}ULL$", SITES_C, re.MULTILINE)
    assert f"#define RULES_PER_BUCKET {records.RULES_PER_BUCKET}\n" in (BPF / "records.h").read_text()


def test_keys_are_those_of_the_c() -> None:
    """A key is the address, its mark, and the image's number as IMAGE_KEY() shifts it."""
    macro = re.search(r"#define IMAGE_KEY\(image\) \(\(u64\)\(\(image\) & (0x[0-9a-f]+)\) << (\d+)\)", (BPF / "stack.c").read_text())
    assert macro
    mask, shift = int(macro[1], 16), int(macro[2])
    for image in (0, 1, 64, 0x7FFF, 0x8001, 0x12345):
        for address in (0x401000, records.ADDRESS_MASK, 0x401000 | records.INTERRUPTED):
            assert rule_key(address, image) == address | (image & mask) << shift


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, st.integers(1, (1 << 64) - 1)), max_size=90))
def test_what_is_installed_is_found(look_up: LookUp, rules: list[tuple[int, int]]) -> None:
    """Each key is found with its last rule, but for as many as were evicted; no key is found that was not installed."""
    buckets = empty()
    table = RuleTable(buckets)
    for key, rule in rules:
        table.install(key, rule)
        assert look_up(buckets, key) == rule
    last = dict(rules)
    found = {key: look_up(buckets, key) for key in last}
    assert all(rule in (0, last[key]) for key, rule in found.items())
    # A key that was evicted may have been installed again.
    assert len(last) - sum(rule != 0 for rule in found.values()) <= table.evicted
    assert len(last) > 32 or not table.evicted or np.count_nonzero(buckets["keys"]) >= records.RULES_PER_BUCKET * 2
    assert {key: found_in_python(buckets, key) for key in last} == found
    assert look_up(buckets, rule_key(0x7777_0000_0000, 3)) == 0


def keys_of_one_bucket(count: int, bucket: int = 5) -> list[int]:
    """Return keys whose home is that one of 8 buckets."""
    mine = (key for key in range(0x1000, 0x100000) if (key * SPREAD & (1 << 64) - 1) >> 61 == bucket)
    return [next(mine) for _ in range(count)]


@pytest.mark.parametrize(("home", "neighbour"), [(0, 1), (5, 4), (6, 7), (7, 6)])
def test_a_full_bucket_uses_its_neighbour(look_up: LookUp, home: int, neighbour: int) -> None:
    """Eight keys of one bucket fit: four at home, four next door, and nothing is evicted."""
    buckets = empty()
    table = RuleTable(buckets)
    keys = keys_of_one_bucket(8, home)
    for number, key in enumerate(keys, 1):
        table.install(key, number)
    assert [look_up(buckets, key) for key in keys] == list(range(1, 9))
    assert set(buckets["keys"][home].tolist()) == set(keys[:4])
    assert set(buckets["keys"][neighbour].tolist()) == set(keys[4:])
    assert table.evicted == 0


def test_eviction(look_up: LookUp) -> None:
    """A ninth key takes the place of one at home; that one can come back, and no rule answers for another key."""
    buckets = empty()
    table = RuleTable(buckets)
    keys = keys_of_one_bucket(20)
    for number, key in enumerate(keys, 1):
        table.install(key, number)
        assert look_up(buckets, key) == number
    assert table.evicted == 12
    present = [key for key in keys if look_up(buckets, key)]
    assert len(present) == 8
    assert all(look_up(buckets, key) == keys.index(key) + 1 for key in present)
    gone = next(key for key in keys if key not in present)
    table.install(gone, 99)
    assert look_up(buckets, gone) == 99
    assert sum(look_up(buckets, key) != 0 for key in keys) == 8


def test_evictions_take_turns(look_up: LookUp) -> None:
    """Places are taken in turn, so that the newest four keys stay."""
    buckets = empty()
    table = RuleTable(buckets)
    keys = keys_of_one_bucket(30)
    for key in keys:
        table.install(key, key)
        recent = keys[max(0, keys.index(key) - 3) : keys.index(key) + 1]
        assert all(look_up(buckets, each) == each for each in recent)


def test_installed_again(look_up: LookUp) -> None:
    """A key that is installed again has the new rule, in the place it had."""
    buckets = empty()
    table = RuleTable(buckets)
    table.install(0x1000, 5)
    table.install(0x1000, 6)
    assert look_up(buckets, 0x1000) == 6
    assert np.count_nonzero(buckets["keys"]) == 1


def test_remove(look_up: LookUp) -> None:
    """What is unwanted is no longer found, its place is used again, and the rest stays."""
    buckets = empty()
    table = RuleTable(buckets)
    keys = keys_of_one_bucket(8)
    for key in keys:
        table.install(key, key)
    unwanted = set(keys[::2])
    table.remove(unwanted | {0x7777})
    assert [look_up(buckets, key) for key in keys] == [0 if key in unwanted else key for key in keys]
    for key in unwanted:
        table.install(key, key + 1)
    assert table.evicted == 0
    assert [look_up(buckets, key) for key in keys] == [key + 1 if key in unwanted else key for key in keys]


def test_drop(look_up: LookUp) -> None:
    """The rules of one version of one process's code go at once; its neighbours' stay, and the places are free."""
    buckets = empty()
    table = RuleTable(buckets)
    keys = {image: [rule_key(0x401000 + 16 * n, image) for n in range(5)] for image in (64, 65, 64 + MAX_SLOTS)}
    for image, own in keys.items():
        for key in own:
            table.install(key, image)
    table.drop(64)
    table.drop(3)
    assert {image: [look_up(buckets, key) for key in own] for image, own in keys.items()} == {
        64: [0] * 5, 65: [65] * 5, 64 + MAX_SLOTS: [64 + MAX_SLOTS] * 5}
    assert np.count_nonzero(buckets["keys"]) == 10
    table.install(keys[64][0], 7)
    assert look_up(buckets, keys[64][0]) == 7
    table.drop(64 + MAX_SLOTS)
    assert [look_up(buckets, own[0]) for own in keys.values()] == [7, 65, 0]


@settings(deadline=None)
@given(st.sets(st.integers(0, 2000), max_size=90), st.sets(st.integers(0, 2000), max_size=40))
def test_many_at_once(look_up: LookUp, first: set[int], more: set[int]) -> None:
    """Rules that are installed together are found as those that came one by one, and go with their image."""
    buckets = empty()
    table = RuleTable(buckets)
    one_by_one = {rule_key(0x401000 + n, 64): n + 1 for n in first}
    together = {rule_key(0x401000 + n, 65): n + 5000 for n in more}
    for key, rule in one_by_one.items():
        table.install(key, rule)
    table.install_many(np.array(list(together), np.uint64), np.array(list(together.values()), np.uint64))
    found = {key: look_up(buckets, key) for key in together | one_by_one}
    assert all(rule in (0, (together | one_by_one)[key]) for key, rule in found.items())
    assert sum(rule == 0 for rule in found.values()) == table.evicted
    table.drop(65)
    assert not any(look_up(buckets, key) for key in together)
    table.drop(64)
    assert not buckets["keys"].any()


def test_what_was_evicted_is_not_dropped_again(look_up: LookUp) -> None:
    """The place of a rule that had to give way is another image's: dropping or removing the old one leaves it alone."""
    buckets = empty()
    table = RuleTable(buckets)
    old = keys_of_one_bucket(8)
    mine = (rule_key(address, 9) for address in range(0x1000, 0x100000))
    new = [key for key in mine if (key * SPREAD & (1 << 64) - 1) >> 61 == 5][:4]
    for key in [*old, *new]:
        table.install(key, 1)
    assert table.evicted == 4
    table.remove([key for key in old if not look_up(buckets, key)])
    table.drop(0)
    assert [look_up(buckets, key) for key in new] == [1] * 4 and np.count_nonzero(buckets["keys"]) == 4


def test_the_real_size() -> None:
    """As many buckets as the C has: 10,000 return addresses find room without eviction."""
    buckets = empty(1 << limits.RULE_BUCKET_BITS)
    table = RuleTable(buckets)
    keys = [rule_key(0x7F12_3456_0000 + 37 * number, 64) for number in range(10_000)]
    for key in keys:
        table.install(key, key)
    assert table.evicted == 0
    assert all(found_in_python(buckets, key) == key for key in keys)
