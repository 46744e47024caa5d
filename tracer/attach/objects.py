"""The files a target has mapped: opened once, held open, each with its symbols and its call frame information."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from symbolizer.object_file import ObjectFile
from symbolizer.symbolizer import Symbolizer
from symbolizer.unwind_info import UnwindInfo
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer.attach.target import Process
from tracer.collect.unwind_rules import FRAME_POINTER_RULE
from tracer.records import ADDRESS_MASK, INTERRUPTED

if TYPE_CHECKING:
    from tracer.attach.links import Plan


class KnownRules:
    """Rules of one file by offset (of the return address; with INTERRUPTED, of the instruction)."""

    def __init__(self) -> None:
        self._rules: dict[int, UnwindRule] = {}
        self._encoded: list[int] = []

    def get(self, marked: int) -> UnwindRule | None:
        """Return the rule that was found before."""
        return self._rules.get(marked)

    def add(self, marked: int, rule: UnwindRule) -> UnwindRule:
        """Keep a rule, and return it."""
        self._rules[marked] = rule
        self._encoded.append(rule.encode())
        return rule

    def at(self, mapping: Mapping) -> tuple[dict[int, UnwindRule], np.ndarray]:
        """Return the rules of a mapping by address (marked), and the same encoded, u64 (n,), in that order."""
        shift, low = mapping.start - mapping.file_offset, mapping.file_offset
        high = low + mapping.end - mapping.start
        # A return address can lie just beyond its code, and an interrupted one at its very start.
        inside = [low <= (marked & ADDRESS_MASK) - (not marked >> 63) < high for marked in self._rules]
        found = {marked + shift: rule for (marked, rule), here in zip(self._rules.items(), inside, strict=True) if here}
        return found, np.array(self._encoded, np.uint64)[inside]


class Objects:
    """All files of all targets; what two processes share is opened once."""

    def __init__(self, symbolizer: Symbolizer) -> None:
        self.symbolizer = symbolizer
        self._unwind: dict[ObjectKey, UnwindInfo] = {}
        self._rules: dict[ObjectKey, KnownRules] = {}
        #: What should be attached in each file, found once (tracee.py).
        self.plans: dict[ObjectKey, tuple[Plan, ...]] = {}
        #: Which content each file was seen with: size and time of change (ns), and its number.
        self._contents: dict[ObjectKey, dict[tuple[int, int], int]] = {}

    def content(self, process: Process, mapping: Mapping) -> int:
        """Return the number of a mapped file's content, 0 for the first that was seen under its name and inode.

        A build makes file after file of the same name, and the file system gives them the same inode.
        """
        key = object_key(mapping)
        if key is None or not mapping.is_file:
            return 0
        try:
            status = os.stat(process.file_path(mapping))
        except OSError:
            return 0
        seen = self._contents.setdefault(key, {})
        return seen.setdefault((status.st_size, status.st_mtime_ns), len(seen))

    def hold(self, process: Process, space: AddressSpace) -> None:
        """Open every file with code, so that its names outlive the process."""
        for mapping in space.mappings:
            if mapping.executable and (key := object_key(mapping)) is not None:
                self.open(process, key, mapping)

    def open(self, process: Process, key: ObjectKey, mapping: Mapping) -> ObjectFile:
        """Return the mapped file, opening it if it is new."""
        return self.symbolizer.object_file(key) or self.symbolizer.add_object(
            key, mapping.path, lambda: process.open_mapped(mapping), process.roots())

    def unwind_info(self, key: ObjectKey) -> UnwindInfo | None:
        """Return the file's call frame information, None if the file was never opened or cannot be read."""
        found = self._unwind.get(key)
        if found is None:
            file = self.symbolizer.object_file(key)
            if file is None or file.why is not None:
                return None
            found = self._unwind[key] = UnwindInfo(file.data)
        return found

    def rule_for(self, mapping: Mapping, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule of the call before an address, or at it itself where a signal interrupted it.

        Without any information, that is the one of frame pointers. mapping: the code that it is about.
        """
        at = address if interrupted else address - 1
        key = object_key(mapping)
        if key is None:
            return self._rule_at(mapping, at)
        known = self._rules.setdefault(key, KnownRules())
        marked = mapping.offset_of(address) | (INTERRUPTED if interrupted else 0)
        return known.get(marked) or known.add(marked, self._rule_at(mapping, at))

    def known_rules(self, mapping: Mapping) -> KnownRules | None:
        """Return all rules that were asked for in the mapped file so far, None where there were none."""
        key = object_key(mapping)
        return self._rules.get(key) if key is not None else None

    def _rule_at(self, mapping: Mapping, address: int) -> UnwindRule:
        key = object_key(mapping)
        file = self.symbolizer.object_file(key) if key is not None else None
        info = self.unwind_info(key) if key is not None else None
        if file is None or info is None or not file.is_whole() or file.elf is None:
            return FRAME_POINTER_RULE
        vaddr = file.elf.file_offset_to_vaddr(mapping.offset_of(address))
        rule = info.rule_at(vaddr) if vaddr is not None else None
        return FRAME_POINTER_RULE if rule is None or rule.kind is RuleKind.UNKNOWN else rule
