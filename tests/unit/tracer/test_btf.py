"""The kernel's types, read from bytes that tests/programs/made_btf.py writes; and from any others."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.programs.made_btf import MadeBtf, MadeKernel
from tracer.attach import btf
from tracer.attach.btf import Btf
from tracer.errors import CannotTrace


def head(**changes: int) -> bytes:
    """Return the header of one type and one name, with some of its fields changed."""
    fields = {"magic": 0xEB9F, "version": 1, "flags": 0, "length": 24, "type_at": 0, "type_length": 12, "names_at": 12,
              "names_length": 3} | changes
    return struct.pack("<HBBIIIII", *fields.values())


# ---- members ----


def test_members_lie_where_they_are_said_to() -> None:
    """A member's place is in bits, and is told in bytes."""
    made = MadeBtf()
    number = made.integer("int", 4)
    made.struct("page", 16, ("flags", number, 0), ("count", number, 64))
    types = Btf(made.data())
    assert [types.member_offset("page", name) for name in ("flags", "count", "none")] == [0, 8, None]
    assert types.struct_size("page") == 16


def test_members_of_nameless_parts_belong_to_the_struct() -> None:
    """What a nameless union in a nameless struct has is the struct's, at the sum of the places."""
    made = MadeBtf()
    number = made.integer("int", 4)
    union = made.composite(btf.UNION, "", 8, [("first", number, 0), ("second", number, 0), ("third", number, 32)])
    inner = made.struct("", 24, ("before", number, 0), ("", union, 128))
    made.struct("outer", 64, ("start", number, 0), ("", inner, 320), ("end", number, 512))
    types = Btf(made.data())
    assert [types.member_offset("outer", name) for name in ("start", "before", "first", "second", "third", "end")] == [
        0, 40, 56, 56, 60, 64]


def test_members_of_parts_with_a_name_are_not_the_structs() -> None:
    """A union with a name is a member, and what is in it is not; nor is what only a nameless number holds."""
    made = MadeBtf()
    number = made.integer("int", 4)
    union = made.composite(btf.UNION, "u", 4, [("inside", number, 0)])
    made.struct("outer", 8, ("", number, 0), ("named", union, 32))
    types = Btf(made.data())
    assert (types.member_offset("outer", "named"), types.member_offset("outer", "inside")) == (4, None)


def test_the_width_of_a_bit_field_is_no_part_of_its_place() -> None:
    """With kind_flag the upper 8 bits of a place are a width; without it, they are the place of a member far behind."""
    made = MadeBtf()
    number = made.integer("int", 4)
    made.struct("fields", 8, ("low", number, 0, 3), ("high", number, 35, 5), ("plain", number, 64), fields=True)
    made.struct("far", 1 << 26, ("last", number, 1 << 28))
    types = Btf(made.data())
    assert [types.member_offset("fields", name) for name in ("low", "high", "plain")] == [0, 4, 8]
    assert types.member_offset("far", "last") == 1 << 25


# ---- tracepoints ----


def test_a_tracepoint_is_given_what_its_prototype_says() -> None:
    """The tracepoint's own data comes first and is left out; the others are spelled as C does."""
    made = MadeKernel()
    made.trace("kmalloc", "unsigned long", "void *", "struct kmem_cache *", "size_t", "gfp_t", "int", "enum order")
    made.trace("nothing")
    types = Btf(made.data())
    assert types.tracepoint("kmalloc") == ("unsigned long", "void *", "struct kmem_cache *", "size_t", "gfp_t", "int", "order")
    assert types.tracepoint("nothing") == ()
    assert types.tracepoint("kfree") is None


def test_qualifiers_are_left_out() -> None:
    """const, volatile, restrict and tags, such as of memory per processor, change nothing of how a type is spelled."""
    made = MadeBtf()
    kept = made.struct("page", 64)
    for kind in (btf.CONST, btf.VOLATILE, btf.RESTRICT, btf.TYPE_TAG):
        kept = made.add(kind, "percpu" if kind == btf.TYPE_TAG else "", kept)
    made.tracepoint("made", made.add(btf.CONST, "", made.pointer(kept)), made.pointer(made.pointer(0)))
    assert Btf(made.data()).tracepoint("made") == ("struct page *", "void * *")


def test_only_a_typedef_of_that_name_is_a_tracepoint() -> None:
    """A function, a struct or a longer name is none."""
    made = MadeBtf()
    made.function("btf_trace_kfree")
    made.struct("btf_trace_kfree", 8)
    made.add(btf.TYPEDEF, "btf_trace_kfree_skb", made.pointer(made.prototype()))
    made.add(btf.TYPEDEF, "x_btf_trace_kfree", made.pointer(made.prototype()))
    assert Btf(made.data()).tracepoint("kfree") is None


