"""The kernel's ring buffer, laid out in a memory file as kernel/bpf/ringbuf.c does it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.collect.ring import BUSY, DISCARDED, TURN, RecordQueue, Ring

SIZE = mmap.PAGESIZE


class Producer:
    """The kernel's end: a page of the consumer's position, a page of the producer's, and the data twice in a row."""

    def __init__(self, start: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.position = start
        self._set(0, start)
        self._set(mmap.PAGESIZE, start)
        self.ring = Ring(self.fd, SIZE)

    def _set(self, at: int, value: int) -> None:
        os.pwrite(self.fd, struct.pack("<Q", value), at)

    def _put(self, position: int, data: bytes) -> None:
        for index, byte in enumerate(data):
            place = 2 * mmap.PAGESIZE + (position + index) % SIZE
            for copy in (place, place + SIZE):
                os.pwrite(self.fd, bytes([byte]), copy)

    def add(self, data: bytes, flags: int = 0) -> int:
        """Reserve and write one record; return its position."""
        at = self.position
        assert at + (len(data) + 15 & ~7) - self.consumed() <= SIZE, "the ring is full"
        self._put(at, struct.pack("<II", len(data) | flags, 0xFFFF) + data)
        self.position = at + (8 + len(data) + 7 & ~7)
        self._set(mmap.PAGESIZE, self.position)
        return at

    def commit(self, at: int, length: int, flags: int = 0) -> None:
        """Take the busy mark off a record."""
        self._put(at, struct.pack("<I", length | flags))

    def consumed(self) -> int:
        """Return the position that the consumer has written."""
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    os.close(made.fd)


def read(ring: Ring, position: int = 0) -> list[tuple[int, bytes | None]]:
    return [(after, None if data is None else bytes(data)) for after, data in ring.records(position)]


def test_records_in_order(producer: Producer) -> None:
    """Records come with their bytes and the position after each, which is a multiple of 8."""
    producer.add(b"first")
    producer.add(b"12345678")
    producer.add(b"")
    assert read(producer.ring) == [(16, b"first"), (32, b"12345678"), (40, b"")]
    assert read(producer.ring, 16) == [(32, b"12345678"), (40, b"")]
    assert read(producer.ring, 40) == []


def test_a_busy_record_holds_up_what_follows(producer: Producer) -> None:
    """A record that is still being written ends the reading until it is committed."""
    producer.add(b"done")
    at = producer.add(b"busy", BUSY)
    producer.add(b"behind")
    assert read(producer.ring) == [(16, b"done")]
    producer.commit(at, 4)
    assert read(producer.ring) == [(16, b"done"), (32, b"busy"), (48, b"behind")]


def test_a_discarded_record_is_passed(producer: Producer) -> None:
    """A record that was given up takes its place, and has no bytes."""
    producer.add(b"gone", DISCARDED)
    producer.add(b"here")
    assert read(producer.ring) == [(16, None), (32, b"here")]


def test_positions_go_on_beyond_the_size() -> None:
    """Positions only grow; a record that wraps around the end is still one piece."""
    producer = Producer(start=7 * SIZE - 16)
    text = bytes(range(100))
    producer.add(text)
    producer.add(b"next")
    assert producer.ring.consumed() == 7 * SIZE - 16
    assert read(producer.ring, producer.ring.consumed()) == [(7 * SIZE - 16 + 112, text), (7 * SIZE + 112, b"next")]
    os.close(producer.fd)


def test_release(producer: Producer) -> None:
    """What is released is what the kernel sees."""
    producer.ring.release(4711 << 32)
    assert producer.consumed() == producer.ring.consumed() == 4711 << 32


class Handled:
    """Who handles records: notes them, and that the kernel could not yet write over the one at hand."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.records: list[bytes] = []
        self.begins: dict[bytes, int] = {}
        self.queue = RecordQueue(producer.ring, lambda record: bytes(record[:1]) == b"!", self.handle)

    def add(self, data: bytes, flags: int = 0) -> int:
        self.begins[data] = at = self.producer.add(data, flags)
        return at

    def handle(self, record: memoryview) -> None:
        data = bytes(record)
        assert self.producer.consumed() <= self.begins[data], f"{data!r} was released before it was handled"
        self.records.append(data)


def test_urgent_records_first(producer: Producer) -> None:
    """Urgent records are handled as soon as they are seen, and one of the others, in their order, after each."""
    handled = Handled(producer)
    for data in (b"a", b"b", b"!1", b"c", b"!2"):
        handled.add(data)
    assert handled.queue.drain()
    assert handled.records == [b"!1", b"a", b"!2", b"b", b"c"]
    assert producer.consumed() == producer.position


def test_a_turn(producer: Producer) -> None:
    """An urgent record that comes while others are handled waits for one turn only."""

    class Interrupted(Handled):
        def handle(self, record: memoryview) -> None:
            super().handle(record)
            if len(self.records) == 3:
                self.add(b"!now")

    handled = Interrupted(producer)
    plain = [b"%03d" % number for number in range(TURN + 10)]
    for data in plain:
        handled.add(data)
    assert handled.queue.drain()
    assert handled.records == [*plain[:TURN], b"!now", *plain[TURN:]]


def test_room_comes_back_at_once(producer: Producer) -> None:
    """After each record the kernel gets its room: a thread of the program may be waiting for it."""
    seen: list[int] = []
    queue = RecordQueue(producer.ring, lambda _: False, lambda _: seen.append(producer.consumed()))
    begins = [producer.add(b"%03d" % number) for number in range(2 * TURN + 1)]
    queue.drain()
    assert seen == begins


def test_nothing_new(producer: Producer) -> None:
    """drain says whether there was anything, also where it was discarded; a busy record is nothing yet."""
    handled = Handled(producer)
    assert not handled.queue.drain()
    producer.add(b"gone", DISCARDED)
    assert handled.queue.drain() and producer.consumed() == 16
    at = handled.add(b"busy", BUSY)
    assert not handled.queue.drain() and producer.consumed() == 16
    producer.commit(at, 4)
    assert handled.queue.drain() and handled.records == [b"busy"]


def test_it_begins_where_the_ring_was_released() -> None:
    """A queue made for a ring in use does not handle old records again."""
    producer = Producer(start=SIZE + 8)
    handled = Handled(producer)
    handled.add(b"new")
    handled.queue.drain()
    assert handled.records == [b"new"]
    os.close(producer.fd)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.binary(max_size=40), st.booleans(), st.booleans()), max_size=12), max_size=12))
def test_every_record_once(rounds: list[list[tuple[bytes, bool, bool]]]) -> None:
    """Whatever comes, each record that was not discarded is handled once, the ordinary ones in their order."""
    producer = Producer(start=SIZE - 64)
    handled = Handled(producer)
    number = 0
    expected: list[bytes] = []
    for batch in rounds:
        for data, urgent, discarded in batch:
            number += 1
            whole = (b"!" if urgent else b" ") + b"%d " % number + data
            handled.add(whole, DISCARDED if discarded else 0)
            if not discarded:
                expected.append(whole)
        handled.queue.drain()
        assert producer.consumed() == producer.position
    assert sorted(handled.records) == sorted(expected)
    assert [each for each in handled.records if each[:1] == b" "] == [each for each in expected if each[:1] == b" "]
    os.close(producer.fd)
