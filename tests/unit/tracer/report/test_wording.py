"""What reports say alike: sizes, numbers of blocks, and what a site is known by."""

from __future__ import annotations

import pytest

from symbolizer.frame import Frame
from tracer.report.wording import blocks, known_by, size


@pytest.mark.parametrize(("bytes_", "words"), [
    (0, "0 bytes"), (1, "1 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1024, "1.0 kB"), (9_900, "9.7 kB"),
    (10 << 10, "10 kB"), (999 << 10, "999 kB"), (1000 << 10, "1.0 MB"), (812 << 20, "812 MB"), (3 << 30, "3.0 GB"),
    (5 << 40, "5.0 TB"), (5000 << 40, "5000 TB"), (-2048, "-2.0 kB"), (-3, "-3 bytes"), (1536.4, "1.5 kB"),
])  # fmt: skip
def test_sizes(bytes_: float, words: str) -> None:
    """Two or three digits and a unit, below 1,000 of each; a loss has a sign."""
    assert size(bytes_) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 blocks"), (1, "1 block"), (2, "2 blocks"), (1_234_567, "1,234,567 blocks")])
def test_blocks(count: int, words: str) -> None:
    """One is one, and many are grouped by thousands."""
    assert blocks(count) == words


def test_known_by() -> None:
    """The innermost function with a name that is not the runtime's own, else the innermost with a name; else none."""
    nameless, inner, outer = Frame(2, module="/usr/bin/server"), Frame(3, "make_node", module="/usr/lib/libnode.so"), Frame(4, "main")
    for runtime in ("/lib/libstdc++.so.6.0.30", "/lib/libc.so.6", "/lib/libc-2.31.so", "/lib/ld-musl-x86_64.so.1", "/lib/libc++.so.1"):
        allocator = Frame(1, "operator new", module=runtime)
        assert known_by((allocator, nameless, inner, outer)) == "make_node"
        assert known_by((nameless, allocator, nameless)) == "operator new"
    assert known_by((Frame(1, "getc", module="/usr/lib/libcurl.so"), outer)) == "getc", "a library that is not the runtime"
    assert known_by((nameless, outer)) == "main"
    assert known_by((nameless,)) is None and known_by(()) is None
