"""Patterns of LeakSanitizer and valgrind mean here what they mean there."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.judge.patterns import glob, template


@pytest.mark.parametrize(("pattern", "text", "found"), [
    ("foo", "a foo b", True),
    ("foo", "fo", False),
    ("^foo", "foobar", True),
    ("^foo", "a foo", False),
    ("foo$", "a foo", True),
    ("foo$", "foobar", False),
    ("foo$", "foofoo", True),
    ("^foo$", "foo", True),
    ("^foo$", "foofoo", False),
    ("a*b", "xaxbx", True),
    ("a*b", "xbxax", False),
    ("^a*b$", "acb", True),
    ("^a*b$", "acbc", False),
    ("^*b", "ab", True),
    ("*", "x", True),
    ("a*$", "xab", True),
    ("a$b", "xa", True),
    ("f(char*)", "f(char*)", True),
    ("a.c", "abc", False),
    ("a?c", "abc", False),
    ("a^", "a^", True),
    ("a", "\nA a", True),
])
def test_template(pattern: str, text: str, found: bool) -> None:
    """A part of the text, `*` any text, `^` its start, `$` its end; nothing else is special."""
    assert bool(template(pattern)(text)) is found


@given(st.lists(st.sampled_from("ab*"), min_size=1).map("".join), st.text("ab", min_size=1))
def test_template_agrees_with_shell_wildcards(pattern: str, text: str) -> None:
    """Without anchors a pattern is what a shell means by it between two `*`; with both, what it means by itself."""
    assert bool(template(pattern)(text)) is fnmatchcase(text, f"*{pattern}*")
    assert bool(template(f"^{pattern}$")(text)) is fnmatchcase(text, pattern)


@pytest.mark.parametrize(("pattern", "text", "found"), [
    ("malloc", "malloc", True), ("mal*", "malloc", True), ("m?lloc", "malloc", True), ("m?lloc", "mlloc", False),
    ("malloc", "xmalloc", False), ("*[a]", "x[a]", True), ("[m]*", "malloc", False), ("*", "", True), ("?", "", False),
])
def test_glob(pattern: str, text: str, found: bool) -> None:
    """The whole text, `*` any text, `?` any character; brackets are not special."""
    assert bool(glob(pattern)(text)) is found


@given(st.lists(st.sampled_from("ab*?"), min_size=1).map("".join), st.text("ab"))
def test_glob_agrees_with_shell_wildcards(pattern: str, text: str) -> None:
    """Where only `*` and `?` are used, a shell means the same."""
    assert bool(glob(pattern)(text)) is fnmatchcase(text, pattern)
