"""The trace of the kernel against what the kernel says itself: who agrees, who differs, and who is alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tracer.judge.cross_check import (
    SLAB_PAGES,
    Amount,
    Standing,
    TracedSite,
    bare_name,
    common_frames,
    compare_account,
    compare_unreferenced,
)


@dataclass(frozen=True)
class Tag:
    function: str
    bytes: int
    calls: int
    file: str = "made.c"
    line: int = 1
    module: str | None = None
    accurate: bool = True


@dataclass(frozen=True)
class Block:
    size: int
    functions: tuple[str, ...]


def site(*functions: str, held: tuple[int, int] = (640, 10), allocated: tuple[int, int] = (0, 0)) -> TracedSite:
    return TracedSite(functions, Amount(*held), Amount(*allocated))


def test_equal_growth_agrees() -> None:
    """The growth between the readings, and not what was there before, is compared, and the place is shown."""
    result = compare_account([site("grow", "caller")], [Tag("grow", 1000, 5)], [Tag("grow", 1640, 15)])
    (row,) = result.rows
    assert (row.function, row.traced, row.other, row.standing) == ("grow", Amount(640, 10), Amount(640, 10), Standing.AGREES)
    assert row.difference == Amount(0, 0)
    assert row.places == ("made.c:1",)
    assert result.summary == ("Of 1 functions that the trace and the kernel's account both know, 1 agree and 0 differ; "
                              "0 are in the trace only, 0 in the kernel's account only.")


@pytest.mark.parametrize("after", [Tag("grow", 640, 5), Tag("grow", 320, 10), Tag("grow", -640, -10), Tag("grow", 1280, 20)])
def test_other_growth_differs(after: Tag) -> None:
    """A difference in bytes or in number alone is one, and has its sign."""
    (row,) = compare_account([site("grow")], [], [after]).rows
    assert row.standing is Standing.DIFFERS
    assert row.difference == Amount(640 - after.bytes, 10 - after.calls)


def test_what_moved_between_the_readings_is_tolerated() -> None:
    """A busy site may differ by what it allocates in the gap, and by no more."""
    busy = site("grow", allocated=(64_000, 1000))
    after = [Tag("grow", 640 + 6400, 10 + 100)]
    assert compare_account([busy], [], after, gap=0.1).rows[0].standing is Standing.AGREES
    assert compare_account([busy], [], after, gap=0.05).rows[0].standing is Standing.DIFFERS
    assert compare_account([site("grow")], [], after, gap=0.1).rows[0].standing is Standing.DIFFERS


def test_a_helper_is_charged_to_its_caller() -> None:
    """A helper that the account does not know goes to the caller that it does, but to none far out."""
    result = compare_account([site("copy", "user"), site("a", "b", "c", "user")], [], [Tag("user", 640, 10)])
    assert [(row.function, row.standing) for row in result.rows] == [("user", Standing.AGREES)]
    assert result.only_traced == (("a", Amount(640, 10)),)


def test_the_function_that_grew_is_preferred() -> None:
    """Where the innermost known function did not change and its caller did, the caller is who was charged."""
    tags = [Tag("inner", 100, 1)]
    result = compare_account([site("inner", "outer")], tags, [*tags, Tag("outer", 640, 10)])
    assert [(row.function, row.standing) for row in result.rows] == [("outer", Standing.AGREES)]


def test_sites_and_lines_of_one_function_are_summed() -> None:
    """Two stacks through a function, and two lines in it, are one row; names of compiled code match those in the source."""
    result = compare_account([site("grow.isra.0", "a"), site("grow", "b")], [],
                             [Tag("grow_noprof", 640, 10), Tag("grow", 640, 10, line=9, module="made")])
    (row,) = result.rows
    assert (row.traced, row.other, row.standing) == (Amount(1280, 20), Amount(1280, 20), Standing.AGREES)
    assert row.places == ("made.c:1", "made.c:9 [made]")


def test_each_side_has_its_own() -> None:
    """What one side knows only is listed by size; what did not change, and the pages of slabs, are not."""
    tags = [Tag("small", 8, 1), Tag("large", -512, -2), Tag("still", 0, 0), Tag(SLAB_PAGES, 8192, 2)]
    result = compare_account([site("mine"), site(), site("nothing", held=(0, 0))], [], tags)
    assert result.rows == ()
    assert result.only_other == (("large", Amount(-512, -2)), ("small", Amount(8, 1)))
    assert result.only_traced == (("[unknown]", Amount(640, 10)), ("mine", Amount(640, 10)))
    assert "2 are in the trace only, 2 in the kernel's account only" in result.summary


def test_a_function_that_freed_is_compared_too() -> None:
    """A line that is gone in the second reading, as of a module that was removed, shrank."""
    (row,) = compare_account([site("grow", held=(-640, -10))], [Tag("grow", 640, 10)], []).rows
    assert row.standing is Standing.AGREES


def test_figures_that_are_not_exact_are_not_judged() -> None:
    """Where the kernel says that it missed some, the row neither agrees nor differs."""
    result = compare_account([site("grow")], [Tag("grow", 0, 0)], [Tag("grow", 1, 1, accurate=False)])
    assert result.rows[0].standing is Standing.INACCURATE
    assert "0 agree and 0 differ, and 1 cannot be judged" in result.summary


def test_rows_are_ordered_by_size() -> None:
    """The row with the most bytes on either side comes first."""
    result = compare_account([site("a", held=(10, 1)), site("b", held=(30, 1))], [], [Tag("a", 20, 1), Tag("b", 1, 1)])
    assert [row.function for row in result.rows] == ["b", "a"]


LEAKED = ("__kmalloc_cache_noprof", "leak", "probe", "init")


def test_lost_blocks_are_confirmed_by_the_trace() -> None:
    """Blocks of a stack that the trace holds at least as many of agree with it, whatever their size is called."""
    result = compare_unreferenced([site("leak", "probe", "init", held=(90, 3)), site("kept", "init")], [Block(96, LEAKED)] * 3)
    (row,) = result.rows
    assert (row.function, row.other, row.standing) == ("leak", Amount(288, 3), Standing.AGREES)
    assert result.only_traced == (("kept", Amount(640, 10)),)
    assert "the leak detector both know, 1 agree" in result.summary


def test_more_lost_blocks_than_traced_ones_differ() -> None:
    """A trace that holds fewer blocks than are lost missed some."""
    (row,) = compare_unreferenced([site("leak", "probe", held=(64, 1))], [Block(64, LEAKED)] * 2).rows
    assert row.standing is Standing.DIFFERS
    assert row.difference == Amount(-64, -1)


def test_the_stack_that_fits_best_is_taken() -> None:
    """Of stacks with the same innermost function, the one that goes on as the block's is the one."""
    traced = [site("leak", "other"), site("leak"), site("leak", "probe", "init", "start")]
    result = compare_unreferenced(traced, [Block(64, LEAKED)])
    assert result.rows[0].traced is traced[2].held
    assert [amount for _, amount in result.only_traced] == [Amount(1280, 20)]


