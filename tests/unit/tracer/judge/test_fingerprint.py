"""A fingerprint is the same after a rebuild, and another one for another site."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from tracer.judge.fingerprint import fingerprint, function_name, module_name

SITE = (
    Frame(0x401234, "make_node(int)", 18, "/srv/1.4/bin/server", "aa", "/build/1/node.c", 7, inlined=True),
    Frame(0x401299, "parse", 40, "/srv/1.4/bin/server", "aa", "/build/1/parse.c", 70),
    Frame(0x7F0000000010, "main", 4, "/usr/lib/libfoo.so.1.2.3", "bb"),
)


def test_a_known_value() -> None:
    """Saved baselines stay valid: the same on every Python and every machine, 16 hex digits."""
    assert fingerprint(SITE) == "5b0fdd7f65d58fd8"


@given(st.integers(0, 1 << 48), st.integers(0, 99), st.text("abc/", max_size=5), st.booleans(), st.integers(1, 9))
def test_a_rebuild_changes_nothing(address: int, number: int, text: str, inlined: bool, repeats: int) -> None:
    """Addresses, offsets, lines, folders, build ids, inlining and the depth of recursion are no part of it."""
    rebuilt = tuple(replace(
        frame, address=address, offset=number, build_id=text, file=text, line=number, inlined=inlined, repeats=repeats,
        module_offset=address, module=f"/{text}/{(frame.module or '').rpartition('/')[2]}") for frame in SITE)
    assert fingerprint(rebuilt) == fingerprint(SITE)


@pytest.mark.parametrize(("one", "other"), [
    ("f(int)", "f(int) [.cold]"),
    ("f(int)", "f(int) [.isra.0.cold]"),
    ("f(int)", "_Z1fi"),
    ("f", "f.constprop.0"),
    ("std::vector<int, std::allocator<int> >::grow()", "std::vector<int,std::allocator<int>>::grow()"),
    ("f(char const *)", "f(char const*)"),
    ("malloc", "malloc@@GLIBC_2.2.5"),
])
def test_spellings_of_a_function(one: str, other: str) -> None:
    """Clones, versions, mangling and blanks between signs do not make another function."""
    assert function_name(one) == function_name(other)


@pytest.mark.parametrize(("one", "other"), [
    ("f(int)", "f(long)"), ("f(unsigned long)", "f(unsignedlong)"), ("f<int>()", "f<long>()"), ("f [x]", "f"), ("f", "g"),
])
def test_different_functions(one: str, other: str) -> None:
    """Overloads and instantiations are functions of their own."""
    assert function_name(one) != function_name(other)


@pytest.mark.parametrize(("module", "name"), [
    ("/usr/lib/libfoo.so.1.2.3", "libfoo.so"),
    ("/lib/libc-2.31.so", "libc.so"),
    ("libpng16.so.16", "libpng16.so"),
    ("/opt/server-1.4.2", "server"),
    ("/usr/bin/python3.11", "python3.11"),
    ("/usr/bin/g++-12", "g++-12"),
    ("/opt/x.cpython-311-x86_64-linux-gnu.so", "x.cpython-311-x86_64-linux-gnu.so"),
    ("/srv/app (deleted)", "app"),
    ("/tmp/perf-1234.map", "perf.map"),
    ("[vdso]", "[vdso]"),
    (None, ""),
])
def test_names_of_files(module: str | None, name: str) -> None:
    """Folder, version and the number of the process go; what tells two files apart stays."""
    assert module_name(module) == name


def frames(*rows: tuple[str | None, str | None]) -> tuple[Frame, ...]:
    return tuple(Frame(1, function, module=module, why=None if function else Why.NO_SYMBOLS) for function, module in rows)


def test_outermost_nameless_frames_count_once() -> None:
    """How many frames a stripped start has says nothing; of another file they do, and inside they do."""
    once = fingerprint(frames(("f", "a"), (None, "b")))
    assert fingerprint(frames(("f", "a"), (None, "b"), (None, "b"))) == once
    assert fingerprint(frames(("f", "a"), (None, "b"), (None, "c"))) != once
    assert fingerprint(frames((None, "b"), ("f", "a"))) != fingerprint(frames((None, "b"), (None, "b"), ("f", "a")))


def test_recursion_of_any_depth() -> None:
    """A function that calls itself, shown once or often, is one; so is a function and the part split from it."""
    once = fingerprint(frames(("walk", "a"), ("main", "a")))
    assert fingerprint(frames(("walk", "a"), ("walk [.part.0]", "a"), ("walk", "a"), ("main", "a"))) == once
    assert fingerprint(frames(("walk", "a"), ("main", "a"), ("walk", "a"))) != once


@given(st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=4))
def test_any_text(rows: list[tuple[str | None, str | None]]) -> None:
    """Every text has one, surrogates too."""
    value = fingerprint(frames(*rows, ("\udc80", "\ud800")))
    assert len(value) == 16 and set(value) <= set("0123456789abcdef")


def test_order_and_borders_count() -> None:
    """Which function called which matters, and where a name ends."""
    values = [fingerprint(frames(*rows)) for rows in (
        [("a", "x"), ("b", "x")], [("b", "x"), ("a", "x")], [("ab", "x")], [("a", "bx")], [("a", "x")], [],
        [("a;1:b", "x")], [("a,1:x;1:b", "x")])]
    assert len(set(values)) == len(values)
