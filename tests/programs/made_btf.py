"""A small writer of BTF (Documentation/bpf/btf.rst): types one by one, then header, types and names as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tracer.attach import btf

#: A member: its name, its type's id, its place in bits; of a bit field also how many bits it has.
Member = tuple[str, int, int] | tuple[str, int, int, int]
#: Of an integer: how many bits, in the word behind its head (BTF_INT_BITS).
_INT_BITS = 32


@dataclass
class MadeBtf:
    """Types in the order in which they are added; each function returns the id of its type, 1 for the first."""

    types: bytearray = field(default_factory=bytearray)
    names: bytearray = field(default_factory=lambda: bytearray(1))
    count: int = 0

    def text(self, name: str) -> int:
        """Return where a name stands, 0 for none; a name is there once."""
        if not name:
            return 0
        at = self.names.find(b"\0" + name.encode() + b"\0") + 1
        if not at:
            at = len(self.names)
            self.names += name.encode() + b"\0"
        return at

    def add(self, kind: int, name: str = "", target: int = 0, parts: bytes = b"", *, number: int = 0,
            flag: bool = False) -> int:
        """Add any type. target: its size or the type it refers to; number: of its parts, whose bytes follow its head."""
        self.types += struct.pack("<III", self.text(name), number | kind << 24 | flag << 31, target) + parts
        self.count += 1
        return self.count

    def integer(self, name: str, size: int) -> int:
        """Add an integer of so many bytes."""
        return self.add(btf.INT, name, size, struct.pack("<I", _INT_BITS))

    def pointer(self, to: int) -> int:
        """Add a pointer; 0 is void."""
        return self.add(btf.PTR, target=to)

    def composite(self, kind: int, name: str, size: int, members: Sequence[Member], *, fields: bool = False) -> int:
        """Add a struct or union. fields: places also say how many bits a bit field has (kind_flag)."""
        parts = b""
        for member in members:
            label, type_id, bits, *width = member
            place = bits | (width[0] if width else 0) << 24
            parts += struct.pack("<III", self.text(label), type_id, place)
        return self.add(kind, name, size, parts, number=len(members), flag=fields)

    def struct(self, name: str, size: int, *members: Member, fields: bool = False) -> int:
        """Add a struct of so many bytes."""
        return self.composite(btf.STRUCT, name, size, members, fields=fields)

    def prototype(self, *parameters: int) -> int:
        """Add what a function that returns nothing is given."""
        parts = b"".join(struct.pack("<II", 0, type_id) for type_id in parameters)
        return self.add(btf.FUNC_PROTO, parts=parts, number=len(parameters))

    def tracepoint(self, name: str, *parameters: int) -> int:
        """Add what a kernel has of a tracepoint: a typedef of a pointer to a function that is given its own data first."""
        function = self.prototype(self.pointer(0), *parameters)
        return self.add(btf.TYPEDEF, f"btf_trace_{name}", self.pointer(function))

    def function(self, name: str, *parameters: int) -> int:
        """Add a function."""
        return self.add(btf.FUNC, name, self.prototype(*parameters))

    def data(self, *, header: int = 24, gap: int = 0) -> bytes:
        """Return it all. header: bytes that the header says it has; gap: bytes between types and names."""
        types, names = bytes(self.types), bytes(self.names)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, header, 0, len(types), len(types) + gap, len(names))
        return head.ljust(header, b"\0") + types + bytes(gap) + names


#: Names of a tracepoint's parameters' types as C writes them.
SPELLED = ("unsigned long", "long unsigned int", "size_t", "gfp_t", "int", "bool", "void *", "struct kmem_cache *",
           "struct page *", "struct callback_head *", "rcu_callback_t", "enum order")


class MadeKernel(MadeBtf):
    """The types of a made-up kernel."""

    def named(self, spelled: str) -> int:
        """Return a type that is spelled like this, one of SPELLED."""
        if spelled == "void *":
            return self.pointer(self.add(btf.CONST))
        if spelled.startswith("struct "):
            return self.pointer(self.add(btf.FWD, spelled.split()[1]))
        if spelled in ("size_t", "gfp_t", "rcu_callback_t"):
            return self.add(btf.TYPEDEF, spelled, self.integer("unsigned int", 4))
        return self.add(btf.ENUM, "order", 4) if spelled.startswith("enum") else self.integer(spelled, 8)

    def trace(self, name: str, *spelled: str) -> int:
        """Add a tracepoint that is given values of these types."""
        return self.tracepoint(name, *(self.named(each) for each in spelled))

    def call(self, name: str, *spelled: str) -> int:
        """Add a function that is given values of these types."""
        return self.function(name, *(self.named(each) for each in spelled))
