"""The blocks that the kernel's leak detector lists, in the formats of different kernels."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tracer.attach.kmemleak import LeakFrame, Unreferenced, new_since, parse_kmemleak, read_unreferenced, scan
from tracer.errors import CannotTrace

OLD = b"""unreferenced object 0xffff888012340000 (size 96):
  comm "made "quoted"", pid 411, jiffies 4294901234 (age 77.123s)
  hex dump (first 32 bytes):
    66 6f 6f 2b 30 78 31 2f 30 78 32 00 00 00 00 00  foo+0x1/0x2.....
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace:
    [<00000000aabbccdd>] kmem_cache_alloc+0x12a/0x290
    [<ffffffffc0123456>] ring_alloc.isra.0+0x1f/0x60 [made_ring]
    [<ffffffff81000000>] 0xffffffffc0999999
unreferenced object 0xffff888012341000 (size 4096):
  comm "swapper/0", pid 1, jiffies 4294892300
  backtrace:
    [<ffffffff81234567>] vmalloc+0x4b/0x50
"""
NEW = b"""unreferenced object 0xffff888055550000 (size 64):
  comm "insmod", pid 98, jiffies 4294740000
  hex dump (first 8 bytes):
    00 01 02 03 04 05 06 07  ........
  backtrace (crc b1a2c3d4):
    __kmalloc_cache_noprof+0x22b/0x2f0
    made_init+0x10/0x1000 [made 0123456789abcdef]
    do_one_initcall+0x57/0x310
unreferenced object 0x607ee8c0 (size 16):
  comm "insmod", pid 98, jiffies 4294740001
  hex dump (first 16 bytes on cpu 1):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 0):
    pcpu_alloc_noprof+0x590/0x8e0
unreferenced object 0xffff888055551000 (size 8):
  comm "insmod", pid 98, jiffies 4294740002
  backtrace (crc 0):
    0xffffffffc0abc089
"""


def test_older_kernels_are_read() -> None:
    """Address, size, task, time and frames are told of a block with age, addresses and content, and of one without."""
    assert parse_kmemleak(OLD) == (
        Unreferenced(0xFFFF888012340000, 96, 'made "quoted"', 411, 4294901234, (
            LeakFrame("kmem_cache_alloc", 0x12A), LeakFrame("ring_alloc.isra.0", 0x1F, "made_ring"), LeakFrame(None, 0))),
        Unreferenced(0xFFFF888012341000, 4096, "swapper/0", 1, 4294892300, (LeakFrame("vmalloc", 0x4B),)),
    )


def test_newer_kernels_are_read() -> None:
    """A backtrace with a checksum and without addresses gives the same, and blocks per processor are known as such."""
    first, second, third = parse_kmemleak(NEW)
    assert first == Unreferenced(0xFFFF888055550000, 64, "insmod", 98, 4294740000, (
        LeakFrame("__kmalloc_cache_noprof", 0x22B), LeakFrame("made_init", 0x10, "made"), LeakFrame("do_one_initcall", 0x57)))
    assert second.percpu and not first.percpu and not third.percpu
    assert third.frames == (LeakFrame(None, 0),)
    assert (second.address, second.size, second.functions) == (0x607EE8C0, 16, ("pcpu_alloc_noprof",))


def test_content_is_no_frame() -> None:
    """What a block holds is chosen by who wrote it, and never read as its stack."""
    text = OLD.replace(b"    66 6f 6f 2b 30 78 31 2f 30 78 32 00 00 00 00 00  foo+0x1/0x2.....", b"    foo+0x1/0x2")
    assert parse_kmemleak(text) == parse_kmemleak(OLD)


def test_the_last_block_may_be_cut_off() -> None:
    """A text that ends within a stack gives the frames that came, and one that ends before it gives no block."""
    text = NEW[:NEW.index(b"do_one_initcall")]
    assert [len(block.frames) for block in parse_kmemleak(text)] == [2]
    stackless = NEW[:NEW.index(b"  backtrace")]
    assert parse_kmemleak(stackless) == ()
    assert parse_kmemleak(stackless + OLD) == parse_kmemleak(OLD)


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\x00" * 99, b"  backtrace:\n    a+0x1/0x2\n", b"unreferenced object 0xzz (size 1):\n  backtrace:\n    a+0x1/0x2\n"])
def test_other_text_gives_no_blocks(data: bytes) -> None:
    """What is no list of blocks gives none, and is no error."""
    assert parse_kmemleak(data) == ()


def test_a_block_is_new_if_it_was_not_there_before() -> None:
    """A block at an address that was listed is new only if it was allocated at another time."""
    before, after = parse_kmemleak(OLD), parse_kmemleak(OLD.replace(b"jiffies 4294892300", b"jiffies 4294999999") + NEW)
    assert [block.address for block in new_since(before, after)] == [
        0xFFFF888012341000, 0xFFFF888055550000, 0x607EE8C0, 0xFFFF888055551000]


def test_memory_is_scanned_twice_before_blocks_are_read(tmp_path: Path) -> None:
    """A new block counts as changed for one scan, so two are made."""
    detector = tmp_path / "kmemleak"
    asked: list[Path] = []

    def scanned(path: Path) -> None:
        asked.append(path)
        path.write_bytes(NEW if len(asked) == 2 else b"")

    assert len(read_unreferenced(detector, scan=scanned)) == 3
    assert asked == [detector, detector]


def test_a_scan_is_a_word_to_the_file(tmp_path: Path) -> None:
    """The word is written to the detector's file, which is not made where there is none."""
    detector = tmp_path / "kmemleak"
    with pytest.raises(FileNotFoundError):
        scan(detector)
    assert not detector.exists()
    detector.touch()
    scan(detector)
    assert detector.read_bytes() == b"scan"


@pytest.mark.parametrize(("number", "message", "remedy"), [
    (errno.EPERM, "switched off", "kmemleak=on"),
    (errno.EBUSY, "switched off", "kmemleak=on"),
    (errno.EACCES, "may not use", "sudo"),
    (errno.EIO, "Input/output error", "dmesg"),
])
def test_a_detector_that_refuses_is_explained(number: int, message: str, remedy: str) -> None:
    """Switched off and forbidden are told apart, each with its remedy."""
    def refuse(path: Path) -> None:
        raise OSError(number, "Input/output error")

    with pytest.raises(CannotTrace) as raised:
        read_unreferenced(Path("kmemleak"), scan=refuse)
    assert message in raised.value.message and remedy in raised.value.remedy


def test_an_absent_detector_names_the_option(tmp_path: Path) -> None:
    """Without its file, the error names the kernel option and the mount."""
    with pytest.raises(CannotTrace) as raised:
        read_unreferenced(tmp_path / "debug" / "kmemleak")
    assert "CONFIG_DEBUG_KMEMLEAK" in raised.value.remedy and "mount -t debugfs" in raised.value.remedy
