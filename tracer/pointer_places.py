"""Where a pointer was found, as values that say it in a short phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class GlobalPlace:
    """In a variable of a program or library, or in a section or just the file where no symbol covers it.

    name: of the variable, of the section (is_symbol False), or None. offset: in bytes from the start of what is named;
    without a name, the address as the file has it. module: the file's path; all texts are safe to print.
    """

    kind: ClassVar[str] = "global"
    address: int
    name: str | None
    offset: int
    module: str
    is_symbol: bool = True

    def words(self) -> str:
        """Return `global registry+0x10 [web]`, `libfoo.so .bss+0x40` or `libfoo.so+0x4040`."""
        module = short_module(self.module)
        if self.name is None:
            return f"{module}+{self.offset:#x}"
        if not self.is_symbol:
            return f"{module} {_moved(self.name, self.offset)}"
        return f"global {_moved(self.name, self.offset)} [{module}]"


@dataclass(frozen=True, slots=True)
class StackPlace:
    """On a thread's stack, in the frame of a function where that is known.

    cfa_offset: from the canonical frame address (the caller's stack pointer) of that frame, in bytes, negative.
    code: stands for a function without a name, `libfoo.so+0x1170`.
    """

    kind: ClassVar[str] = "stack"
    address: int
    tid: int
    function: str | None = None
    cfa_offset: int | None = None
    code: str | None = None

    def words(self) -> str:
        """Return `stack of thread 4712 in serve_client()`."""
        return f"stack of thread {self.tid}{_in_function(self.function, self.code)}"


@dataclass(frozen=True, slots=True)
class RegisterPlace:
    """In a register of a thread; function: the one that it was stopped in. code: as in StackPlace."""

    kind: ClassVar[str] = "register"
    tid: int
    register: str
    function: str | None = None
    code: str | None = None

    def words(self) -> str:
        """Return `register rbx of thread 4712 in main()`."""
        return f"register {self.register} of thread {self.tid}{_in_function(self.function, self.code)}"


@dataclass(frozen=True, slots=True)
class ThreadLocalPlace:
    """In a thread's own copy of the thread-local variables; name and module are None where they cannot be told."""

    kind: ClassVar[str] = "thread-local"
    address: int
    tid: int
    name: str | None = None
    offset: int = 0
    module: str | None = None
    is_symbol: bool = True

    def words(self) -> str:
        """Return `thread-local session`, `web .tbss+0x8 of thread 4712` or `thread-local memory of thread 4712`."""
        if self.name is None or self.module is None:
            return f"thread-local memory of thread {self.tid}"
        if not self.is_symbol:
            return f"{short_module(self.module)} {_moved(self.name, self.offset)} of thread {self.tid}"
        return f"thread-local {_moved(self.name, self.offset)}"


@dataclass(frozen=True, slots=True)
class MemoryPlace:
    """In memory that is none of the above and was not seen being allocated: mostly it was there before the trace.

    mapping: its name as the kernel has it, empty for anonymous memory, None where nothing is mapped; safe to print.
    """

    kind: ClassVar[str] = "memory"
    address: int
    mapping: str | None

    def words(self) -> str:
        """Return `untracked memory in [heap]` or `untracked anonymous memory at 0x7f…`."""
        if self.mapping is None:
            return f"address {self.address:#x}, where nothing is mapped"
        if not self.mapping:
            return f"untracked anonymous memory at {self.address:#x}"
        return f"untracked memory in {self.mapping}"


PointerPlace = GlobalPlace | StackPlace | RegisterPlace | ThreadLocalPlace | MemoryPlace


@dataclass(frozen=True, slots=True)
class ChainBlock:
    """A tracked block on the way from a root.

    size: in bytes as asked for. offset: where in it the pointer to the next block stands, None in the last one.
    function: the one that allocated it, None where that has no name.
    """

    address: int
    size: int
    offset: int | None = None
    function: str | None = None

    def words(self) -> str:
        """Return `block of 4,096 bytes allocated by make_table() at +0x40`."""
        by = f" allocated by {with_brackets(self.function)}" if self.function else f" at {self.address:#x}"
        # An address is followed by its offset as in a debugger: `at 0x5581c0de+0x40`.
        at = "" if self.offset is None else f" at {self.offset:+#x}" if self.function else f"{self.offset:+#x}"
        return f"block of {self.size:,} {'byte' if self.size == 1 else 'bytes'}{by}{at}"


def chain(root: PointerPlace, blocks: Sequence[ChainBlock]) -> tuple[str, ...]:
    """Return one line for the root and one for each block on the way to the last."""
    return root.words(), *(block.words() for block in blocks)


def short_module(path: str) -> str:
    """Return the last part of a path, the whole text where it has none."""
    return path.rstrip("/").rpartition("/")[2] or path


def with_brackets(function: str) -> str:
    """Return the name of a function with `()`, unless it has its parameters already."""
    return function if "(" in function.replace("(anonymous namespace)", "") else f"{function}()"


def _in_function(function: str | None, code: str | None) -> str:
    where = with_brackets(function) if function else code
    return f" in {where}" if where else ""


def _moved(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name
