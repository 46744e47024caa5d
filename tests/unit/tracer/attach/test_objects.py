"""Mapped files by what they are: the same name and inode can hold one content after another."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from symbolizer.mappings import Mapping, object_key, parse_maps
from symbolizer.symbolizer import Symbolizer
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer.attach.objects import KnownRules, Objects
from tracer.attach.target import Process
from tracer.records import INTERRUPTED


@dataclass
class FakeProcess:
    """Whose mapped files are all in one folder."""

    folder: Path

    def file_path(self, mapping: Mapping) -> str:
        path = self.folder / mapping.path.lstrip("/")
        if not path.exists():
            raise FileNotFoundError(path)
        return str(path)


def mapping(path: str = "/lib.so", inode: int = 11) -> Mapping:
    return parse_maps(b"1000-2000 r-xp 00000000 08:01 %d %s\n" % (inode, path.encode()))[0]


@pytest.fixture
def process(tmp_path: Path) -> Process:
    (tmp_path / "lib.so").write_bytes(b"first")
    os.utime(tmp_path / "lib.so", ns=(0, 1_000))
    return cast(Process, FakeProcess(tmp_path))


def objects() -> Objects:
    return Objects(cast(Symbolizer, None))


def test_the_same_file_is_one_object(process: Process) -> None:
    """However often it is looked at, and by whatever process, its content has one number: 0 for the first."""
    made = objects()
    assert [made.content(process, mapping()) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("content", "changed"), [(b"other", 2_000), (b"longer than that", 1_000), (b"shorter", 999)])
def test_a_file_that_was_replaced_is_another_object(process: Process, tmp_path: Path, content: bytes, changed: int) -> None:
    """Under the same path and inode number, another size or time of change is another content; an old one is known again."""
    made = objects()
    assert made.content(process, mapping()) == 0
    (tmp_path / "lib.so").write_bytes(content)
    os.utime(tmp_path / "lib.so", ns=(0, changed))
    number = made.content(process, mapping())
    assert number == 1 == made.content(process, mapping())
    assert object_key(replace(mapping(), content=number)) != object_key(mapping())
    (tmp_path / "lib.so").write_bytes(b"first")
    os.utime(tmp_path / "lib.so", ns=(0, 1_000))
    assert made.content(process, mapping()) == 0


def test_each_file_counts_for_itself(process: Process, tmp_path: Path) -> None:
    """Another path or another inode number begins at 0 again."""
    made = objects()
    assert made.content(process, mapping()) == 0
    (tmp_path / "lib.so").write_bytes(b"second!")
    (tmp_path / "b.so").write_bytes(b"b")
    assert [made.content(process, each) for each in (mapping(inode=12), mapping("/b.so"), mapping())] == [0, 0, 1]


def test_what_is_no_file_or_is_gone(process: Process) -> None:
    """Memory of no file, the vdso and a file that cannot be reached have the number 0."""
    made = objects()
    for each in (mapping("/gone.so"), mapping("[vdso]", inode=0), mapping("", inode=0)):
        assert made.content(process, each) == 0


def test_known_rules_of_a_mapping() -> None:
    """Rules are kept by offset, and given by address for the part of the file that a mapping has, wherever it is mapped.

    A return address can lie just beyond its code and not at its start; an instruction is within.
    """
    rules = KnownRules()
    marks = [0x800, 0x1000, 0x1001, 0x1800, 0x2000, 0x2001, 0x1000 | INTERRUPTED, 0x1FFF | INTERRUPTED, 0x2000 | INTERRUPTED]
    for size, marked in enumerate(marks):
        rules.add(marked, UnwindRule(RuleKind.CFA_SP, 8 * size))
    (part,) = parse_maps(b"701000-702000 r-xp 00001000 08:01 11 /lib.so\n")
    found, encoded = rules.at(part)
    assert {marked: rule.cfa_offset for marked, rule in found.items()} == {
        0x701001: 16, 0x701800: 24, 0x702000: 32, 0x701000 | INTERRUPTED: 48, 0x701FFF | INTERRUPTED: 56}
    assert encoded.tolist() == [rule.encode() for rule in found.values()]
    assert rules.get(0x800) == UnwindRule(RuleKind.CFA_SP, 0) and rules.get(0x801) is None
