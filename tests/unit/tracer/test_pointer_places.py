"""Each kind of place has its words."""

from __future__ import annotations

import pytest

from tracer.pointer_places import (
    ChainBlock,
    GlobalPlace,
    MemoryPlace,
    PointerPlace,
    RegisterPlace,
    StackPlace,
    ThreadLocalPlace,
    chain,
)

AT = 0x7F00DEADBEE8


@pytest.mark.parametrize(("place", "kind", "words"), [
    (GlobalPlace(AT, "registry", 16, "/srv/web"), "global", "global registry+0x10 [web]"),
    (GlobalPlace(AT, "registry", 0, "/srv/web"), "global", "global registry [web]"),
    (GlobalPlace(AT, ".bss", 64, "/lib/libfoo.so", is_symbol=False), "global", "libfoo.so .bss+0x40"),
    (GlobalPlace(AT, None, 0x4040, "/lib/libfoo.so"), "global", "libfoo.so+0x4040"),
    (StackPlace(AT, 4712, "serve_client", -24), "stack", "stack of thread 4712 in serve_client()"),
    (StackPlace(AT, 4712, "store::serve(int)", -24), "stack", "stack of thread 4712 in store::serve(int)"),
    (StackPlace(AT, 4712, "(anonymous namespace)::serve", -24), "stack",
     "stack of thread 4712 in (anonymous namespace)::serve()"),
    (StackPlace(AT, 4712, None, -24, "libfoo.so+0x1170"), "stack", "stack of thread 4712 in libfoo.so+0x1170"),
    (StackPlace(AT, 4712), "stack", "stack of thread 4712"),
    (RegisterPlace(4712, "rbx", "main"), "register", "register rbx of thread 4712 in main()"),
    (RegisterPlace(4712, "rbx"), "register", "register rbx of thread 4712"),
    (ThreadLocalPlace(AT, 4712, "session", 0, "/srv/web"), "thread-local", "thread-local session"),
    (ThreadLocalPlace(AT, 4712, "sessions", 8, "/srv/web"), "thread-local", "thread-local sessions+0x8"),
    (ThreadLocalPlace(AT, 4712, ".tbss", 8, "/srv/web", is_symbol=False), "thread-local",
     "web .tbss+0x8 of thread 4712"),
    (ThreadLocalPlace(AT, 4712), "thread-local", "thread-local memory of thread 4712"),
    (MemoryPlace(AT, "[heap]"), "memory", "untracked memory in [heap]"),
    (MemoryPlace(AT, ""), "memory", "untracked anonymous memory at 0x7f00deadbee8"),
    (MemoryPlace(AT, None), "memory", "address 0x7f00deadbee8, where nothing is mapped"),
])
def test_the_words_for_a_place(place: PointerPlace, kind: str, words: str) -> None:
    """A place says its kind, and itself in one short phrase."""
    assert (place.kind, place.words()) == (kind, words)


def test_a_chain_begins_at_its_root() -> None:
    """One line for the root, one for each block; the last says no offset, as it points at nothing in the chain."""
    blocks = [ChainBlock(0x1000, 4096, 0x40, "make_table"), ChainBlock(0x2000, 64, None, "make_node")]
    assert chain(GlobalPlace(AT, "table", 0x18, "/srv/web"), blocks) == (
        "global table+0x18 [web]",
        "block of 4,096 bytes allocated by make_table() at +0x40",
        "block of 64 bytes allocated by make_node()",
    )


@pytest.mark.parametrize(("block", "words"), [
    (ChainBlock(0x1000, 64), "block of 64 bytes at 0x1000"),
    (ChainBlock(0x1000, 64, 8), "block of 64 bytes at 0x1000+0x8"),
    (ChainBlock(0x1000, 1, 0, "one"), "block of 1 byte allocated by one() at +0x0"),
    (ChainBlock(0x1000, 64, None, "std::vector<int>::reserve(unsigned long)"),
     "block of 64 bytes allocated by std::vector<int>::reserve(unsigned long)"),
])
def test_the_words_for_a_block(block: ChainBlock, words: str) -> None:
    """A block whose allocation has no name is told by its address."""
    assert block.words() == words


def test_a_root_may_point_at_nothing_else() -> None:
    """A chain without blocks is its root."""
    assert chain(RegisterPlace(7, "rax", "main"), []) == ("register rax of thread 7 in main()",)
