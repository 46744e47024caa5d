"""Types of command line values: sizes with units, positive numbers, functions of the user's own allocator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from tracer.settings import CustomFunction

if TYPE_CHECKING:
    # Generic in newer releases of click only.
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Integer arguments that travel in registers (System V ABI, 3.2.3).
REGISTER_ARGUMENTS = 6


#: Python itself refuses to read numbers that are much longer.
MOST_DIGITS = 18


class Size(ParamType):
    """A number of bytes: 4096, 512k, 1.5M."""

    name = "bytes"

    def __init__(self, minimum: int = 0, maximum: int = (1 << 47) - 1) -> None:
        """The maximum unless given: all that a process can have."""
        self._minimum = minimum
        self._maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)(?:\.(\d+))?\s*([kmgt]?)(?:i?b)?", str(value).strip().lower())
        if not match:
            self.fail(f"{value!r} is not a size. Write bytes, or a number with k, M or G.", param, ctx)
        if len(match[1]) > MOST_DIGITS:
            self.fail(f"a number of {len(match[1])} digits is too large; the most is {self._maximum}.", param, ctx)
        decimals = (match[2] or "")[:MOST_DIGITS]
        size: int = int(match[1] + decimals) * _UNITS[match[3]] // 10 ** len(decimals)
        if size < self._minimum:
            self.fail(f"{value} is too small; the least is {self._minimum}.", param, ctx)
        if size > self._maximum:
            self.fail(f"{value} is too large; the most is {self._maximum}.", param, ctx)
        return size


class Positive(ParamType):
    """A number of at least a minimum, whole or not."""

    name = "number"

    def __init__(self, *, whole: bool, minimum: float | None = None, maximum: float | None = None) -> None:
        self._whole = whole
        self._minimum = minimum
        self._maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | int:
        try:
            number = int(value) if self._whole else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a {'whole ' if self._whole else ''}number.", param, ctx)
        if number != number or number == float("inf"):
            self.fail(f"{value} is no time.", param, ctx)
        if number < self._minimum if self._minimum is not None else number <= 0:
            self.fail(f"{value} is too small; it must be {self._bound()}.", param, ctx)
        if self._maximum is not None and number > self._maximum:
            self.fail(f"{value} is too large; the most is {self._maximum:g}.", param, ctx)
        return number

    def _bound(self) -> str:
        return "more than 0" if self._minimum is None else f"at least {self._minimum:g}"


class AllocFunction(ParamType):
    """NAME:size=ARG[,ptr=ret|argN]"""

    name = "NAME:size=ARG[,ptr=ret|argN]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> CustomFunction:
        if isinstance(value, CustomFunction):
            return value
        name, fields = _fields(self, str(value), {"size", "ptr"}, param, ctx)
        if "size" not in fields:
            self.fail(f"{value!r} does not say which argument is the size. Write for example pool_alloc:size=0.",
                      param, ctx)
        result = fields.get("ptr", "ret")
        return CustomFunction(
            name,
            size=_argument(self, fields["size"], param, ctx),
            result=None if result == "ret" else _argument(self, result, param, ctx),
        )


class FreeFunction(ParamType):
    """NAME:ptr=ARG"""

    name = "NAME:ptr=ARG"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> CustomFunction:
        if isinstance(value, CustomFunction):
            return value
        name, fields = _fields(self, str(value), {"ptr"}, param, ctx)
        if "ptr" not in fields:
            self.fail(f"{value!r} does not say which argument is freed. Write for example pool_free:ptr=0.", param, ctx)
        return CustomFunction(name, pointer=_argument(self, fields["ptr"], param, ctx))


class PointedAt(ParamType):
    """SITE|ADDRESS"""

    name = "SITE|ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip().removeprefix("#")
        if not text:
            self.fail("it is empty. Give a site by its rank or a function, or an address such as 0x7f0012345678.",
                      param, ctx)
        if text.lower().startswith("0x") and not re.fullmatch("0x[0-9a-f]{1,16}", text.lower()):
            self.fail(f"{value!r} is no address. Write for example 0x7f0012345678.", param, ctx)
        return text


def _fields(kind: ParamType, value: str, known: set[str], param: click.Parameter | None,
            ctx: click.Context | None) -> tuple[str, dict[str, str]]:
    # C++ names hold colons; the fields follow the last one.
    name, _, rest = value.rpartition(":")
    pieces = rest.split(",")
    pairs = dict(piece.split("=", 1) for piece in pieces if "=" in piece)
    if not name or len(pairs) != len(pieces) or set(pairs) - known:
        kind.fail(f"{value!r} is not of the form {kind.name}.", param, ctx)
    return name, pairs


def _argument(kind: ParamType, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
    match = re.fullmatch(r"(?:arg)?(\d)", text)
    if not match or int(match[1]) >= REGISTER_ARGUMENTS:
        kind.fail(f"{text!r} is no argument; they are numbered from 0 to {REGISTER_ARGUMENTS - 1}.", param, ctx)
    return int(match[1])
