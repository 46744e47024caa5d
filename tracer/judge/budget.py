"""What a run may hold before it fails: the expressions of --fail-on, such as `bytes > 64k and not verdict == steady`.

    expression  = conjunction { "or" conjunction }
    conjunction = term { "and" term }
    term        = { "not" } ( "(" expression ")" | NAME OPERATOR VALUE )

"not" is carried inwards while parsing (De Morgan; > becomes <= and so on). So a comparison with a figure that is not
known is false on either side of a "not": what could not be measured never fails a run.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn, Protocol

from symbolizer.printable import printable
from tracer.errors import UsageError


class Site(Protocol):
    """The figures of one site; None: not known, or not asked for."""

    @property
    def bytes(self) -> float: ...
    @property
    def count(self) -> float: ...
    @property
    def oldest_s(self) -> float | None: ...
    @property
    def growth_bytes_per_s(self) -> float | None: ...
    @property
    def verdict(self) -> str | None: ...


class Totals(Protocol):
    """The sums over all sites; the report's own Totals are such. misuses, where there is one: of frees."""

    @property
    def live_bytes(self) -> float: ...
    @property
    def live_count(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """One expression. needs: names of the figures it compares, so that the caller knows what to find out."""

    text: str
    needs: frozenset[str]
    _condition: _Condition = field(repr=False)
    _figures: Mapping[str, Figure] = field(default_factory=lambda: FIGURES, repr=False)

    @property
    def over_total(self) -> bool:
        """Whether it names sums only, so that one evaluation says all and no site is to blame."""
        return all(self._figures[name].of_total for name in self.needs)

    def fails(self, site: Site | None, totals: Totals) -> bool:
        """Whether the expression is true of a site among these totals. Without a site, its figures are not known."""
        return self._condition.holds(lambda name: self._figures[name].read(site, totals))

    def undecided(self, site: Site | None, totals: Totals) -> bool:
        """Whether it is not true, but might be if figures that are not known were."""
        read = lambda name: self._figures[name].read(site, totals)  # noqa: E731
        return not self._condition.holds(read) and self._condition.holds(read, unknown=True)


def parse(text: str, figures: Mapping[str, Figure] | None = None) -> Budget:
    """Read an expression over these figures (None: FIGURES); UsageError shows where it fails, and what was expected."""
    known = FIGURES if figures is None else figures
    parser = _Parser(text, known)
    condition = parser.parse()
    return Budget(text, frozenset(parser.names), condition, known)


_Value = int | float | str
_Read = Callable[[str], _Value | None]


class _Condition(Protocol):
    def holds(self, read: _Read, *, unknown: bool = False) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Comparison:
    name: str
    operator: str
    value: _Value

    def holds(self, read: _Read, *, unknown: bool = False) -> bool:
        known = read(self.name)
        return unknown if known is None else bool(_OPERATORS[self.operator].compare(known, self.value))


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[_Condition, ...]

    def holds(self, read: _Read, *, unknown: bool = False) -> bool:
        return all(part.holds(read, unknown=unknown) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Any:
    parts: tuple[_Condition, ...]

    def holds(self, read: _Read, *, unknown: bool = False) -> bool:
        return any(part.holds(read, unknown=unknown) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Operator:
    compare: Callable[[Any, Any], Any]
    opposite: str


_OPERATORS = {
    ">": _Operator(operator.gt, "<="),
    ">=": _Operator(operator.ge, "<"),
    "<": _Operator(operator.lt, ">="),
    "<=": _Operator(operator.le, ">"),
    "==": _Operator(operator.eq, "!="),
    "!=": _Operator(operator.ne, "=="),
}
#: A verdict has no order.
_EQUALITY = ("==", "!=")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a figure is compared with: a number in one of some units, or one of some words."""

    expected: str
    units: Mapping[str, int | Fraction] = field(default_factory=dict)
    words: tuple[str, ...] = ()


# As in the options that take a size: k is 1024 in either case, with or without B or iB.
SIZE = Kind("a size in bytes, such as 4096, 64k or 1.5M", {"": 1, "b": 1} | {
    prefix + rest: 1 << 10 * power for power, prefix in enumerate("kmgt", 1) for rest in ("", "b", "ib")})
COUNT = Kind("a number without a unit", {"": 1})
_TIME = Kind("a time, such as 500ms, 90s, 5m or 2h", {"": 1, "ms": Fraction(1, 1000), "s": 1, "m": 60, "h": 3600})
VERDICT = Kind("lost, growing, steady or undecided", words=("lost", "growing", "steady", "undecided"))


@dataclass(frozen=True, slots=True)
class Figure:
    """A name in expressions: the attribute it reads, of a site or of the sums."""

    attribute: str
    kind: Kind
    of_total: bool = False

    def read(self, site: Site | None, totals: Totals) -> _Value | None:
        source = totals if self.of_total else site
        value: _Value | None = getattr(source, self.attribute, None)
        return value


FIGURES: dict[str, Figure] = {
    "bytes": Figure("bytes", SIZE),
    "count": Figure("count", COUNT),
    "oldest_s": Figure("oldest_s", _TIME),
    "growth_bytes_per_s": Figure("growth_bytes_per_s", SIZE),
    "verdict": Figure("verdict", VERDICT),
    "total_bytes": Figure("live_bytes", SIZE, of_total=True),
    "total_count": Figure("live_count", COUNT, of_total=True),
    "misuses": Figure("misuses", COUNT, of_total=True),
}

_TOKEN = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<word>[A-Za-z_][A-Za-z_0-9]*)|[<>=!]=|\S", re.ASCII)
_KEYWORDS = ("and", "or", "not")
#: Larger than anything measured; Python itself refuses to read numbers that are much longer.
MOST_DIGITS = 18
#: Deeper than anybody writes; each level takes some of Python's stack.
MOST_NESTED = 50


@dataclass(frozen=True, slots=True)
class _Token:
    """kind: number, word, or None for anything else; the token after the last is empty."""

    kind: str | None
    text: str
    start: int


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str, figures: Mapping[str, Figure]) -> None:
        self.names: set[str] = set()
        self._figures = figures
        self._text = text
        self._tokens = iter([_Token(found.lastgroup, found[0], found.start()) for found in _TOKEN.finditer(text)])
        self._end = _Token(None, "", len(text.rstrip()))
        self._next = next(self._tokens, self._end)

    def parse(self) -> _Condition:
        condition = self._expression(negated=False, depth=0)
        if self._next is not self._end:
            self._fail("'and', 'or' or the end")
        return condition

    def _expression(self, *, negated: bool, depth: int) -> _Condition:
        parts = [self._conjunction(negated=negated, depth=depth)]
        while self._take("or"):
            parts.append(self._conjunction(negated=negated, depth=depth))
        return _All(tuple(parts)) if negated else _Any(tuple(parts))

    def _conjunction(self, *, negated: bool, depth: int) -> _Condition:
        parts = [self._term(negated=negated, depth=depth)]
        while self._take("and"):
            parts.append(self._term(negated=negated, depth=depth))
        return _Any(tuple(parts)) if negated else _All(tuple(parts))

    def _term(self, *, negated: bool, depth: int) -> _Condition:
        while self._take("not"):
            negated = not negated
        if self._next.text == "(" and depth == MOST_NESTED:
            self._fail(f"no more than {MOST_NESTED} parentheses inside each other")
        if not self._take("("):
            return self._comparison(negated=negated)
        inner = self._expression(negated=negated, depth=depth + 1)
        if not self._take(")"):
            self._fail("'and', 'or' or ')'")
        return inner

    def _comparison(self, *, negated: bool) -> _Condition:
        name = self._next.text
        if name not in self._figures:
            self._fail(f"{', '.join(self._figures)}, 'not' or '('")
        self._advance()
        kind = self._figures[name].kind
        sign = self._next.text
        allowed = _EQUALITY if kind.words else tuple(_OPERATORS)
        if sign not in allowed:
            self._fail(f"{', '.join(allowed[:-1])} or {allowed[-1]}")
        self._advance()
        value = self._word(kind) if kind.words else self._number(kind)
        self.names.add(name)
        return _Comparison(name, _OPERATORS[sign].opposite if negated else sign, value)

    def _word(self, kind: Kind) -> str:
        word = self._next.text
        if word not in kind.words:
            self._fail(kind.expected)
        self._advance()
        return word

    def _number(self, kind: Kind) -> int | float:
        number = self._next
        whole, _, decimals = number.text.partition(".")
        if number.kind != "number":
            self._fail(kind.expected)
        if len(whole) > MOST_DIGITS or len(decimals) > MOST_DIGITS:
            self._fail(f"a number of no more than {MOST_DIGITS} digits")
        self._advance()
        unit = ""
        if self._next.kind == "word" and self._next.text not in _KEYWORDS:
            unit = self._next.text.lower()
            if unit not in kind.units:
                self._fail(kind.expected)
            self._advance()
        value = Fraction(int(whole + decimals), 10 ** len(decimals)) * kind.units[unit]
        return int(value) if value.denominator == 1 else float(value)

    def _take(self, text: str) -> bool:
        if self._next.text != text:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self._next = next(self._tokens, self._end)

    def _fail(self, expected: str) -> NoReturn:
        # What is escaped is wider than it was.
        column = len(printable(self._text[:self._next.start]))
        raise UsageError(
            f"--fail-on is not understood at the mark; expected there: {expected}.\n"
            f"  {printable(self._text)}\n"
            f"  {' ' * column}^",
            "Write for example --fail-on 'bytes > 64k and oldest_s > 1m' or --fail-on 'total_bytes > 1M'.",
        )