def test_lost_blocks_from_elsewhere_are_named_by_their_caller() -> None:
    """A block whose stack the trace does not have goes by the first function that is not the allocator's."""
    result = compare_unreferenced([site("leak", "other")], [Block(64, LEAKED), Block(8, ()), Block(32, ("kmem_cache_alloc_noprof", "boot"))])
    assert result.rows == ()
    assert result.only_other == (("leak", Amount(64, 1)), ("boot", Amount(32, 1)), ("[unknown]", Amount(8, 1)))


@pytest.mark.parametrize(("stack", "shared"), [
    (("kmalloc", "a", "b"), 2), (("a", "b", "c", "d"), 3), (("a",), 1), (("a", "x"), 0), (("b", "c"), 0), ((), 0),
    (("a", "a", "b", "c"), 3), (("a", "b", "c", "a"), 3), (("k",) * 20 + ("a", "b"), 0),
])
def test_stacks_are_compared_from_the_innermost_frame(stack: tuple[str, ...], shared: int) -> None:
    """Frames count from the site's innermost on, behind the allocator's, until either stack ends, and not if they part."""
    assert common_frames(("a", "b", "c"), stack) == shared


@pytest.mark.parametrize(("name", "bare"), [
    ("f", "f"), ("f.isra.0", "f"), ("f.constprop.0.cold", "f"), ("kmemdup_noprof", "kmemdup"), ("f_noprof.part.0", "f"), ("", "")])
def test_names_are_those_of_the_source(name: str, bare: str) -> None:
    """What the compiler and the annotation append to a name is taken away."""
    assert bare_name(name) == bare
