"""A name for a call site that stays the same when the program is built again."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile

from symbolizer.demangle import demangle
from symbolizer.frame import Frame

# What is hashed, and how. Another number makes every fingerprint another one, so that none is equal by chance.
_VERSION = "1"
# demangle() shows the clones that a compiler made as `f(int) [.cold]`; which there are changes with every build.
_CLONE = re.compile(r" \[\.[^\]]*\]$")
# `vector<int, allocator<int> >` and `vector<int,allocator<int>>`: spelling differs between demanglers and debug info.
_SPACE = re.compile(r"\s+(?=\W)|(?<=\W)\s+")
# libz.so.1.2.13, libc-2.31.so and server-1.4.2: what an update renames.
_LIBRARY_VERSION = re.compile(r"(?:-[0-9][0-9.]*)?\.so(?:\.[0-9]+)*$")
_PROGRAM_VERSION = re.compile(r"-[0-9]+(?:\.[0-9]+)+$")
# /tmp/perf-PID.map and PID's jitdump files name code made at run time; another run has another pid.
_OF_PROCESS = re.compile(r"^(perf|jit|jitted)-[0-9]+(?:-[0-9]+)?(?=\.)")

# Names that are rewritten once: stacks share most of theirs.
_REMEMBERED = 1 << 14


def fingerprint(frames: tuple[Frame, ...]) -> str:
    """Return 16 hex digits that depend on the functions and the files on the stack, and on nothing a rebuild changes.

    Not part of it: addresses, offsets, lines, build ids, folders, versions of libraries, clone suffixes, whether a call
    was inlined, and how often a function called itself. A frame without a name is its file alone; such frames in a row
    of one file count once where the stack begins, because how many there are says nothing about the site.
    """
    outermost = sum(1 for _ in takewhile(lambda frame: frame.function is None, reversed(frames)))
    parts: list[tuple[str, str]] = []
    for position, frame in enumerate(frames):
        part = ("" if frame.function is None else function_name(frame.function), module_name(frame.module))
        collapses = frame.function is not None or position >= len(frames) - outermost
        if not (collapses and parts and parts[-1] == part):
            parts.append(part)
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    text = _VERSION + "".join(f";{len(function)}:{function},{len(module)}:{module}" for function, module in parts)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@lru_cache(_REMEMBERED)
def function_name(function: str) -> str:
    """Return a function's name in one spelling, without what the compiler added when it split or copied it."""
    return _SPACE.sub("", plain_name(demangle(function)))


def plain_name(function: str) -> str:
    """Return a demangled name without its clone suffix."""
    return _CLONE.sub("", function)


@lru_cache(_REMEMBERED)
def module_name(module: str | None) -> str:
    """Return a file's base name without versions and process numbers: libz.so for /lib/libz.so.1.2.13."""
    base = (module or "").removesuffix(" (deleted)").rpartition("/")[2]
    base = _LIBRARY_VERSION.sub(".so", base)
    return _OF_PROCESS.sub(r"\1", _PROGRAM_VERSION.sub("", base))
