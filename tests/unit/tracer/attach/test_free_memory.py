"""Which memory of a process nobody has: of a program that says where its blocks are, and of made-up folders."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tracer.attach.free_memory import free_memory

#: Frees one block of a size that goes to the caches, one that goes to the lists, and keeps one behind each.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    char *cached = malloc(100), *kept = malloc(200), *freed = malloc(20000), *last = malloc(300);
    free(cached);
    free(freed);
    /* Without buffers: they would be made of what was freed, the one to read while it is being looked at. */
    setbuf(stdin, NULL);
    setbuf(stdout, NULL);
    printf("%p %p %p %p\n", cached, kept, freed, last);
    return getchar();
}
"""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """A process's folder, and the addresses of its blocks: cached, kept, freed, last."""
    program = tmp_path_factory.mktemp("free") / "program"
    subprocess.run(["gcc", "-O0", "-w", "-x", "c", "-o", program, "-"], input=PROGRAM.encode(), check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        yield Path(f"/proc/{process.pid}"), [int(word, 16) for word in line]


def covers(spans: np.ndarray, address: int) -> bool:
    return any(start <= address < end for start, end in spans.tolist())


def test_free_chunks_are_free_and_blocks_are_not(blocks: tuple[Path, list[int]]) -> None:
    """A block in a cache and one in a list are found; those in use between them are not, to their last bytes."""
    folder, (cached, kept, freed, last) = blocks
    spans = free_memory(folder, all_is_known=False)
    assert spans.dtype == np.uint64 and spans.shape[1] == 2
    assert [covers(spans, address) for address in (cached + 16, kept, kept + 199, freed + 100, freed + 19_000, last)] == [
        True, False, False, True, True, False]


def test_where_all_is_known_the_heap_is_free(blocks: tuple[Path, list[int]]) -> None:
    """If every block is on record, what else lies in malloc's heap is nobody's; blocks themselves are not looked at."""
    folder, addresses = blocks
    spans = free_memory(folder, all_is_known=True)
    assert all(covers(spans, address) for address in addresses)
    stack = next(int(line.split(b"-")[0], 16) for line in (folder / "maps").read_bytes().splitlines() if line.endswith(b"[stack]"))
    assert not covers(spans, stack)


@pytest.mark.parametrize("known", [True, False])
def test_mallocs_own_books(blocks: tuple[Path, list[int]], known: bool) -> None:
    """The lists in libc's data begin with links into the heap: they are no roots."""
    folder, _ = blocks
    data = [tuple(int(word, 16) for word in line.split()[0].split(b"-"))
            for line in (folder / "maps").read_bytes().splitlines() if b" rw-p " in line and b"/libc" in line]
    if not data:
        pytest.skip("this C library is not glibc")
    spans = free_memory(folder, all_is_known=known)
    assert any(covers(np.array(data, np.uint64), start) for start, _ in spans.tolist())


@pytest.mark.parametrize("maps", [b"", b"rubbish\n", b"1000-2000 rw-p 00000000 00:00 0 [heap]\n",
                                  b"ffffffffff600000-ffffffffff601000 rw-p 00000000 00:00 0 \n"])
def test_no_malloc(tmp_path: Path, maps: bytes) -> None:
    """Without glibc's malloc nothing is known to be free, whatever else is mapped, and nothing is an error."""
    (tmp_path / "maps").write_bytes(maps)
    (tmp_path / "mem").write_bytes(bytes(8192))
    assert free_memory(tmp_path, all_is_known=True).shape == (0, 2)


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    """Nothing of it is free."""
    assert free_memory(tmp_path / "gone", all_is_known=False).shape == (0, 2)
