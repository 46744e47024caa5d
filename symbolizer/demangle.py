"""Linker names become the names that programmers wrote: C++ and Rust, with clone suffixes kept in brackets.

Names come from strangers' files, and the demangler in libstdc++ never ends for some that are short: valid ones in which
each part has the part before it twice, and invalid ones with a scope in an expression. So names in C++ are looked at
before they are read. rustc's demangler, behind pyderust, stops by itself (m, 2026: 4 µs a name; the older
rust-demangler takes 133 µs, is wrong for one name in 10, and does not end for a name of 180 bytes).
"""

import contextlib
import ctypes
import re
from functools import cache, lru_cache
from typing import Any, Final

from symbolizer.choices import Style
from symbolizer.printable import printable

#: Longer names are not read, and longer texts are cut, in characters. Compilers' own names stay far below.
LONGEST: Final = 65536
#: A short name keeps everything up to this length, in characters.
READABLE: Final = 60

# What compilers append to a function they split, cloned or renamed. Only these: a dot also separates
# package and function in Go, and is part of other names.
_CLONE = re.compile(
    r"((?:\.(?:cold|part|isra|constprop|lto_priv|localalias|clone|unlikely|hot|warm|llvm|__uniq)(?:\.[0-9]+)*)+)$"
)
#: Characters of all the suffixes of one name; looked for further ahead, they would take quadratic time to find.
_LONGEST_CLONE: Final = 256
# A number made from the module's hash says nothing to a reader.
_HASHED_CLONE = re.compile(r"\.(?:llvm|__uniq)(?:\.[0-9]+)*")
#: How names in Rust begin and, in the old scheme, which is that of C++ with a hash, end.
_RUST = re.compile(r"_R[0-9A-Z]|_ZN.+17h[0-9a-f]{16}E\Z", re.DOTALL)
#: A member of a type in an expression (Itanium C++ ABI, 5.1.6): `_Z1fIXsr1aDEEvv` never ends. One name in 300 looks
#: like one, most from enable_if, and stays as the linker knows it.
_SCOPE_IN_EXPRESSION = re.compile(r"[XDA].*sr", re.DOTALL)
#: A reference to an earlier part of the name (the same, 5.1.8 and 5.1.5).
_REFERENCE = re.compile(r"[ST][0-9A-Z]{0,12}_")
#: C++ names that could grow past this many characters are not read. Of 106,000 names in libLLVM, node and libstdc++
#: none is estimated to; so much is written in less than 0.2 s.
_MOST_WRITTEN: Final = 1 << 24

_STD_STRING = re.compile(
    r"std::(?:__cxx11::|__1::)?basic_string<(char|wchar_t), std::(?:__1::)?char_traits<\1>, "
    r"std::(?:__1::)?allocator<\1> ?>"
)
# Inline namespaces and tags that only tell the linker which ABI is meant.
_ABI = re.compile(r"\[abi:\w+\]|(?<=\bstd::)(?:__cxx11|__1)::")
#: Brackets, and what looks like one and is none.
_BRACKET = re.compile(r"(?<!\w)operator(?:\(\)|\[\]|->\*?|<=>|<<=?|>>=?|<=|>=|<|>)|->|[<>(){}\[\]]")
_AFTER_OPERATOR = re.compile(r"(?<!\w)operator[^\w\s]+ $")
_POINTER = re.compile(r"\((?:[\w:]+::)?[*&]|\(anonymous namespace\)")
_OPENER: Final = {">": "<", ")": "(", "}": "{", "]": "["}


def demangle(name: str, style: Style = Style.FULL) -> str:
    """Return the name as it stands in the source, safe to print; a name that cannot be read comes back as it is.

    A symbol version (`@GLIBC_2.2.5`) is dropped, `@plt` is not; a clone suffix is shown as `f(int) [.cold]`.
    What is longer than LONGEST is cut, and ends in an ellipsis.
    """
    if name[:1] != "_" and len(name) <= LONGEST and name.isascii() and name.isidentifier():
        # A name in C, as most are.
        return name
    if len(name) > LONGEST:
        # Such a name would also stay in the cache.
        return printable(_cut(name))
    return _demangle(name, style)


