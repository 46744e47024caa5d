"""The kernel's account of its allocations by line, whether it is kept, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach.alloc_info import Profiling, TaggedSite, parse_alloc_info, profiling, read_alloc_info
from tracer.errors import CannotTrace

FIRST = b"""allocinfo - version: 1.0
#     <size>  <calls> <tag info>
        4096        1 fs/made/tree.c:71 func:made_tree_grow
      131072     1024 drivers/made/ring.c:9 [made_ring] func:ring_alloc
         -64        0 lib/made.c:5 func:made_free
"""
SECOND = b"""allocinfo - version: 2.0
#     <size>  <calls> <tag info>
          96        2 fs/made/tree.c:80 func:made_tree_copy accurate:no\x20
          32        1 lib/made.c:6 func:made_one\x20
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "sys" / "vm" / "mem_profiling").write_text("1\n")
    (tmp_path / "allocinfo").write_bytes(FIRST)
    return tmp_path


def test_a_line_has_place_module_and_amount(proc: Path) -> None:
    """Size, number, file, line, module and function of each line are told, also a size below zero."""
    assert read_alloc_info(proc) == (
        TaggedSite("fs/made/tree.c", 71, "made_tree_grow", None, 4096, 1),
        TaggedSite("drivers/made/ring.c", 9, "ring_alloc", "made_ring", 131072, 1024),
        TaggedSite("lib/made.c", 5, "made_free", None, -64, 0),
    )


def test_lines_that_are_not_exact_are_known() -> None:
    """From version 2.0 on, the kernel says which of its figures miss something."""
    assert [(site.function, site.accurate) for site in parse_alloc_info(SECOND)] == [
        ("made_tree_copy", False), ("made_one", True)]


def test_a_module_may_be_named_in_words() -> None:
    """Where the module is not in brackets but named, it is found as well."""
    (site,) = parse_alloc_info(b"8 1 a/b.c:3 module:made func:f\n")
    assert (site.module, site.function) == ("made", "f")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\x00\xff" * 50, b"12 a/b.c:3 func:f", b"1 2 a/b.c func:f", b"1 2 a/b.c:3 f",
                                  b"1 2 a/b.c:3 func:"])
def test_other_lines_are_passed_over(data: bytes) -> None:
    """What is no line of the account gives nothing, and is no error."""
    assert parse_alloc_info(data) == ()


@pytest.mark.parametrize(("switch", "mode", "state", "remedy"), [
    ("0\n", 0o644, Profiling.OFF, "vm.mem_profiling=1"),
    ("0\n", 0o444, Profiling.FIXED_OFF, "command line"),
    (None, 0, Profiling.ABSENT, "CONFIG_MEM_ALLOC_PROFILING"),
])
def test_why_there_is_no_account_is_told(proc: Path, switch: str | None, mode: int, state: Profiling, remedy: str) -> None:
    """Switched off, off for good and built without are told apart, and each has its own remedy."""
    path = proc / "sys" / "vm" / "mem_profiling"
    path.unlink()
    if switch is None:
        (proc / "allocinfo").unlink()
    else:
        path.write_text(switch)
        path.chmod(mode)
    assert profiling(proc) is state
    with pytest.raises(CannotTrace) as raised:
        read_alloc_info(proc)
    assert remedy in raised.value.remedy


def test_the_account_is_on_where_the_switch_says_so(proc: Path) -> None:
    """The switch decides, and where the kernel has none, that there is an account; a fixed switch may be on."""
    path = proc / "sys" / "vm" / "mem_profiling"
    path.chmod(0o444)
    assert profiling(proc) is Profiling.ON
    path.unlink()
    assert profiling(proc) is Profiling.ON


def test_an_account_that_cannot_be_read_is_named(proc: Path) -> None:
    """The error names the file."""
    (proc / "allocinfo").unlink()
    with pytest.raises(CannotTrace, match="allocinfo"):
        read_alloc_info(proc)
