"""The table of gfp flags as kernels of different ages write it, and the words it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach import gfp_flags
from tracer.attach.gfp_flags import UnknownMask, evaluate, gfp_words, parse_gfp_names
from tracer.errors import CannotTrace

NEW = (
    '"call_site=%pS gfp_flags=%s node=%d", (void *)REC->call_site, (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", '
    "{( unsigned long)((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)((((1UL))) << (6))) | (( gfp_t)0) "
    '| (( gfp_t)((((1UL))) << (7)))), "GFP_KERNEL"}, '
    '{( unsigned long)(((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)((((1UL))) << (18)))) & ~(( gfp_t)'
    '((((1UL))) << (10)))), "MADE_OF_THREE"}, '
    '{( unsigned long)(( gfp_t)((((1UL))) << (8))), "__GFP_ZERO"}, '
    '{( unsigned long)(( gfp_t)0), "__GFP_ABSENT"}, '
    '{ 0, ((void *)0) } ) : "none", REC->node, (1 && (REC->gfp_flags & ( unsigned long)(( gfp_t)((((1UL))) << (22))))) '
    '? "true" : __print_flags(REC->other, "|", {1, "OTHER"})'
)
OLD = (
    '"gfp_flags=%s", (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", '
    '{(unsigned long)((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u) | ((gfp_t)0x80u)), "GFP_KERNEL"}, '
    '{(unsigned long)(( gfp_t)0x100u), "__GFP_ZERO"}, { -1, NULL }) : "none"'
)


def test_the_table_is_read_in_its_order() -> None:
    """Masks of casts, shifts and complements are worked out, and names stay in the order in which they are tried."""
    assert parse_gfp_names(NEW) == ((0xCC0, "GFP_KERNEL"), (0x40800, "MADE_OF_THREE"), (0x100, "__GFP_ZERO"))


def test_older_kernels_write_plain_numbers() -> None:
    """The same flags written as hexadecimal numbers are the same."""
    assert parse_gfp_names(OLD) == ((0xCC0, "GFP_KERNEL"), (0x100, "__GFP_ZERO"))


def test_enumerators_left_in_the_text_drop_their_entry_only() -> None:
    """An entry with the name of an enumerator has no value, and the others keep theirs."""
    text = NEW.replace("(( gfp_t)((((1UL))) << (8)))", "(( gfp_t)((((1UL))) << (___GFP_ZERO_BIT)))")
    assert parse_gfp_names(text) == ((0xCC0, "GFP_KERNEL"), (0x40800, "MADE_OF_THREE"))


@pytest.mark.parametrize("text", ["", '"ptr=%p", REC->ptr', '__print_flags(REC->gfp_flags, "|", {((1), "BROKEN"',
                                  '__print_flags(REC->gfp_flags, "|",', '__print_flags(REC->gfp_flags, "|", {"A"}, {1 "B"})'])
def test_text_without_a_table_gives_none(text: str) -> None:
    """A print format without a whole table names nothing."""
    assert parse_gfp_names(text) == ()


@pytest.mark.parametrize(("expression", "value"), [
    ("1 | 2 & 3 << 4", 1 | 2 & 3 << 4),
    ("(1 | 2) & ~1", 2),
    ("7 & ~((gfp_t)2) ^ 1", 4),
    ("1 << 2 + 1", 8),
    ("0x10UL - 1", 15),
    ("010", 8),
    ("~0", (1 << 64) - 1),
    ("(__force unsigned long)(gfp_t) 5u", 5),
])
def test_expressions_have_their_value_in_c(expression: str, value: int) -> None:
    """Operators bind as in C, and casts change nothing."""
    assert evaluate(expression) == value


@pytest.mark.parametrize("expression", [
    "", "NAME", "(NAME)", "1 |", "| 1", "(1", "1)", "1 2", "()", "1 << 4000000000", "1 << -1", "1 / 2", "f(1)", "__import__('os')",
    "1 ? 2 : 3", "09", "(" * 5000 + "1" + ")" * 5000, "~" * 5000 + "1", "(gfp_t)" * 5000 + "1", "-" * 5000 + "1",
])
def test_other_expressions_have_no_value(expression: str) -> None:
    """What is no expression of numbers is refused, however deep or large it would be."""
    with pytest.raises(UnknownMask):
        evaluate(expression)


NAMES = ((0xCC0, "GFP_KERNEL"), (0x800, "GFP_NOWAIT"), (0xC00, "__GFP_RECLAIM"), (0x100, "__GFP_ZERO"))


@pytest.mark.parametrize(("flags", "words"), [
    (0, ()),
    (0xCC0, ("GFP_KERNEL",)),
    (0xDC0, ("GFP_KERNEL", "__GFP_ZERO")),
    (0x900, ("GFP_NOWAIT", "__GFP_ZERO")),
    (0x1000CC0, ("GFP_KERNEL", "0x1000000")),
    (0x6, ("0x6",)),
    # The kernel takes the first that fits: what it took is gone for those behind.
    (0xC00, ("GFP_NOWAIT", "0x400")),
])
def test_words_are_those_of_the_kernel(flags: int, words: tuple[str, ...]) -> None:
    """The first name whose bits are all there takes them, and what is left comes as a number."""
    assert gfp_words(flags, NAMES) == words


def test_without_a_table_flags_are_a_number() -> None:
    """Where the kernel names no flags, they are shown as they are."""
    assert gfp_words(0xCC0, ()) == ("0xcc0",)


def test_the_table_is_that_of_the_event(tmp_path: Path) -> None:
    """The names come from the description of kmem:kmalloc below tracefs, and without the event there is an error."""
    with pytest.raises(CannotTrace, match="kmem:kmalloc"):
        gfp_flags.gfp_names(tmp_path)
    event = tmp_path / "events" / "kmem" / "kmalloc"
    event.mkdir(parents=True)
    (event / "format").write_text(f"name: kmalloc\n\nprint fmt: {OLD}\n")
    assert gfp_flags.gfp_names(tmp_path) == ((0xCC0, "GFP_KERNEL"), (0x100, "__GFP_ZERO"))
