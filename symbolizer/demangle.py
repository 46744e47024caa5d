"""Linker names become the names that programmers wrote: C++ and Rust, with clone suffixes kept in brackets."""

import contextlib
import io
import re
from functools import lru_cache

from symbolizer.printable import printable

# What compilers append to a function they split, cloned or renamed. Only these: a dot also separates
# package and function in Go, and is part of other names.
_CLONE = re.compile(
    r"((?:\.(?:cold|part|isra|constprop|lto_priv|localalias|clone|unlikely|hot|warm|llvm|__uniq)(?:\.[0-9]+)*)+)$"
)
# A number made from the module's hash says nothing to a reader.
_HASHED_CLONE = re.compile(r"\.(?:llvm|__uniq)(?:\.[0-9]+)*")
_RUST_LEGACY = re.compile(r"_ZN.+17h[0-9a-f]{16}E")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")


@lru_cache(maxsize=65536)
def demangle(name: str) -> str:
    """Return the name as it stands in the source, safe to print; a name that cannot be read comes back as it is.

    A symbol version (`@GLIBC_2.2.5`) is dropped; a clone suffix is shown as `f(int) [.cold]`.
    """
    base = name.partition("@")[0] or name
    clone = _CLONE.search(base)
    suffix = ""
    if clone is not None and clone.start() > 0:
        base = base[: clone.start()]
        suffix = _HASHED_CLONE.sub("", clone[1])
    text = _demangle_base(base)
    return printable(f"{text} [{suffix}]" if suffix else text)


def _demangle_base(base: str) -> str:
    if base.startswith("_R") or _RUST_LEGACY.fullmatch(base):
        text = _demangle_rust(base)
        if text is not None:
            return text
    if base.startswith("_Z") and "\0" not in base:
        # The libraries are loaded when the first name needs them: that takes longer than reading a small report.
        import cxxfilt

        with contextlib.suppress(cxxfilt.Error, UnicodeError):
            return str(cxxfilt.demangle(base))
    return base


def _demangle_rust(base: str) -> str | None:
    import rust_demangler

    try:
        # The library prints the half-made name when it gives up.
        with contextlib.redirect_stdout(io.StringIO()):
            text = str(rust_demangler.demangle(base))
    except Exception:
        return None
    return _RUST_HASH.sub("", text) or None