@lru_cache(maxsize=65536)
def _demangle(name: str, style: Style) -> str:
    plt = "@plt" if name.endswith("@plt") and name != "@plt" else ""
    base = name.partition("@")[0] or name
    if style is Style.NONE:
        return printable(base + plt)
    clone = _CLONE.search(base, max(0, len(base) - _LONGEST_CLONE))
    suffix = ""
    if clone is not None and clone.start() > 0:
        base = base[: clone.start()]
        suffix = _HASHED_CLONE.sub("", clone[1])
    text = _cut(_read(base))
    # Other languages, and the code that runtimes make, use brackets for other things.
    if style is Style.SHORT and (text != base or "::" in text):
        text = shorten(text)
    return printable((f"{text} [{suffix}]" if suffix else text) + plt)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _read(base: str) -> str:
    if "\0" in base:
        return base
    # The libraries are loaded when the first name needs them: that takes longer than reading a small report.
    if _RUST.match(base):
        import pyderust

        with contextlib.suppress(pyderust.DemangleError, UnicodeError):
            return str(pyderust.demangle(base))
    if base.startswith("_Z") and _written_length(base) <= _MOST_WRITTEN and not _SCOPE_IN_EXPRESSION.search(base):
        return _read_cxx(base) or base
    return base


def _read_cxx(name: str) -> str | None:
    """Return what the C++ runtime makes of a name, None if it cannot read it, as if it has more than 1 KB."""
    library, free = _cxx_runtime()
    status = ctypes.c_int()
    text = library.__cxa_demangle(name.encode("utf-8", "surrogateescape"), None, None, ctypes.byref(status))
    if not text:
        return None
    try:
        return ctypes.string_at(text).decode("utf-8", "backslashreplace")
    finally:
        free(text)


@cache
def _cxx_runtime() -> tuple[Any, Any]:
    """Return libstdc++, which bcc brings along, and free().

    The library cxxfilt calls the same function, but asks gcc and ldconfig where it is, which takes 25 ms and more.
    """
    library: Any = ctypes.CDLL("libstdc++.so.6")
    # Not by attribute: within a class Python would change the name.
    demangler = library["__cxa_demangle"]
    demangler.restype, demangler.argtypes = ctypes.c_void_p, (ctypes.c_char_p, *[ctypes.c_void_p] * 3)
    library.__cxa_demangle = demangler
    free = ctypes.CDLL(None).free
    free.restype, free.argtypes = None, (ctypes.c_void_p,)
    return library, free


def _written_length(base: str) -> int:
    """Return a length in characters that a C++ name does not exceed by much when all its references are written out.

    What a reference stands for ends before its first use, so it is no longer than all that was written up to there.
    """
    total = end = 0
    longest: dict[str, int] = {}
    for reference in _REFERENCE.finditer(base):
        total += reference.start() - end
        end = reference.end()
        total += longest.setdefault(reference[0], total)
    return total + len(base) - end


def shorten(text: str) -> str:
    """Return a C++ or Rust name without what only the linker needs, and past READABLE without what is in brackets.

    Template arguments go first, then parameters. Brackets that do not pair leave the name as it is.
    """
    text = _ABI.sub("", _STD_STRING.sub(lambda found: f"std::{'w' * (found[1] != 'char')}string", text))
    for parameters in (False, True):
        if len(text) <= READABLE:
            break
        text = _collapse(text, parameters=parameters)
    return text


def _collapse(text: str, *, parameters: bool) -> str:
    """Return the text with an ellipsis for what is between outermost template brackets, and between round ones."""
    parts: list[str] = []
    opened: list[str] = []
    shown_to = 0
    # How many brackets were open when the one opened whose content is left out; 0 where the text is shown.
    hidden = 0
    for found in _BRACKET.finditer(text):
        token = found[0]
        if len(token) > 1:
            continue
        if token in "<({[":
            opened.append(token)
            if not hidden and _hides(text, found.start(), parameters):
                hidden = len(opened)
                parts.append(text[shown_to : found.end()])
                shown_to = found.end()
            continue
        opener = _OPENER[token]
        if token == ">" and opened and opened[-1] != "<":
            continue  # greater than
        while token != ">" and opened and opened[-1] == "<":
            opened.pop()  # less than
        if not opened or opened.pop() != opener:
            return text
        if hidden > len(opened):
            if hidden == len(opened) + 1:
                content = text[shown_to : found.start()]
                parts.append("…" if len(content) > 1 else content)
                shown_to = found.start()
            hidden = 0
    return text if opened else "".join(parts) + text[shown_to:]


def _hides(text: str, at: int, parameters: bool) -> bool:
    """Return whether the content of the bracket that opens there is left out."""
    if text[at] == "(":
        # A function that returns a pointer to a function has its name in round brackets.
        return parameters and not _POINTER.match(text, at)
    if text[at] != "<":
        return False
    # Rust: <Type as Trait>::method and module::<impl Trait for Type>::method.
    if at == 0 or text.startswith("impl ", at + 1):
        return False
    return text[at - 1] not in " (<,&*[{" or _AFTER_OPERATOR.search(text, max(0, at - 20), at) is not None
