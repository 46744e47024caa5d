"""Values on the command line: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import click
import pytest

from tracer.cli.values import AllocFunction, FreeFunction, PointedAt, Positive, Size
from tracer.settings import CustomFunction


def refused(kind: Size | Positive | AllocFunction | FreeFunction | PointedAt, text: str) -> str:
    """Return what is said of a value that is refused."""
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    return caught.value.message


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("4096", 4096), ("1k", 1024), ("512K", 524288), ("1.5M", 1572864), ("2G", 2 << 30), ("1t", 1 << 40),
    ("4KiB", 4096), ("4 kB", 4096), (" 7b ", 7), ("0.5k", 512), ("127T", 127 << 40),
])
def test_sizes(text: str, size: int) -> None:
    """Bytes, or a number with a unit of 1024, whole or not, in either case."""
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "0x10", "1.k", "1,5k", "5x", "1kk", "nan", "inf", "1 2"])
def test_no_sizes(text: str) -> None:
    """What is no size is named, and what one looks like."""
    said = refused(Size(), text)
    assert repr(text) in said and "Write bytes" in said


def test_bounds_of_sizes() -> None:
    """A size below the least is refused with the bound, and so is one that no process can have."""
    assert "the least is 1" in refused(Size(1), "0")
    assert "the least is 1" in refused(Size(1), "0.5")
    assert "too large" in refused(Size(), "256T")
    assert Size().convert(str((1 << 47) - 1), None, None) == (1 << 47) - 1


@pytest.mark.parametrize(("kind", "text", "number"), [
    (Positive(whole=True), "7", 7), (Positive(whole=False), "0.25", 0.25), (Positive(whole=False), "1e3", 1000.0),
    (Positive(whole=False, minimum=0), "0", 0.0), (Positive(whole=True, maximum=127), "127", 127),
    (Positive(whole=True, minimum=3), "3", 3),
])
def test_numbers(kind: Positive, text: str, number: float) -> None:
    """Numbers within their bounds, the bounds included, whole ones as int."""
    made = kind.convert(text, None, None)
    assert made == number and type(made) is type(number)


@pytest.mark.parametrize(("kind", "text", "said"), [
    (Positive(whole=True), "0", "more than 0"), (Positive(whole=True), "-3", "more than 0"),
    (Positive(whole=True), "1.5", "not a whole number"), (Positive(whole=True), "many", "not a whole number"),
    (Positive(whole=False), "many", "not a number"), (Positive(whole=False), "", "not a number"),
    (Positive(whole=False), "0", "more than 0"), (Positive(whole=False), "-0.1", "more than 0"),
    (Positive(whole=False), "nan", "no time"), (Positive(whole=False), "inf", "no time"),
    (Positive(whole=False), "1e400", "no time"), (Positive(whole=False), "-inf", "more than 0"),
    (Positive(whole=False, minimum=0), "-1", "at least 0"), (Positive(whole=True, maximum=127), "128", "the most is 127"),
])
def test_no_numbers(kind: Positive, text: str, said: str) -> None:
    """A number out of its bounds is refused with the bound, and what is no number as that."""
    assert said in refused(kind, text)


@pytest.mark.parametrize(("text", "function"), [
    ("pool_alloc:size=0", CustomFunction("pool_alloc", size=0)),
    ("pool_alloc:size=arg1", CustomFunction("pool_alloc", size=1)),
    ("get:size=1,ptr=ret", CustomFunction("get", size=1)),
    ("get:ptr=arg2,size=5", CustomFunction("get", size=5, result=2)),
    ("pool::make:size=0", CustomFunction("pool::make", size=0)),
])
def test_functions_that_allocate(text: str, function: CustomFunction) -> None:
    """A name, the argument that is the size, and where the result is; colons may be in the name."""
    assert AllocFunction().convert(text, None, None) == function
    assert AllocFunction().convert(function, None, None) is function


@pytest.mark.parametrize(("text", "said"), [
    ("pool_alloc", "not of the form"), ("pool_alloc:", "not of the form"), (":size=0", "not of the form"),
    ("f:bytes=0", "not of the form"), ("f:size=0,align=1", "not of the form"), ("f:ptr=ret", "which argument is the size"),
    ("f:size=6", "no argument"), ("f:size=-1", "no argument"), ("f:size=rdi", "no argument"), ("f:size=", "no argument"),
    ("f:size=10", "no argument"), ("f:size=0,ptr=arg6", "no argument"),
])
def test_no_functions_that_allocate(text: str, said: str) -> None:
    """What is missing or unknown is named, with the form it should have."""
    assert said in refused(AllocFunction(), text)


def test_functions_that_free() -> None:
    """A name and the argument that is freed."""
    assert FreeFunction().convert("pool_free:ptr=arg1", None, None) == CustomFunction("pool_free", pointer=1)
    assert FreeFunction().convert("pool::drop:ptr=0", None, None) == CustomFunction("pool::drop", pointer=0)
    assert "not of the form" in refused(FreeFunction(), "pool_free:size=0")
    assert "not of the form" in refused(FreeFunction(), "pool_free")
    assert "no argument" in refused(FreeFunction(), "pool_free:ptr=ret")


@pytest.mark.parametrize(("text", "asked"), [
    ("3", "3"), ("#3", "3"), (" #12 ", "12"), ("make_node", "make_node"), ("Tree::add(int)", "Tree::add(int)"),
    ("0x7f0012345678", "0x7f0012345678"), ("0X7F00", "0X7F00"), ("0xffffffffffffffff", "0xffffffffffffffff"), ("x0", "x0"),
])  # fmt: skip
def test_what_pointers_are_asked_for(text: str, asked: str) -> None:
    """A rank as a report writes it or without its mark, a function as it is, or an address."""
    assert PointedAt().convert(text, None, None) == asked


@pytest.mark.parametrize("text", ["0x", "0xg", "0x1_0", "0x12345678901234567", "0x-1", "0x10 "[:-1] + "z"])
def test_no_addresses(text: str) -> None:
    """What begins as an address and is none is refused, with what one looks like."""
    assert f"{text!r} is no address" in refused(PointedAt(), text)


@pytest.mark.parametrize("text", ["", "  ", "#"])
def test_nothing_is_asked_for(text: str) -> None:
    """An empty value says what could be given."""
    assert "it is empty" in refused(PointedAt(), text)
