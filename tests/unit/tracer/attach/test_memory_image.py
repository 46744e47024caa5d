"""The order of a scan, of a small process that waits for input and so does not have to be stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tracer.attach.memory_image import SMALLEST_BUFFER, MemoryReader, available
from tracer.attach.resident_pages import PAGE
from tracer.attach.stopping import Stand


@pytest.fixture
def waits() -> Iterator[int]:
    """The pid of a process that waits."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)
        yield process.pid
        process.kill()


class Order:
    """Takes down what happens when."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.events: list[str] = []
        self.words: dict[int, np.ndarray] = {}

    @contextmanager
    def hold(self) -> Iterator[Stand]:
        self.events.append("stop")
        yield Stand(self.pid, ())
        self.events.append("go")

    def ledger(self) -> int:
        self.events.append("ledger")
        return 7

    def consume(self, address: int, words: np.ndarray) -> None:
        if self.events[-1] != "consume":
            self.events.append("consume")
        self.words[address] = words.copy()


def test_memory_is_handed_on_when_the_threads_run_again(waits: int) -> None:
    """The table is read while the threads stand, and the copy is used when they do not."""
    order = Order(waits)
    result = MemoryReader(waits, 1 << 30, hold=order.hold).read(order.ledger, order.consume)
    assert order.events == ["stop", "ledger", "go", "consume"]
    assert (result.ledger, result.streamed, result.bytes_unreadable) == (7, False, 0)
    assert result.bytes_read <= sum(words.nbytes for words in order.words.values())
    stack = next(mapping for mapping in result.facts.mappings if mapping.path == "[stack]")
    assert any(stack.start <= address < stack.end for address in order.words)


def test_more_than_fits_is_handed_on_part_by_part(waits: int) -> None:
    """With too small a buffer the threads stand while parts are used; together these are the same memory."""
    whole, parts = Order(waits), Order(waits)
    MemoryReader(waits, 1 << 30, hold=whole.hold).read(whole.ledger, whole.consume)
    result = MemoryReader(waits, 5 * PAGE, hold=parts.hold).read(parts.ledger, parts.consume)
    assert parts.events == ["stop", "ledger", "consume", "go"]
    assert result.streamed
    assert max(words.nbytes for words in parts.words.values()) <= 5 * PAGE

    def pages(order: Order) -> dict[int, bytes]:
        return {address + at: page for address, words in order.words.items()
                for at in range(0, words.nbytes, PAGE) if any(page := words.tobytes()[at : at + PAGE])}

    assert pages(parts) == pages(whole)


def test_a_ledger_that_fails_lets_go(waits: int) -> None:
    """What the table's reader raises arrives, and nothing is handed on."""
    order = Order(waits)

    def fail() -> int:
        raise ValueError("no table")

    with pytest.raises(ValueError, match="no table"):
        MemoryReader(waits, 1 << 30, hold=order.hold).read(fail, order.consume)
    assert "consume" not in order.events


@pytest.mark.parametrize("max_bytes", [1 << 30, 5 * PAGE])
def test_an_image_of_what_was_let_loose_is_none(waits: int, max_bytes: int) -> None:
    """Where the process that stood is not there any more after the copy, the copy is not handed on."""
    order = Order(waits)

    @contextmanager
    def hold() -> Iterator[Stand]:
        yield Stand(1 << 30, ())

    with pytest.raises(ProcessLookupError, match="ran another program"):
        MemoryReader(waits, max_bytes, hold=hold).read(order.ledger, order.consume)
    assert "consume" not in order.events


def test_no_process() -> None:
    """A process that is gone is said to be, before anything else is tried."""
    order = Order(1 << 30)
    with pytest.raises(ProcessLookupError, match="is gone"):
        MemoryReader(1 << 30, 1 << 30, hold=order.hold).read(order.ledger, order.consume)
    assert order.events == []


def test_available_memory_comes_from_the_machine(tmp_path: Path) -> None:
    """What is free bounds the copy; where nobody tells, it is as small as makes sense."""
    assert available(tmp_path) == SMALLEST_BUFFER
    (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:    300 kB\n")
    assert available(tmp_path) == 300 * 1024
