"""Long names: what is in brackets goes first, and a function's own name stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.report.terminal_names import CUT, cut, middle

NESTED = "std::vector<std::map<std::string, int>> company::Cache<std::string, std::vector<int>>::remember(std::string const&, int)"


@pytest.mark.parametrize(("room", "expected"), [
    (200, NESTED),
    (110, "std::vector<std::map<…>> company::Cache<std::string, std::vector<…>>::remember(std::string const&, int)"),
    (60, "std::vector<…> company::Cache<…>::remember(…)"),
    (40, "company::Cache<…>::remember(…)"),
    (25, "…::Cache<…>::remember(…)"),
    (20, "…::remember(…)"),
    (9, "…::r…r(…)"),
])  # fmt: skip
def test_order(room: int, expected: str) -> None:
    """The innermost brackets are emptied first, then all; then the returned type goes, then namespaces, then the middle."""
    found = cut(NESTED, room)
    assert found == expected
    assert len(found) <= room


@pytest.mark.parametrize(("name", "room", "expected"), [
    ("std::ostream& std::operator<< <std::char_traits<char>>(std::ostream&, char const*)", 30, "std::operator<< <…>(…)"),
    ("long::long_namespace::Type::operator()(std::string const&, int) const", 45, "…::long_namespace::Type::operator()(…) const"),
    ("(anonymous namespace)::worker(std::string const&, std::string const&)", 40, "(anonymous namespace)::worker(…)"),
    ("<alloc::vec::Vec<T> as core::clone::Clone>::clone", 20, "<…>::clone"),
    ("a_name_without_any_brackets_that_is_long", 21, "a_name_wit…at_is_long"),
    ("f(A<(x<3)>, std::string, std::string, std::string)", 10, "f(…)"),
])  # fmt: skip
def test_names_with_brackets_of_their_own(name: str, room: int, expected: str) -> None:
    """Operators, anonymous namespaces, Rust's types and comparisons are not taken for what they look like."""
    found = cut(name, room)
    assert found == expected
    assert len(found) <= room


@given(st.text(alphabet="ab<>():, o&*~operator", max_size=200), st.integers(1, 90))
def test_any_name_fits(name: str, room: int) -> None:
    """Whatever a program calls its functions, the name fits, and one that fitted is untouched."""
    found = cut(name, room)
    assert len(found) <= room
    assert found == name or len(name) > room


def test_middle() -> None:
    """Beginning and end stay."""
    assert middle("abcdefgh", 5) == f"ab{CUT}gh"
    assert middle("abc", 1) == CUT
