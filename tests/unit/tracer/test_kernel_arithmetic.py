"""The numbers that bpf/heap.c and bpf/ledger.c work out, by their own functions compiled with gcc."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tracer import records
from tracer.settings import AttachWay, Settings

BPF = Path(__file__).parents[3] / "bpf"
U32, U64 = 1 << 32, 1 << 64
SIZES = st.one_of(st.integers(0, 1 << 20), st.integers(0, (1 << 48) - 1), st.integers(0, 47).map(lambda n: 1 << n))
#: --sample-bytes, as the command line takes it.
DISTANCES = st.one_of(st.integers(1, 1 << 20), st.integers(1, (1 << 48) - 1), st.integers(0, 47).map(lambda n: 1 << n))

HARNESS = """
    #include <stdint.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32;
    #define __always_inline inline __attribute__((always_inline))
    #define LIFETIME_BUCKETS {buckets}
    #define LIFETIME_SHIFT {shift}
    static u32 dice; static u64 distance, rate, shift;
    static u32 bpf_get_prandom_u32(void) { return dice; }
"""
INTERFACE = """
    void set(u64 d, u64 s, u64 r) { distance = d; shift = s; rate = r; }
    u32 by_bytes(u64 size, u32 value) { dice = value; return sample_by_bytes(size); }
    u32 by_count(u64 size, u32 value) { dice = value; return sample_by_count(size); }
    u32 of_all(u64 size, u32 value) { dice = value; return sample_all(size); }
    u64 multiply(u64 size, u64 count) { return product(size, count); }
    u64 variance(u64 total, u64 weight) { return variance_of(total, weight); }
    u32 bucket(u64 ns) { return lifetime_bucket(ns); }
"""


def c_function(file: str, name: str, called: str = "") -> str:
    """Return the text of a function of bpf/, under another name if one is given."""
    found = re.search(rf"^static [^\n]*\b{name}\([^;]*?\n{{\n.*?^}}$", (BPF / file).read_text(), re.MULTILINE | re.DOTALL)
    assert found, name
    return re.sub(rf"\b{name}\(", f"{called or name}(", found[0])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return the functions in a library; sampling is set by set()."""
    folder = tmp_path_factory.mktemp("arithmetic")
    limits = re.findall(r"^#define LARGE_\w+ .*$", (BPF / "ledger.c").read_text(), re.MULTILINE)
    assert len(limits) == 2
    parts = [
        HARNESS.replace("{buckets}", str(records.LIFETIME_BUCKETS)).replace("{shift}", str(records.LIFETIME_SHIFT)),
        *limits,
        c_function("heap.c", "product"), c_function("ledger.c", "variance_of"), c_function("ledger.c", "lifetime_bucket"),
        c_function("heap.c", "sample", "sample_all"),
        "#define SAMPLE_COUNT rate", c_function("heap.c", "sample", "sample_by_count"),
        "#define SAMPLE_BYTES distance\n#define SAMPLE_SHIFT shift", c_function("heap.c", "sample", "sample_by_bytes"),
        INTERFACE,
    ]  # fmt: skip
    (folder / "arithmetic.c").write_text("\n".join(parts))
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", folder / "arithmetic.so", folder / "arithmetic.c"], check=True)
    loaded = ctypes.CDLL(str(folder / "arithmetic.so"))
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    for name, arguments, result in (
        ("set", (u64, u64, u64), None), ("by_bytes", (u64, u32), u32), ("by_count", (u64, u32), u32),
        ("of_all", (u64, u32), u32), ("multiply", (u64, u64), u64), ("variance", (u64, u64), u64), ("bucket", (u64,), u32),
    ):  # fmt: skip
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded


def set_settings(library: ctypes.CDLL, settings: Settings) -> None:
    """Have the C sample with the constants that it would be compiled with."""
    made = settings.definitions(AttachWay.SESSION)
    library.set(made.get("SAMPLE_BYTES", 0), made.get("SAMPLE_SHIFT", 0), made.get("SAMPLE_COUNT", 1))


def threshold(weight_of: Callable[[int], int]) -> int:
    """Return how many of the 2^32 values of the dice give a weight: all below this one, as it is monotone."""
    low, high = 0, U32
    while low < high:
        middle = (low + high) // 2
        if weight_of(middle):
            low = middle + 1
        else:
            high = middle
    return low


