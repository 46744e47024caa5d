"""The tree of calls that flame graphs are drawn from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from symbolizer.frame import Frame, Why
from tracer.report.flame_tree import ALL, Node, flame_tree, name_of
from tracer.report.model import Finding

MakeFinding = Callable[..., Finding]
MAIN, PARSE, READ = (Frame(0x10 * number, name, 1, "/bin/server") for number, name in enumerate(("main", "parse", "read"), 1))


def live(finding: Finding) -> float:
    return finding.bytes


def shape(node: Node) -> tuple[object, ...]:
    """Return name, total, own and children of a node and all below it."""
    return (node.name, node.total, node.own, *(shape(child) for child in node.children))


def test_stacks_grow_from_their_outermost_call(finding: MakeFinding) -> None:
    """Calls that stacks share are one node with the sum; what ends there is its own; the largest child comes first."""
    tree = flame_tree([finding(frames=(PARSE, MAIN), bytes=10), finding(frames=(READ, PARSE, MAIN), bytes=5),
                       finding(frames=(READ, MAIN), bytes=40)], live)
    assert shape(tree) == (ALL, 55, 0, ("main", 55, 0, ("read", 40, 40), ("parse", 15, 10, ("read", 5, 5))))
    assert tree.children[0].module == "/bin/server" and tree.module is None


def test_one_function_is_one_node_whichever_lines_it_allocates_at(finding: MakeFinding) -> None:
    """Addresses, lines and inlining do not split a node; another file does."""
    elsewhere = Frame(0x99, "read", None, "/bin/server", file="a.c", line=4, inlined=True)
    library = Frame(0x99, "read", 3, "/lib/libread.so")
    tree = flame_tree([finding(frames=(READ,), bytes=1), finding(frames=(elsewhere,), bytes=2),
                       finding(frames=(library,), bytes=4)], live)
    assert [(node.name, node.module, node.total) for node in tree.children] == [
        ("read", "/lib/libread.so", 4), ("read", "/bin/server", 3)]


def test_any_value_can_be_asked_for(finding: MakeFinding) -> None:
    """The tree is of blocks where blocks are asked for."""
    assert flame_tree([finding(count=3), finding(count=4)], lambda each: each.count).total == 7


def test_a_stack_without_calls_is_the_roots_own(finding: MakeFinding) -> None:
    """What has no stack is not lost from the total; without anything the root is alone."""
    assert shape(flame_tree([finding(frames=(), bytes=7)], live)) == (ALL, 7, 7)
    assert shape(flame_tree([], live)) == (ALL, 0, 0)


def test_deep_stacks(finding: MakeFinding) -> None:
    """A stack deeper than Python's own may be is a tree, and is walked."""
    frames = tuple(Frame(number, f"f{number}", 1, "/bin/deep") for number in range(5000))
    walked = list(flame_tree([finding(frames=frames, bytes=1)], live).walk())
    assert [depth for depth, _ in walked] == list(range(5001)) and walked[-1][1].name == "f0"


def test_walking_takes_nodes_in_the_order_of_the_drawing(finding: MakeFinding) -> None:
    """A node comes before its children, and they come before its next sibling."""
    tree = flame_tree([finding(frames=(READ, PARSE), bytes=5), finding(frames=(MAIN,), bytes=1)], live)
    assert [(depth, node.name) for depth, node in tree.walk()] == [(0, ALL), (1, "parse"), (2, "read"), (1, "main")]


@pytest.mark.parametrize(("frame", "name"), [
    (Frame(0x10, "f(int)", 0), "f(int)"),
    (Frame(0x7F10, module="/lib/libx.so.1", module_offset=0x10, why=Why.NOT_COVERED), "[libx.so.1+0x10]"),
    (Frame(0xFFFF10, module="[kernel]", why=Why.NOT_COVERED), "[[kernel]+0xffff10]"),
    (Frame(0x7F10, why=Why.UNMAPPED), "[0x7f10]"),
    (Frame(0x7F10, module="/lib/libx.so.1", why=Why.UNWIND_STOPPED), "[stack cut off]"),
    (Frame(0x10, "a\nb\x1b[2J\u202e\udcff", 0), r"a\nb\x1b[2J\u202e\udcff"),
])
def test_what_a_frame_is_called(frame: Frame, name: str) -> None:
    """A frame without a name says what is known of it, and names cannot end lines or command terminals."""
    assert name_of(frame) == name
