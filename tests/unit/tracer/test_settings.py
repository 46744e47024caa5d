"""Settings become the C side's constants."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tracer import limits
from tracer.settings import INITIAL_PID_NAMESPACE, AttachWay, Settings, UnwindWay

ALWAYS = {
    "MAX_DEPTH", "MAX_SITES", "MAX_SLOTS", "RULE_BUCKET_BITS", "RING_BYTES", "STACK_COPY", "MAX_WAITING",
}  # fmt: skip
ATOMICS = {"ATOMICS", "BLOCK_BUCKETS"}
#: Not in the machine's own namespace of process ids.
NAMESPACE = {"PID_NAMESPACE_DEVICE", "PID_NAMESPACE_INODE"}


@pytest.mark.parametrize(("way", "own"), [
    (AttachWay.SESSION, {"SESSION"}), (AttachWay.MULTI, set()), (AttachWay.PERF, {"PROBES_BY_ADDRESS"}),
])
def test_ways(way: AttachWay, own: set[str]) -> None:
    """Each way to attach has its flag, and nothing else differs."""
    made = set(Settings().definitions(way)) - NAMESPACE
    assert made == ALWAYS | ATOMICS | {"HOLD_EXECS"} | own
    for staying in (Settings(follow_forks=True), Settings(command=("ls",), reachability=True)):
        assert set(staying.definitions(way)) - NAMESPACE == made - {"HOLD_EXECS"}, "a follower holds execs itself"


def test_sizes() -> None:
    """What the C knows of sizes is what was asked for, and the limits that both sides share."""
    made = Settings(depth=17, max_stacks=1000).definitions(AttachWay.MULTI)
    assert (made["MAX_DEPTH"], made["MAX_SITES"]) == (17, 1002)
    assert [made[name] for name in ("MAX_SLOTS", "RULE_BUCKET_BITS", "STACK_COPY")] == [
        limits.MAX_SLOTS, limits.RULE_BUCKET_BITS, limits.STACK_COPY]


def test_the_c_counts_as_the_maps_do() -> None:
    """Bounds that the C computes with are the sizes of the maps that it then looks into."""
    settings = Settings(max_stacks=1000, max_outstanding=5000)
    made, maps = settings.definitions(AttachWay.MULTI), settings.map_entries()
    assert made["MAX_SITES"] == maps["sites"] == maps["stacks"] == maps["claimed"] == maps["site_of_stack"]
    assert made["BLOCK_BUCKETS"] == maps["blocks"] == settings.block_buckets
    assert made["MAX_SLOTS"] == maps["images"] == maps["slots"]
    assert maps["rules"] == 1 << limits.RULE_BUCKET_BITS
    assert maps["losses"] == limits.LOSSES


def test_every_map_has_its_size() -> None:
    """Each map of bpf/maps.h that needs more than one entry is named, and no other."""
    text = (Path(__file__).parents[3] / "bpf" / "maps.h").read_text()
    declared = set(re.findall(r"^BPF_(?:F_)?TABLE\([^;]*?(\w+), 1(?:, \w+)?\);|^BPF_RINGBUF_OUTPUT\((\w+),", text, re.MULTILINE))
    names = {table or ring for table, ring in declared}
    assert names - set(Settings().map_entries()) == {"cursor", "no_flight", "hold_waits"}
    assert set(Settings().map_entries()) <= names


def test_the_least() -> None:
    """The smallest settings leave room: for one site beside site 0, and no division by zero in claim_site()."""
    maps = Settings(max_stacks=1, max_outstanding=1).map_entries()
    assert maps["sites"] > 2
    assert all(size > 0 for size in maps.values())
    # A ring's size is a power of two, of pages (kernel/bpf/ringbuf.c, ringbuf_map_alloc()).
    assert maps["ring"] % 4096 == 0 and maps["ring"] & (maps["ring"] - 1) == 0


def test_the_pid_namespace_is_ours() -> None:
    """Process ids are told as leaktrace itself sees them; where that is as the machine does, nothing need be translated."""
    made, here = Settings().definitions(AttachWay.MULTI), os.stat("/proc/self/ns/pid")
    expected = (None, None) if here.st_ino == INITIAL_PID_NAMESPACE else (here.st_dev, here.st_ino)
    assert (made.get("PID_NAMESPACE_DEVICE"), made.get("PID_NAMESPACE_INODE")) == expected


@pytest.mark.parametrize("blocks", [1, 100, 10_000, 1_000_000, 1 << 28])
def test_room_for_blocks(blocks: int) -> None:
    """Table and overflow together hold at least what was asked for, and not much more where that is a lot."""
    maps = Settings(max_outstanding=blocks).map_entries()
    room = maps["blocks"] * limits.BLOCKS_PER_BUCKET + maps["overflow"]
    assert blocks <= room <= blocks * 1.2 + 200


def test_without_atomics() -> None:
    """A kernel without compare-and-swap gets no table of buckets: the hash map has room for all blocks by itself."""
    made = Settings().definitions(AttachWay.MULTI)
    assert set(made) - set(Settings().definitions(AttachWay.MULTI, atomics=False)) == ATOMICS
    assert Settings(max_outstanding=5000).map_entries(atomics=False)["overflow"] == 5000
    assert Settings(max_outstanding=1).map_entries(atomics=False)["overflow"] >= 1


def test_options_that_become_flags() -> None:
    """Each option has its own name in the C, with its value, also where that is 0; none is there unasked."""
    plain = Settings().definitions(AttachWay.MULTI)
    for settings, expected in (
        (Settings(trace_events=True), {"TRACE_EVENTS": None}),
        (Settings(unwind=UnwindWay.FP), {"FRAME_POINTERS": None}),
        (Settings(min_size=0), {"MIN_SIZE": 0}),
        (Settings(max_size=4096), {"MAX_SIZE": 4096}),
        (Settings(min_size=5, max_size=7), {"MIN_SIZE": 5, "MAX_SIZE": 7}),
        (Settings(sample_rate=10), {"SAMPLING": None, "SAMPLE_COUNT": 10}),
        (Settings(sample_bytes=524288), {"SAMPLING": None, "SAMPLE_BYTES": 524288, "SAMPLE_SHIFT": 0}),
        (Settings(sample_rate=1, sample_bytes=0), {}),
    ):
        assert settings.definitions(AttachWay.MULTI) == plain | expected


@pytest.mark.parametrize(("distance", "shift"), [(1, 0), ((1 << 31) - 1, 0), (1 << 31, 1), ((1 << 48) - 1, 17)])
def test_the_shift_of_large_distances(distance: int, shift: int) -> None:
    """A sampling distance is brought below 2^31, so that a 32-bit number times it fits 64 bits."""
    made = Settings(sample_bytes=distance).definitions(AttachWay.MULTI)
    assert made["SAMPLE_SHIFT"] == shift and distance >> shift < 1 << 31


def test_sampling() -> None:
    """Figures are estimates where not every allocation is looked at."""
    assert not Settings().sampling
    assert Settings(sample_rate=2).sampling and Settings(sample_bytes=1).sampling


@pytest.mark.parametrize(("settings", "stays"), [
    (Settings(), False), (Settings(command=("ls",)), False), (Settings(pids=(7,), reachability=True), False),
    (Settings(command=("ls",), reachability=True), True), (Settings(follow_forks=True), True), (Settings(comms=("web",)), True),
    (Settings(cgroups=("/a",)), True), (Settings(containers=("a",)), True),
])  # fmt: skip
def test_who_is_held_on_to(settings: Settings, stays: bool) -> None:
    """A process is followed to its end where processes come and go, and a command whose memory is looked at in the end."""
    assert settings.stays is stays
    assert ("HOLD_EXECS" in settings.definitions(AttachWay.MULTI)) is not stays
