import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbolizer import perf_map
from symbolizer.perf_map import PerfMap

# One of each kind, as node 20.20 (--perf-basic-prof), JDK 17 (-XX:+DumpPerfMapAtExit) and Python 3.13 (-X perf) wrote them.
REAL = b"""\
18c4000 300 Builtin:DeoptimizationEntry_Eager
7f99e0005e40 448 RegExp:a+b(c|d)
7f99e0005b80 260 JS:*step /tmp/jit/a.js:1:44
0x00007f113497f380 0x00000000000001d0 I2C/C2I adapters
0x00007f112d40e540 0x00000000000001d0 void java.lang.String.<init>(byte[], byte)
7f0af79e3360 b py::<module>:<frozen site>
"""


def names_of(data: bytes, *addresses: int) -> list[str | None]:
    table = PerfMap.parse(data)
    return [found[0] if (found := table.find(address)) else None for address in addresses]


def test_lines_as_runtimes_write_them_are_found_from_their_first_to_their_last_byte() -> None:
    table = PerfMap.parse(REAL)
    assert (len(table), table.skipped) == (6, 0)
    for line in REAL.decode().splitlines():
        start, size, name = line.split(" ", 2)
        first, length = int(start, 16), int(size, 16)
        assert table.find(first) == (name, 0)
        assert table.find(first + length - 1) == (name, length - 1)
        assert table.find(first - 1) is None
        assert table.find(first + length) is None


@pytest.mark.parametrize(
    "line",
    [
        b"", b"1000", b"1000 10", b"1000 10 ", b"1000 10  ", b"xyz 10 bad", b"1000 xyz bad", b" 1000 10 bad", b"1000 0 empty",
        b"0x 10 bad", b"1000 0x bad", b"1000  10 bad", b"11112222333344445 10 too long", b"ffffffffffffff00 101 beyond the end",
        b"1000 10 " + b"x" * 4096, b"1000-10 bad", b"1000 10\0bad",
    ],
)  # fmt: skip
def test_a_bad_line_is_skipped_counted_and_harms_no_other(line: bytes) -> None:
    table = PerfMap.parse(b"500 10 before\n" + line + b"\n2000 10 after\n")
    assert [table.find(address) for address in (0x500, 0x1000, 0x2000)] == [("before", 0), None, ("after", 0)]
    assert table.skipped == 1


def test_a_last_line_that_is_being_written_is_ignored() -> None:
    assert names_of(b"1000 10 whole\n2000 10 hal", 0x1000, 0x2000) == ["whole", None]
    assert names_of(b"2000 10 hal", 0x2000) == [None]


def test_the_newest_line_wins_where_code_took_the_room_of_other_code() -> None:
    data = b"1000 100 old\n1040 20 inner\n10f0 20 tail\n"
    assert names_of(data, 0x1000, 0x103F, 0x1040, 0x105F, 0x1060, 0x10EF, 0x10F0, 0x110F, 0x1110) == [
        "old", "old", "inner", "inner", "old", "old", "tail", "tail", None,
    ]  # fmt: skip
    assert PerfMap.parse(data).find(0x1060) == ("old", 0x60)
    assert names_of(b"1040 20 inner\n1000 100 covers all\n", 0x1050) == ["covers all"]
    assert names_of(b"1000 10 first\n1000 10 second\n1000 10 third\n", 0x1008) == ["third"]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=40))
def test_overlaps_are_resolved_as_if_every_line_were_painted_over_the_ones_before(ranges: list[tuple[int, int]]) -> None:
    painted: dict[int, tuple[str, int]] = {}
    for number, (start, size) in enumerate(ranges):
        painted |= {address: (f"f{number}", address - start) for address in range(start, start + size)}
    table = PerfMap.parse(b"".join(b"%x %x f%d\n" % (start, size, n) for n, (start, size) in enumerate(ranges)))
    assert {address: found for address in range(100) if (found := table.find(address))} == painted
    assert np.all(table.end[:-1] <= table.start[1:])


def test_lines_are_the_same_wherever_a_block_of_the_parser_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"%x 8 name%d\n" % (0x1000 + number * 8, number) for number in range(50)) + b"y" * 200 + b"\n"
    data += b"1010 20 newer\n"
    whole = PerfMap.parse(data)
    for block in (20, 21, 33, 64, 100):
        monkeypatch.setattr(perf_map, "_BLOCK", block)
        pieces = PerfMap.parse(data)
        assert [pieces.find(0x1000 + n) for n in range(400)] == [whole.find(0x1000 + n) for n in range(400)]
        assert pieces.skipped == 1


def test_of_too_many_lines_the_newest_are_kept_and_the_rest_counted() -> None:
    table = PerfMap.parse(b"".join(b"%x 8 name%d\n" % (0x1000 + number * 8, number) for number in range(50)), most=10)
    assert (len(table), table.skipped) == (10, 40)
    assert table.find(0x1000) is None
    assert table.find(0x1000 + 49 * 8) == ("name49", 0)


def test_a_name_cannot_disturb_the_terminal() -> None:
    assert names_of("1000 10 \x1b[31mred \u202e\n".encode() + b"2000 10 caf\xc3\xa9 \xff\r\n", 0x1000, 0x2000) == [
        r"\x1b[31mred \u202e", r"café \xff",
    ]  # fmt: skip


@settings(deadline=500)
@given(st.binary(max_size=400) | st.text("0123456789abcfx \n\t", max_size=400).map(str.encode), st.integers(-2, 2**64 + 2))
def test_garbage_never_raises(data: bytes, address: int) -> None:
    table = PerfMap.parse(data)
    for probe in (address, 0, 2**64 - 1, *table.start[:5].tolist()):
        found = table.find(probe)
        assert found is None or (found[0].isprintable() and found[1] >= 0)


def test_a_hundred_thousand_lines_take_no_noticeable_time() -> None:
    apart = b"".join(b"%x 260 JS:*function%d /srv/app/x%d.js:9:9\n" % (0x7F0000000000 + n * 640, n, n) for n in range(100_000))
    began = time.process_time()
    assert len(PerfMap.parse(apart)) == 100_000
    assert time.process_time() - began < 1  # 0.05 s here; other tests may share the processor
    overlapping = b"".join(b"%x 400 f%d\n" % (0x7F0000000000 + n * 7919 % 100_000 * 640, n) for n in range(100_000))
    began = time.process_time()
    assert len(PerfMap.parse(overlapping)) >= 100_000
    assert time.process_time() - began < 2
