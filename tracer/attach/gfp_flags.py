"""The words for an allocation's gfp flags, by the table of the running kernel, since the bits differ between kernels.

The kernel carries the table in the description of its event kmem:kmalloc, as arguments of __print_flags: pairs of a C
expression and a name, in the order in which they are tried (include/trace/stages/stage3_trace_output.h,
include/trace/events/mmflags.h).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tracer.attach import tracepoints

_CALL = re.compile(r'__print_flags\s*\(\s*REC->gfp_flags\s*,\s*"\|"\s*,')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENTRY = re.compile(r'\{(?P<mask>[^{}"]*),\s*"(?P<name>\w+)"\s*\}')
_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b|(?P<word>[A-Za-z_]\w*)|(?P<sign><<|>>|[|&^~+()-]))")
_TYPE_WORDS = frozenset({"unsigned", "signed", "long", "int", "char", "short", "gfp_t", "__force", "u32", "u64"})
#: Two-sided operators of C from the loosest to the tightest, as far as masks are written with them.
_LEVELS: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"|": operator.or_}, {"^": operator.xor}, {"&": operator.and_},
    {"<<": operator.lshift, ">>": operator.rshift}, {"+": operator.add, "-": operator.sub},
)
_ALL_BITS = (1 << 64) - 1
#: Parentheses in parentheses: the kernel's own are about 20 deep, and each costs a call for every level of operators.
_DEEPEST = 60


class UnknownMask(ValueError):
    """A mask is no expression of numbers, as where the name of an enumerator was left in it."""


def gfp_names(root: Path | None = None) -> tuple[tuple[int, str], ...]:
    """Return masks and names of this kernel's gfp flags, in the order in which they are to be tried.

    root: that of tracefs; found if not given. Raises CannotTrace without tracefs, or without the event kmem:kmalloc.
    """
    return parse_gfp_names(tracepoints.print_format(tracepoints.description("kmem", "kmalloc", root)))


def gfp_words(flags: int, names: tuple[tuple[int, str], ...]) -> tuple[str, ...]:
    """Return the words for flags as the kernel prints them: GFP_KERNEL, __GFP_ZERO; () for no flags.

    A name is taken if all its bits are set and not taken yet. Bits without a name come last, as one hexadecimal number.
    """
    words = []
    for mask, name in names:
        if flags & mask == mask:
            words.append(name)
            flags &= ~mask
        if not flags:
            break
    return (*words, f"{flags:#x}") if flags else tuple(words)


def parse_gfp_names(print_format: str) -> tuple[tuple[int, str], ...]:
    """Return the table in an event's print format; () without one.

    An entry whose mask cannot be told is left out: kernels from 6.10 until they were corrected (commit 60295b944ff6)
    write names of enumerators there, which have no value outside the kernel.
    """
    found = []
    for entry in _ENTRY.finditer(_arguments(print_format)):
        try:
            mask = evaluate(entry["mask"])
        except UnknownMask:
            continue
        # A flag that this kernel was built without is 0, which all flags contain.
        if mask:
            found.append((mask, entry["name"]))
    return tuple(found)


def evaluate(expression: str) -> int:
    """Return the value of a C expression of numbers, as 64 bits without sign: casts, | ^ & << >> + - and ~.

    Casts change nothing: all masks fit the narrowest type that they are cast to. Raises UnknownMask for anything else.
    """
    parser = _Parser(tuple(_tokens(expression)))
    value = parser.level(0)
    parser.expect("")
    return value & _ALL_BITS


def _arguments(print_format: str) -> str:
    """Return what is handed to __print_flags for the gfp flags: to the parenthesis that closes the call."""
    call = _CALL.search(print_format)
    if call is None:
        return ""
    depth, at = 1, call.end()
    while at < len(print_format):
        string = _STRING.match(print_format, at)
        if string is not None:
            at = string.end()
            continue
        depth += {"(": 1, ")": -1}.get(print_format[at], 0)
        if depth == 0:
            break
        at += 1
    return print_format[call.end() : at]


def _tokens(expression: str) -> Iterator[str]:
    at, end = 0, len(expression.rstrip())
    while at < end:
        token = _TOKEN.match(expression, at)
        if token is None:
            raise UnknownMask(expression[at : at + 20])
        yield token["number"] or token["word"] or token["sign"]
        at = token.end()


class _Parser:
    """Reads tokens from the first on, by recursive descent; at the end comes an empty one."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = (*tokens, "")
        self._at = 0
        self._depth = 0

    def level(self, number: int) -> int:
        """Return the value of what comes, up to an operator that binds looser than those of the level."""
        if number == len(_LEVELS):
            return self._operand()
        value = self.level(number + 1)
        while (apply := _LEVELS[number].get(self._next)) is not None:
            sign = self._take()
            right = self.level(number + 1)
            # Undefined in C, and a way to fill the memory.
            if sign in ("<<", ">>") and not 0 <= right < 64:
                raise UnknownMask(f"{sign} {right}")
            value = apply(value, right)
        return value

    def expect(self, token: str) -> None:
        """Pass over a token. Raises UnknownMask if another one comes."""
        if self._next != token:
            raise UnknownMask(self._next)
        self._at += 1

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _operand(self) -> int:
        token = self._take() if self._next else ""
        if token[:1].isdigit():
            # A C number with a leading 0 is octal.
            octal = token.isdigit() and len(token) > 1 and token[0] == "0"
            try:
                return int(token, 8 if octal else 0)
            except ValueError:
                raise UnknownMask(token) from None
        self._depth += 1
        if token not in ("~", "-", "(") or self._depth > _DEEPEST:
            raise UnknownMask(token)
        value = self._unary(token)
        self._depth -= 1
        return value

    def _unary(self, token: str) -> int:
        if token == "~":
            return ~self._operand()
        if token == "-":
            return -self._operand()
        if self._next in _TYPE_WORDS:
            while self._next in _TYPE_WORDS:
                self._take()
            self.expect(")")
            return self._operand()
        value = self.level(0)
        self.expect(")")
        return value