def weight_by_bytes(size: int, distance: int) -> int:
    return 1 if size >= distance else -(-distance // size) if size else distance


@settings(deadline=None)
@given(size=SIZES, distance=DISTANCES)
@example(size=1, distance=524288)
@example(size=0, distance=1)
@example(size=(1 << 48) - 2, distance=(1 << 48) - 1)
@example(size=(1 << 31) - 1, distance=1 << 31)
def test_sampling_by_bytes(library: ctypes.CDLL, size: int, distance: int) -> None:
    """A block is kept by as many values of the dice as 2^32 / weight, rounded down: the quick test rejects none of them."""
    weight = weight_by_bytes(size, distance)
    assume(weight < U32)  # beyond, not one value is left
    set_settings(library, Settings(sample_bytes=distance))
    kept = threshold(lambda dice: library.by_bytes(size, dice))
    assert kept == U32 // weight
    assert library.by_bytes(size, 0) == weight
    assert library.by_bytes(size, kept - 1) == weight


@settings(deadline=None)
@given(size=SIZES, distance=DISTANCES, dice=st.integers(0, U32 - 1))
def test_sampling_by_bytes_at_any_value(library: ctypes.CDLL, size: int, distance: int, dice: int) -> None:
    """At every value of the dice the answer is that of the exact rule: the one threshold is all there is."""
    weight = weight_by_bytes(size, distance)
    assume(weight < U32)
    set_settings(library, Settings(sample_bytes=distance))
    assert library.by_bytes(size, dice) == (weight if dice < U32 // weight else 0)


@settings(deadline=None)
@given(size=st.integers(1, 1 << 40), distance=st.integers(1, 1 << 26))
def test_estimates_are_unbiased(library: ctypes.CDLL, size: int, distance: int) -> None:
    """Weight times chance is 1 up to the dice's fineness: for distances to 64 MB, within 2%."""
    set_settings(library, Settings(sample_bytes=distance))
    kept = threshold(lambda dice: library.by_bytes(size, dice))
    expected = library.by_bytes(size, 0) * kept / U32
    assert 0.98 < expected <= 1


@settings(deadline=None)
@given(rate=st.integers(2, 1_000_000), size=SIZES, dice=st.integers(0, U32 - 1))
@example(rate=2, size=0, dice=1 << 31)
def test_sampling_by_count(library: ctypes.CDLL, rate: int, size: int, dice: int) -> None:
    """One in N, whatever the size: as many values of the dice as 2^32 / N, rounded up, and each block counts N times."""
    set_settings(library, Settings(sample_rate=rate))
    kept = threshold(lambda value: library.by_count(size, value))
    assert kept == -(-U32 // rate)
    assert library.by_count(size, dice) == (rate if dice < kept else 0)


@settings(deadline=None)
@given(size=SIZES, dice=st.integers(0, U32 - 1))
def test_without_sampling(library: ctypes.CDLL, size: int, dice: int) -> None:
    """Every block is kept, and stands for itself."""
    assert library.of_all(size, dice) == 1


@settings(deadline=None)
@given(size=st.integers(0, U64 - 1), count=st.integers(0, U64 - 1))
@example(size=1 << 32, count=1 << 32)
@example(size=U64 - 1, count=U64 - 1)
@example(size=U64 - 1, count=2)
@example(size=(1 << 62) - 1, count=2)
@example(size=(1 << 32) - 1, count=(1 << 31) - 1)
@example(size=(1 << 33) - 1, count=0x9000_0000)
@example(size=U64 - 1, count=1)
@example(size=U64 - 1, count=0)
def test_product(library: ctypes.CDLL, size: int, count: int) -> None:
    """calloc's size is exact where the call can succeed, and never small where the true one is not."""
    true = size * count
    made = library.multiply(size, count)
    if true < 1 << 63:
        assert made == true
    else:
        assert made >= 1 << 63


LARGE_RECORD = 1 << 24


@settings(deadline=None)
@given(size=st.integers(0, LARGE_RECORD - 1), weight=st.integers(1, 1 << 24))
@example(size=1, weight=2)
@example(size=0, weight=1)
@example(size=(1 << 20), weight=15)
def test_variance_of_a_small_record(library: ctypes.CDLL, size: int, weight: int) -> None:
    """(w - 1) * w * s^2 exactly: 0 for a block that stands for itself alone."""
    assume(size * weight < LARGE_RECORD)
    assert library.variance(size * weight, weight) == (weight - 1) * weight * size * size


@settings(deadline=None)
@given(size=st.integers(1, (1 << 47) - 1), weight=st.integers(1, 1 << 30))
@example(size=1 << 20, weight=(1 << 24) + 1)
@example(size=1 << 16, weight=(1 << 17) + 1)
@example(size=100 << 20, weight=1)
def test_variance_of_a_large_record(library: ctypes.CDLL, size: int, weight: int) -> None:
    """The same in units of 2^32, within 1%; a block that stands for itself alone adds nothing, however large."""
    assume(LARGE_RECORD <= size * weight < 1 << 48)
    exact = (weight - 1) * weight * size * size / 2**32
    made = library.variance(size * weight, weight)
    assert made == 0 if weight == 1 else abs(made - exact) <= exact / 100 + weight


@settings(deadline=None)
@given(ns=st.one_of(st.integers(0, U64 - 1), st.integers(0, 1 << 20), st.integers(0, 63).map(lambda n: 1 << n),
                    st.integers(1, 64).map(lambda n: (1 << n) - 1)))
def test_lifetime_bucket(library: ctypes.CDLL, ns: int) -> None:
    """The power of two of the age in units of 2^10 ns; all ages have a bucket, the oldest share the last."""
    units = ns >> records.LIFETIME_SHIFT
    assert library.bucket(ns) == min(max(units.bit_length() - 1, 0), records.LIFETIME_BUCKETS - 1)
