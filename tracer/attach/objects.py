"""The files a target has mapped: opened once, held open, each with its symbols and its call frame information."""

from __future__ import annotations

from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from symbolizer.object_file import ObjectFile
from symbolizer.symbolizer import Symbolizer
from symbolizer.unwind_info import UnwindInfo
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer.attach.target import Process
from tracer.collect.unwind_rules import FRAME_POINTER_RULE


class Objects:
    """All files of all targets; what two processes share is opened once."""

    def __init__(self, symbolizer: Symbolizer) -> None:
        self.symbolizer = symbolizer
        self._unwind: dict[ObjectKey, UnwindInfo] = {}

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

    def rule_at(self, mapping: Mapping, address: int) -> UnwindRule:
        """Return the rule for an address of a mapping with code; without any information, that of frame pointers."""
        key = object_key(mapping)
        file = self.symbolizer.object_file(key) if key is not None else None
        info = self.unwind_info(key) if key is not None else None
        if file is None or info is None or not file.is_whole() or file.elf is None:
            return FRAME_POINTER_RULE
        vaddr = file.elf.file_offset_to_vaddr(mapping.offset_of(address))
        rule = info.rule_at(vaddr) if vaddr is not None else None
        return FRAME_POINTER_RULE if rule is None or rule.kind is RuleKind.UNKNOWN else rule
