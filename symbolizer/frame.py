"""One frame of a stack as people read it, or the reason why it has no name."""

from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """Why a frame has no function name."""

    UNMAPPED = "unmapped"
    """No file was mapped at the address when the mappings were read."""
    NO_SYMBOLS = "no_symbols"
    """The file has no function symbol at all."""
    NOT_COVERED = "not_covered"
    """The file has symbols, and none of them covers the address."""
    GONE = "gone"
    """The file could no longer be opened, because it or its process no longer exists."""
    UNREADABLE = "unreadable"
    """The file exists and could not be read, or is not an ELF file for this machine."""
    UNWIND_STOPPED = "unwind_stopped"
    """The stack walk ended here before the outermost function."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a stack; a call that the compiler inlined has a frame of its own at the same address.

    All texts are safe to print to a terminal. `offset` is in bytes from the function's start to the address,
    and None for an inlined call, which has no start of its own. `module` is the full path of the file,
    `build_id` its build id in hex, `module_offset` the address as the file has it, which addr2line takes. `why` is set
    exactly when `function` is None. `repeats` is how many times in a row the cycle of calls that this frame ends was on
    the stack; more than 1 only where recursion was folded.
    """

    address: int
    function: str | None = None
    offset: int | None = None
    module: str | None = None
    build_id: str | None = None
    file: str | None = None
    line: int | None = None
    inlined: bool = False
    why: Why | None = None
    module_offset: int | None = None
    repeats: int = 1
