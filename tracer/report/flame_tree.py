"""Stacks put together from their outermost calls inwards, with what is held below each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from symbolizer.frame import Frame, Why
from tracer.report.model import Finding

#: The name of the root, which is no call.
ALL = "all"
#: What stands for the calls of a site that has none.
NO_STACK = "[no stack]"


@dataclass(frozen=True, slots=True)
class Node:
    """One call; total: the value of all stacks through it, own: of those that end in it, so total is own and children.

    name: as shown, also for a frame without a name. module: full path of its file. children: the largest total first.
    """

    name: str
    module: str | None
    total: float
    own: float
    children: tuple[Node, ...]

    def walk(self) -> Iterator[tuple[int, Node]]:
        """Yield this node and all below it with their depths from 0, each before its children, in their order."""
        waiting = [(0, self)]
        while waiting:
            depth, node = waiting.pop()
            yield depth, node
            waiting.extend([(depth + 1, child) for child in reversed(node.children)])


def flame_tree(findings: Sequence[Finding], value: Callable[[Finding], float]) -> Node:
    """Return the tree of all stacks; its root is ALL, whose children are the outermost calls.

    Frames with the same name and module below the same caller are one node, whichever lines they are at.
    """
    root = _Growing(ALL, None)
    grown = [root]
    # Recordings have each frame once, and what it is called takes longer to say than to remember.
    keys: dict[int, tuple[str, str | None]] = {}
    for finding in findings:
        node, amount = root, value(finding)
        node.total += amount
        for frame in reversed(finding.frames):
            key = keys.get(id(frame))
            if key is None:
                key = keys[id(frame)] = (name_of(frame), frame.module)
            below = node.children.get(key)
            if below is None:
                below = node.children[key] = _Growing(*key)
                grown.append(below)
            node = below
            node.total += amount
        node.own += amount
    done: dict[int, Node] = {}
    # Children came after their parents. Without recursion, as deep as stacks may be.
    for growing in reversed(grown):
        children = [done.pop(id(child)) for child in growing.children.values()]
        children.sort(key=lambda child: (-child.total, child.name, child.module or ""))
        done[id(growing)] = Node(growing.name, growing.module, growing.total, growing.own, tuple(children))
    return done[id(root)]


def name_of(frame: Frame) -> str:
    """Return a frame's function, or in brackets what is known of one without a name; safe to print, on one line."""
    if frame.function is not None:
        return printable(frame.function)
    if frame.why is Why.UNWIND_STOPPED:
        return "[stack cut off]"
    if frame.module is None:
        return f"[{frame.address:#x}]"
    offset = frame.address if frame.module_offset is None else frame.module_offset
    return printable(f"[{frame.module.rpartition('/')[2]}+{offset:#x}]")


def printable(text: str) -> str:
    """Return a text with whatever would not be shown as it is, or would end the line, written as an escape."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])


class _Growing:
    """A node while stacks are added to it."""

    __slots__ = ("children", "module", "name", "own", "total")

    def __init__(self, name: str, module: str | None) -> None:
        self.name, self.module = name, module
        self.total: float = 0
        self.own: float = 0
        self.children: dict[tuple[str, str | None], _Growing] = {}
