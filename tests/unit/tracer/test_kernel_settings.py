"""What a trace of the kernel was told becomes sizes of maps and constants of the C side."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import bpf
from tracer import kernel_settings, limits
from tracer.kernel_settings import RING_BYTES, KernelSettings
from tracer.settings import INITIAL_PID_NAMESPACE, Settings

MAPS_H = (Path(bpf.__file__).parent / "kernel_maps.h").read_text()
CONSTANTS = {"KERNEL", "MAX_DEPTH", "KERNEL_FRAMES", "MAX_SITES", "MAX_SLOTS", "RULE_BUCKET_BITS", "STACK_COPY", "RING_BYTES", "LATEST_SITES"}


@pytest.fixture(autouse=True)
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one node of NUMA."""
    path = tmp_path / "possible"
    path.write_text("0\n")
    monkeypatch.setattr(kernel_settings, "NODES", path)
    return path


@pytest.mark.parametrize(("chosen", "sources"), [
    ({}, ("slab", "pages")), ({"vmalloc": True, "percpu": True}, ("slab", "pages", "percpu", "vmalloc")),
    ({"slab": False, "pages": False, "percpu": True}, ("percpu",)),
])
def test_sources(chosen: dict[str, bool], sources: tuple[str, ...]) -> None:
    """Slab and pages, unless told otherwise, always in one order."""
    assert KernelSettings(**chosen).sources == sources  # type: ignore[arg-type]


def test_ages_are_in_milliseconds() -> None:
    """--older is given in milliseconds and compared in nanoseconds; without it, all blocks are old enough."""
    assert (KernelSettings().older_ns, KernelSettings(older_ms=0.5).older_ns, KernelSettings(older_ms=0).older_ns) == (0, 500_000, 0)


@pytest.mark.parametrize("atomics", [True, False])
def test_every_map_has_entries(atomics: bool) -> None:
    """Each map of bpf/kernel_maps.h that has more than one entry is named, and no other one."""
    entries = KernelSettings().map_entries(atomics=atomics)
    declared = set(re.findall(r'^BPF_(?:F_)?TABLE\("\w+", [^,]+, [^,]+(?:, )?[^,]*, (\w+), 1', MAPS_H, re.MULTILINE)) | {"ring"}
    assert set(entries) <= declared
    # An array for each processor has one entry, and so has what keeps one number; scratch has a place for each nesting.
    assert declared - set(entries) == {"cursor", "kernel_cpus"}
    assert entries["kernel_scratch"] == int(re.findall(r"#define NESTING (\d+)", MAPS_H)[0])
    assert entries["losses"] == limits.LOSSES and entries["wanted_groups"] == limits.MAX_GROUPS


def test_sizes_follow_what_was_asked_for() -> None:
    """One site more than stacks, and the one without a stack; as many buckets as blocks need; and the same in the C."""
    settings = KernelSettings(max_stacks=100, max_outstanding=7000)
    entries, made = settings.map_entries(atomics=True), settings.definitions(atomics=True)
    assert {entries[name] for name in ("sites", "stacks", "kernel_sites", "site_of_stack", "claimed")} == {102} == {made["MAX_SITES"]}
    assert entries["blocks"] == made["BLOCK_BUCKETS"] == 750
    assert entries["rules"] == 1 << limits.RULE_BUCKET_BITS and made["RULE_BUCKET_BITS"] == limits.RULE_BUCKET_BITS
    assert entries["ring"] == RING_BYTES and RING_BYTES & RING_BYTES - 1 == 0


def test_all_blocks_have_room() -> None:
    """Buckets and what overflows hold what was asked for; without atomics all is in the hash map."""
    for count in (1, 1000, 1_000_000):
        settings = KernelSettings(max_outstanding=count)
        with_ = settings.map_entries(atomics=True)
        assert with_["blocks"] * limits.BLOCKS_PER_BUCKET + with_["overflow"] >= 0.8 * count
        assert settings.map_entries(atomics=False)["overflow"] >= count
        assert with_["overflow"] >= 64


def test_definitions_of_a_plain_trace() -> None:
    """Nothing but what the C always needs: no filter costs anything that was not asked for."""
    assert set(KernelSettings().definitions(atomics=False)) == CONSTANTS
    assert set(KernelSettings().definitions(atomics=True)) == CONSTANTS | {"ATOMICS", "BLOCK_BUCKETS"}


def test_nodes_are_asked_for_where_there_are_several(nodes: Path) -> None:
    """One node is every block's; where it is not known how many there are, there is one."""
    nodes.write_text("0-1\n")
    assert "SEVERAL_NODES" in KernelSettings().definitions(atomics=False)
    nodes.unlink()
    assert "SEVERAL_NODES" not in KernelSettings().definitions(atomics=False)


@pytest.mark.parametrize(("settings", "added"), [
    (KernelSettings(min_size=0), {"MIN_SIZE": 0}), (KernelSettings(max_size=16), {"MAX_SIZE": 16}),
    (KernelSettings(cgroups=("/a",)), {"WANTED_GROUPS": limits.MAX_GROUPS}),
])
def test_filters(settings: KernelSettings, added: dict[str, int]) -> None:
    """Each filter is one constant; a smallest size of 0 is one too."""
    made = settings.definitions(atomics=False)
    assert {name: made[name] for name in set(made) - CONSTANTS} == added


def test_processes_as_leaktrace_numbers_them() -> None:
    """Where leaktrace is in a namespace of processes of its own, the C is told which: its numbers are meant."""
    made = KernelSettings(pids=(7,)).definitions(atomics=False)
    namespace = os.stat("/proc/self/ns/pid")
    inside = {"PID_NAMESPACE_DEVICE": namespace.st_dev, "PID_NAMESPACE_INODE": namespace.st_ino}
    assert {name: made[name] for name in set(made) - CONSTANTS} == {"WANTED_PROCESSES": None} | (
        inside if namespace.st_ino != INITIAL_PID_NAMESPACE else {})


def test_depth_is_that_of_stacks_and_of_walks() -> None:
    """The walk keeps as many frames as a stack has room for."""
    made = KernelSettings(depth=9).definitions(atomics=False)
    assert made["MAX_DEPTH"] == made["KERNEL_FRAMES"] == 9


def test_reports_find_what_they_ask_settings_for() -> None:
    """What is common to both kinds of traces has the same name and means the same where nothing was said."""
    mine, theirs = KernelSettings(), Settings(pids=(1,))
    for name in ("interval", "count", "duration", "show_allocs", "top", "sort", "format", "max_outstanding", "max_stacks", "depth",
                 "raw_stacks", "sample_bytes", "sample_rate", "sampling", "follows", "min_size", "max_size", "older_ms", "verbose"):
        assert getattr(mine, name) == getattr(theirs, name), name
