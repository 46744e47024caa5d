"""Types that are damaged, cut off or made to do harm give an answer, none, or CannotTrace; never anything else."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.programs.made_btf import MadeBtf
from tracer.attach import btf
from tracer.attach.btf import Btf
from tracer.errors import CannotTrace

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from fuzzing.kernel_types import btf as ask
from fuzzing.kernel_types import seeds

SOUND = seeds()[0]


def test_types_that_are_cut_off() -> None:
    """Wherever the file ends, each question is answered or refused."""
    for length in range(len(SOUND)):
        ask(SOUND[:length])


@settings(deadline=None, max_examples=200)
@given(changes=st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@example(changes=[(0, 0)])
def test_types_that_are_damaged(changes: list[tuple[int, int]]) -> None:
    """Bytes that are others than they were do no harm."""
    data = bytearray(SOUND)
    for at, byte in changes:
        data[at] = byte
    ask(bytes(data))


def looped(kind: int) -> MadeBtf:
    """Return a typedef of a tracepoint that is given a type which is its own target."""
    made = MadeBtf()
    own = made.add(kind, "", made.count + 1)
    made.tracepoint("made", own)
    return made


@pytest.mark.parametrize("kind", [btf.PTR, btf.CONST, btf.TYPE_TAG])
def test_a_type_of_itself(kind: int) -> None:
    """A pointer to itself has no end, and is refused."""
    with pytest.raises(CannotTrace, match="damaged") as raised:
        Btf(looped(kind).data()).tracepoint("made")
    assert "CONFIG_DEBUG_INFO_BTF" in raised.value.remedy


def test_a_struct_in_itself() -> None:
    """A nameless part that contains the whole is looked through once."""
    made = MadeBtf()
    number = made.integer("int", 4)
    made.struct("loop", 8, ("first", number, 0), ("", made.count + 1, 32), ("last", number, 64))
    types = Btf(made.data())
    assert (types.member_offset("loop", "last"), types.member_offset("loop", "none")) == (8, None)


def test_parts_that_are_there_many_times_over() -> None:
    """Forty levels of which each holds the next one twice are not looked through 2^40 times."""
    made = MadeBtf()
    inner = made.integer("int", 4)
    for _ in range(40):
        inner = made.struct("", 8, ("", inner, 0), ("", inner, 32))
    made.struct("outer", 8, ("", inner, 0))
    assert Btf(made.data()).member_offset("outer", "none") is None


def of_number() -> bytes:
    made = MadeBtf()
    made.add(btf.TYPEDEF, "btf_trace_made", made.pointer(made.integer("int", 4)))
    return made.data()


def of_void() -> bytes:
    made = MadeBtf()
    made.prototype(made.integer("int", 4))
    made.add(btf.TYPEDEF, "btf_trace_made", 0)
    return made.data()


def of_nothing() -> bytes:
    made = MadeBtf()
    made.add(btf.TYPEDEF, "btf_trace_made", 77)
    return made.data()


@pytest.mark.parametrize("data", [of_number, of_void, of_nothing])
def test_a_tracepoint_that_is_no_function(data: Callable[[], bytes]) -> None:
    """A typedef of something else, of nothing, or of what is not there is no tracepoint to trust."""
    with pytest.raises(CannotTrace):
        Btf(data()).tracepoint("made")


def test_a_name_beyond_the_names() -> None:
    """A parameter whose type's name ends nowhere, or is no text, is refused."""
    for names in (b"\0btf_trace_made\0unended", b"\0btf_trace_made\0\xff\xfe\0"):
        made = MadeBtf(names=bytearray(names))
        number = made.integer("", 4)
        struct.pack_into("<I", made.types, 0, 16)
        made.tracepoint("made", number)
        made.names = bytearray(names)
        with pytest.raises(CannotTrace):
            Btf(made.data()).tracepoint("made")
    with suppress(CannotTrace):
        Btf(SOUND).tracepoint("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))
