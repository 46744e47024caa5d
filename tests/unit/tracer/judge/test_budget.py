"""The expressions of --fail-on: what they mean, and what is said of one that means nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracer.errors import ExitCode, UsageError
from tracer.judge.budget import FIGURES, MOST_DIGITS, MOST_NESTED, parse
from tracer.report.model import Totals


@dataclass(frozen=True)
class Figures:
    """A site with every figure known."""

    bytes: int = 4096
    count: int = 4
    oldest_s: float | None = 60.0
    growth_bytes_per_s: float | None = 0.5
    verdict: str | None = "growing"


SITE = Figures()
TOTALS = Totals(live_bytes=1 << 20, live_count=100, allocated_bytes=0, allocated_count=0, freed_count=0)


def fails(text: str, site: Figures | None = SITE) -> bool:
    return parse(text).fails(site, TOTALS)


def problem(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(("operator", "below", "equal", "above"), [
    (">", False, False, True), (">=", False, True, True), ("<", True, False, False), ("<=", True, True, False),
    ("==", False, True, False), ("!=", True, False, True),
])
def test_operators(operator: str, below: bool, equal: bool, above: bool) -> None:
    """Each operator is true of the sides of the value that it names, and behind a not of the others."""
    expected = [below, equal, above]
    for text, wanted in ((f"count {operator} 4", expected), (f"not count {operator} 4", [not each for each in expected])):
        budget = parse(text)
        assert [budget.fails(Figures(count=count), TOTALS) for count in (3, 4, 5)] == wanted


@pytest.mark.parametrize(("text", "least"), [
    ("bytes >= 1k", 1024), ("bytes >= 1K", 1024), ("bytes >= 2 kB", 2048), ("bytes >= 1KiB", 1024), ("bytes >= 7", 7),
    ("bytes >= 7b", 7), ("bytes >= 1.5M", 3 << 19), ("bytes >= 1mib", 1 << 20), ("bytes >= 1G", 1 << 30),
    ("bytes >= 2TB", 1 << 41), ("bytes >= 0.5k", 512), ("bytes>=1.5", 2), ("count >= 12", 12),
])
def test_sizes(text: str, least: int) -> None:
    """Sizes have the units of every other size option, powers of 1024; the bound is exact."""
    budget = parse(text)
    site = Figures(bytes=least, count=least)
    assert budget.fails(site, TOTALS)
    assert not budget.fails(replace(site, bytes=least - 1, count=least - 1), TOTALS)


@pytest.mark.parametrize(("text", "seconds"), [
    ("500ms", 0.5), ("1 ms", 0.001), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("0.1", 0.1),
])
def test_times(text: str, seconds: float) -> None:
    """A time is in seconds unless it has a unit, where m is minutes, not mega."""
    budget = parse(f"oldest_s == {text}")
    assert budget.fails(Figures(oldest_s=seconds), TOTALS)
    assert not budget.fails(Figures(oldest_s=seconds * 1.001), TOTALS)


def test_a_slow_growth_is_not_rounded_away() -> None:
    """Half a byte a second is more than 0.4 and less than 0.6."""
    assert fails("growth_bytes_per_s > 0.4 and growth_bytes_per_s < 0.6")


def test_sums_have_their_own_names() -> None:
    """total_bytes and total_count are those of all sites, bytes and count those of one."""
    assert fails("total_bytes == 1M and bytes == 4k and total_count == 100 and count == 4")


def test_a_site_and_the_sums_can_be_mixed() -> None:
    """A mixed expression is evaluated for a site, with the sums."""
    budget = parse("bytes>0 and total_bytes>1k")
    assert not budget.over_total
    assert budget.fails(SITE, TOTALS)
    assert not budget.fails(SITE, replace(TOTALS, live_bytes=10))


@pytest.mark.parametrize(("text", "over_total"), [
    ("total_bytes>1", True), ("total_bytes>1 or not total_count>5", True), ("total_bytes>1 or count>5", False),
    ("bytes>1", False),
])
def test_over_total(text: str, over_total: bool) -> None:
    """An expression over nothing but sums says so, and then it needs no site."""
    budget = parse(text)
    assert budget.over_total is over_total
    if over_total:
        assert budget.fails(None, TOTALS) is budget.fails(SITE, TOTALS) is True


def test_it_says_what_it_needs() -> None:
    """The names that it compares, each once, so that nothing is measured in vain."""
    assert parse("bytes>0 or (oldest_s>5m and not verdict==steady) or bytes>1").needs == {"bytes", "oldest_s", "verdict"}


def test_the_text_is_kept() -> None:
    """The reason given for a failure is what the user wrote."""
    assert parse(" bytes>0 ").text == " bytes>0 "


@pytest.mark.parametrize(("text", "expected"), [
    ("count==4 or count==5 and count==6", True), ("(count==4 or count==5) and count==6", False),
    ("not count==4 or count==4", True), ("not (count==4 or count==4)", False), ("not not count==4", True),
    ("not count==5 and not count==6", True), ("not (count==4 and count==5)", True), ("((count==4))", True),
    ("count==5or count==4and(count==4)", True),
])
def test_precedence(text: str, expected: bool) -> None:
    """not binds closer than and, and than or; parentheses closer than all."""
    assert fails(text) is expected


@pytest.mark.parametrize("word", ["lost", "growing", "steady", "undecided"])
def test_verdicts(word: str) -> None:
    """A verdict is compared with each of its words."""
    assert parse(f"verdict == {word}").fails(Figures(verdict=word), TOTALS)
    assert not parse(f"verdict != {word}").fails(Figures(verdict=word), TOTALS)
    assert parse(f"verdict != {word}").fails(Figures(verdict="other"), TOTALS)


UNKNOWN = Figures(oldest_s=None, growth_bytes_per_s=None, verdict=None)


@pytest.mark.parametrize("operator", [">", ">=", "<", "<=", "==", "!="])
@pytest.mark.parametrize("name", ["oldest_s", "growth_bytes_per_s"])
@pytest.mark.parametrize("nots", ["", "not ", "not not "])
def test_what_is_not_known_never_fails(name: str, operator: str, nots: str) -> None:
    """A comparison with an unknown figure is false, also behind a not: it is no leak that nothing was measured."""
    assert not fails(f"{nots}{name} {operator} 0", UNKNOWN)
    assert fails(f"{nots}{name} {operator} 0 or count == 4", UNKNOWN)


@pytest.mark.parametrize("text", ["verdict == steady", "verdict != steady", "not verdict == steady", "not verdict != lost"])
def test_no_verdict(text: str) -> None:
    """Without a verdict, every comparison with one is false."""
    assert not fails(text, UNKNOWN)


@pytest.mark.parametrize("text", ["bytes>=0", "not bytes>0"])
def test_no_site(text: str) -> None:
    """Without a site, the figures of a site are not known."""
    assert not fails(text, None)


@pytest.mark.parametrize(("text", "column", "expected"), [
    ("", 0, "bytes, count, oldest_s, growth_bytes_per_s, verdict, total_bytes, total_count, misuses, 'not' or '('"),
    ("   ", 0, "bytes, "),
    ("byte > 0", 0, "bytes, "),
    ("bytes", 5, ">, >=, <, <=, == or !="),
    ("bytes  ", 5, ">, >=, "),
    ("bytes = 5", 6, ">, >=, "),
    ("bytes >", 7, "a size in bytes, such as 4096, 64k or 1.5M"),
    ("bytes > many", 8, "a size in bytes"),
    ("bytes > -1", 8, "a size in bytes"),
    ("bytes > 5q", 9, "a size in bytes"),
    ("bytes > 5ib", 9, "a size in bytes"),
    ("bytes > 1e6", 9, "a size in bytes"),
    ("bytes > ٣", 8, "a size in bytes"),
    ("count > 5k", 9, "a number without a unit"),
    ("oldest_s > 5k", 12, "a time, such as"),
    ("verdict > lost", 8, "== or !="),
    ("verdict == leaked", 11, "lost, growing, steady or undecided"),
    ("verdict == 5", 11, "lost, "),
    ("bytes > 5 count > 1", 10, "a size in bytes"),
    ("bytes > 5k count > 1", 11, "'and', 'or' or the end"),
    ("verdict == lost count", 16, "'and', 'or' or the end"),
    ("bytes > 5)", 9, "'and', 'or' or the end"),
    ("(bytes > 5", 10, "'and', 'or' or ')'"),
    ("bytes > 5 and", 13, "bytes, "),
    ("bytes > 5 && count > 1", 10, "'and', 'or' or the end"),
    ("5 < bytes", 0, "bytes, "),
    ("not", 3, "bytes, "),
    ("bytes > 1.5.2", 11, "'and', "),
    (f"bytes > {'9' * (MOST_DIGITS + 1)}", 8, f"a number of no more than {MOST_DIGITS} digits"),
    (f"bytes > 0.{'9' * 5000}", 8, "a number of no more than"),
    ("(" * (MOST_NESTED + 1) + "bytes>0", MOST_NESTED, f"no more than {MOST_NESTED} parentheses"),
    ("a\tb > 0", 0, "bytes, "),
    ("bytes\n> \x1b[2J", len("bytes\\x0a> "), "a size in bytes"),
])
def test_what_has_no_meaning(text: str, column: int, expected: str) -> None:
    """It is wrong usage, shown with a mark under the place, what was expected there, and no control character of it."""
    error = problem(text)
    assert error.exit_code == ExitCode.USAGE
    sentence, shown, mark = error.message.split("\n")
    assert f"expected there: {expected}" in sentence
    assert shown.isprintable()
    assert mark == f"  {' ' * column}^"
    assert "--fail-on" in sentence and "--fail-on" in error.remedy


def test_the_expression_is_shown() -> None:
    """The line above the mark is the expression as written."""
    assert problem("bytes > 5 & count").message.split("\n")[1] == "  bytes > 5 & count"


def test_the_example_in_the_remedy_is_one() -> None:
    """What the remedy tells to write can be read."""
    pieces = problem("").remedy.split("'")[1::2]
    assert len(pieces) == 2
    assert [parse(piece).over_total for piece in pieces] == [False, True]


def test_as_many_parentheses_as_allowed() -> None:
    """The most parentheses that are allowed are no problem, nor are thousands of parts and of nots."""
    assert fails("(" * MOST_NESTED + "bytes>0" + ")" * MOST_NESTED)
    assert fails(" and ".join(["bytes>0"] * 5000))
    assert fails("not " * 10_000 + "bytes>0")


PIECES = [*FIGURES, "and", "or", "not", "(", ")", ">", ">=", "<", "<=", "==", "!=", "=", "0", "1.5", "9" * 30, "k", "MiB",
          "ms", "m", "lost", "steady", " ", "\n", ".", "é", "\udcff", "-"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.sampled_from(PIECES)).map(" ".join)))
@example("bytes>" + "1" * 10_000)
@example("(" * 100_000)
def test_any_text(text: str) -> None:
    """Whatever is given, it is an expression or wrong usage, never another exception."""
    try:
        budget = parse(text)
    except UsageError as error:
        assert error.exit_code == ExitCode.USAGE
        assert error.message.count("\n") == 2
    else:
        assert budget.needs and budget.needs <= set(FIGURES)
        assert budget.fails(SITE, TOTALS) in (True, False)


COMPARISONS = st.tuples(st.sampled_from(["bytes", "count", "total_bytes"]), st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
                        st.integers(0, 3).map(str)).map(" ".join)
EXPRESSIONS = st.recursive(COMPARISONS, lambda inner: st.one_of(
    inner.map("not {}".format), inner.map("({})".format),
    st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)), max_leaves=12)


@given(EXPRESSIONS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_it_means_what_python_means(text: str, size: int, count: int, total: int) -> None:
    """Where all figures are known, an expression is true exactly where the same words are true in Python."""
    expected = eval(text, {"bytes": size, "count": count, "total_bytes": total})
    assert parse(text).fails(Figures(bytes=size, count=count), replace(TOTALS, live_bytes=total)) is expected
