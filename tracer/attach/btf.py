"""The kernel's own types (BTF, Documentation/bpf/btf.rst): what tracepoints are given, where struct members lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from tracer.errors import CannotTrace

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_PARAMETER = struct.Struct("<II")
_ARRAY = struct.Struct("<III")
#: enum btf_kind.
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)
_QUALIFIERS = (VOLATILE, CONST, RESTRICT, TYPE_TAG)
#: Bytes behind a type's head: once, and for each of its vlen parts.
_EXTRA = {INT: (4, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), FUNC_PROTO: (0, 8), VAR: (4, 0),
          DATASEC: (0, 12), DECL_TAG: (4, 0), ENUM64: (0, 12)}


@contextmanager
def _whole() -> Iterator[None]:
    """Raise CannotTrace where types refer to what is not there, or to themselves without end."""
    try:
        yield
    except (struct.error, IndexError, ValueError, RecursionError):
        raise CannotTrace(f"The type information in {VMLINUX} is damaged, or of a form that leaktrace does not know.",
                          "Use a kernel built with CONFIG_DEBUG_INFO_BTF.") from None


class Btf:
    """Types of one kernel, by name. Reading is lazy: a question costs a walk over all heads, once (0.1 s).

    Each question raises CannotTrace where the types make no sense.
    """

    def __init__(self, data: bytes) -> None:
        """data: the bytes of /sys/kernel/btf/vmlinux. Raises CannotTrace for anything else."""
        try:
            magic, _, _, length, type_at, type_length, names_at, names_length = _HEADER.unpack_from(data)
        except struct.error:
            magic = length = 0
        if magic != _MAGIC or length < _HEADER.size:
            raise CannotTrace(f"{VMLINUX} holds no type information that leaktrace knows.",
                              "Use a kernel built with CONFIG_DEBUG_INFO_BTF.")
        self._types = data[length + type_at : length + type_at + type_length]
        self._names = data[length + names_at : length + names_at + names_length]

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> Btf:
        """Read the running kernel's. Raises CannotTrace where it has none."""
        try:
            return cls(path.read_bytes())
        except OSError as problem:
            raise CannotTrace(f"This kernel does not describe its types: {path} cannot be read ({problem.strerror}).",
                              "Use a kernel built with CONFIG_DEBUG_INFO_BTF, and mount /sys.") from None

    def tracepoint(self, name: str) -> tuple[str, ...] | None:
        """Return the types of what the kernel hands to programs at a raw tracepoint; None if there is no such one.

        As C writes them, without const: `struct page *`, `gfp_t`.
        """
        with _whole():
            at = self._named(f"btf_trace_{name}", TYPEDEF)
            if at is None:
                return None
            # The first one is the tracepoint's own data, which programs do not get.
            return self._parameters(self._head(self._head(at)[2])[2])[1:]

    def function(self, name: str) -> tuple[str, ...] | None:
        """Return the types of a kernel function's arguments, as tracepoint() does; None if there is no such one."""
        with _whole():
            at = self._named(name, FUNC)
            return self._parameters(self._head(at)[2]) if at is not None else None

    def _parameters(self, prototype: int) -> tuple[str, ...]:
        if self._head(prototype)[0] != FUNC_PROTO:
            raise ValueError(prototype)
        start = self._offsets[prototype]
        _, info, _ = _TYPE.unpack_from(self._types, start)
        return tuple(self._spell(_PARAMETER.unpack_from(self._types, start + _TYPE.size + index * _PARAMETER.size)[1])
                     for index in range(info & 0xFFFF))

    def member_offset(self, structure: str, member: str) -> int | None:
        """Return how many bytes into a struct a member lies, also one of a nameless part of it; None without one."""
        with _whole():
            at = self._named(structure, STRUCT)
            return self._member(at, member, set()) if at is not None else None

    def struct_size(self, structure: str) -> int | None:
        """Return a struct's size in bytes."""
        with _whole():
            at = self._named(structure, STRUCT)
            return self._head(at)[2] if at is not None else None

    def function_id(self, name: str) -> int | None:
        """Return the id by which programs are attached to a function (attach_btf_id); None if it has none."""
        with _whole():
            return self._named(name, FUNC)

    def _member(self, type_id: int, member: str, seen: set[int]) -> int | None:
        """seen: parts that do not have it; each is looked through once, however often it is contained."""
        seen.add(type_id)
        offset = self._offsets[type_id]
        _, info, _ = _TYPE.unpack_from(self._types, offset)
        # With kind_flag the upper 8 bits of an offset are a bit field's width.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        for index in range(info & 0xFFFF):
            name, kind, bits = _MEMBER.unpack_from(self._types, offset + _TYPE.size + index * _MEMBER.size)
            at = int(bits & mask) // 8
            if name and self._text(name) == member:
                return at
            if not name and kind not in seen and self._head(kind)[0] in (STRUCT, UNION):
                inner = self._member(kind, member, seen)
                if inner is not None:
                    return at + inner
        return None

    def _spell(self, type_id: int) -> str:
        if type_id == 0:
            return "void"
        kind, name, target = self._head(type_id)
        if kind in _QUALIFIERS:
            return self._spell(target)
        if kind == PTR:
            return f"{self._spell(target)} *"
        if kind in (STRUCT, UNION, FWD):
            return f"struct {name}"
        return name

    def _head(self, type_id: int) -> tuple[int, str, int]:
        """Return a type's kind, name, and size or the type it refers to."""
        if not type_id:
            return 0, "", 0
        name, info, target = _TYPE.unpack_from(self._types, self._offsets[type_id])
        return int(info >> 24 & 0x1F), self._text(name), int(target)

    def _text(self, at: int) -> str:
        return self._names[at : self._names.index(b"\0", at)].decode()

    def _named(self, name: str, kind: int) -> int | None:
        # One search for the name, and not the names of 100,000 types.
        place = self._names.find(b"\0" + name.encode() + b"\0") + 1
        while place:
            for type_id in self._by_name.get(place, ()):
                if self._head(type_id)[0] == kind:
                    return type_id
            place = self._names.find(b"\0" + name.encode() + b"\0", place) + 1
        return None

    @cached_property
    def _offsets(self) -> list[int]:
        """Where each type begins, by its id."""
        types, offset, found = self._types, 0, [0]
        unpack, extra = _TYPE.unpack_from, [(_TYPE.size + once, each) for once, each in
                                            (_EXTRA.get(kind, (0, 0)) for kind in range(32))]
        end = len(types)
        while offset < end:
            found.append(offset)
            info = unpack(types, offset)[1]
            once, each = extra[info >> 24 & 0x1F]
            offset += once + each * (info & 0xFFFF)
        return found

    @cached_property
    def _by_name(self) -> dict[int, list[int]]:
        """Types by where their name stands."""
        found: dict[int, list[int]] = {}
        for type_id, offset in enumerate(self._offsets[1:], 1):
            (name,) = struct.unpack_from("<I", self._types, offset)
            if name:
                found.setdefault(name, []).append(type_id)
        return found