def test_a_function_is_given_what_its_prototype_says() -> None:
    """All of its arguments are its own, unlike a tracepoint's."""
    made = MadeKernel()
    made.call("vfree", "void *")
    made.call("kmem_cache_free_bulk", "struct kmem_cache *", "size_t", "void *")
    made.struct("page", 64)
    types = Btf(made.data())
    assert types.function("vfree") == ("void *",)
    assert types.function("kmem_cache_free_bulk") == ("struct kmem_cache *", "size_t", "void *")
    assert types.function("free") is None and types.function("page") is None


# ---- all kinds ----


#: Kinds with something behind their heads: how many parts are made, bytes once, bytes for each part (linux/btf.h).
BEHIND = {btf.INT: (0, 4, 0), btf.ARRAY: (0, 12, 0), btf.STRUCT: (2, 0, 12), btf.UNION: (2, 0, 12), btf.ENUM: (3, 0, 8),
          btf.FUNC_PROTO: (2, 0, 8), btf.VAR: (0, 4, 0), btf.DATASEC: (2, 0, 12), btf.DECL_TAG: (0, 4, 0), btf.ENUM64: (3, 0, 12)}


@pytest.mark.parametrize("kind", range(1, 20))
def test_each_kind_has_its_length(kind: int) -> None:
    """What stands behind a type of any kind, FLOAT, DECL_TAG and ENUM64 too, is found where it is."""
    number, once, each = BEHIND.get(kind, (0, 0, 0))
    made = MadeBtf()
    made.add(kind, "before", 0, bytes(once + each * number), number=number)
    made.struct("behind", 40)
    assert Btf(made.data()).struct_size("behind") == 40


def test_a_flag_is_no_part_of_a_kind_or_number() -> None:
    """The highest bit, which a union or a signed enum has, changes neither how long it is nor what it is."""
    made = MadeBtf()
    made.add(btf.ENUM64, "signed", 8, bytes(24), number=2, flag=True)
    made.composite(btf.UNION, "u", 4, [], fields=True)
    function = made.function("behind")
    assert Btf(made.data()).function_id("behind") == function == 4


# ---- names ----


def test_a_kind_is_looked_for_and_not_only_a_name() -> None:
    """A function and a struct may have one name."""
    made = MadeBtf()
    made.struct("kfree", 8)
    function = made.function("kfree")
    types = Btf(made.data())
    assert types.function_id("kfree") == function
    assert types.struct_size("kfree") == 8
    assert types.function_id("free") is None and types.struct_size("kfre") is None


def test_a_name_may_stand_there_twice() -> None:
    """A type whose name is the second of two equal ones is found too."""
    made = MadeBtf()
    made.function("twice")
    made.names += b"twice\0"
    again = len(made.names) - len(b"twice\0")
    number = made.integer("int", 4)
    made.types += struct.pack("<III", again, 1 | btf.STRUCT << 24, 24) + struct.pack("<III", made.text("x"), number, 32)
    types = Btf(made.data())
    assert types.struct_size("twice") == 24 and types.member_offset("twice", "x") == 4


def test_sections_lie_where_the_header_says() -> None:
    """A longer header, and a gap before the names, change nothing."""
    made = MadeBtf()
    made.struct("page", 64)
    assert Btf(made.data(header=40, gap=8)).struct_size("page") == 64


# ---- what is no BTF ----


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"\x7fELF" + bytes(60), head(magic=0x9FEB) + bytes(20), head(length=8) + bytes(20),
                                  head()[:23]])
def test_other_bytes_are_refused(data: bytes) -> None:
    """No header, one that is cut, or one of another byte order: the sentence names the file and what to do."""
    with pytest.raises(CannotTrace, match="vmlinux") as raised:
        Btf(data)
    assert "CONFIG_DEBUG_INFO_BTF" in raised.value.remedy


def test_a_kernel_without_types(tmp_path: Path) -> None:
    """Where the file is not there, or is none, that is said in two sentences."""
    with pytest.raises(CannotTrace, match="No such file") as raised:
        Btf.of_kernel(tmp_path / "vmlinux")
    assert "/sys" in raised.value.remedy
    (tmp_path / "other").write_bytes(b"text")
    with pytest.raises(CannotTrace):
        Btf.of_kernel(tmp_path / "other")


def test_nothing_in_it() -> None:
    """No types and no names are none, and no error."""
    types = Btf(head(type_length=0, names_at=0, names_length=0))
    assert (types.tracepoint("kfree"), types.struct_size("page"), types.function_id("kfree")) == (None, None, None)
