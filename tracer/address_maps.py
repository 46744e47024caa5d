"""What code the processes of a trace have mapped, as reports have it."""

from __future__ import annotations

from dataclasses import dataclass, field

from symbolizer.mappings import AddressSpace, object_key
from symbolizer.printable import printable
from symbolizer.symbolizer import Symbolizer
from tracer.attach.tracee import Tracee
from tracer.report.model import AddressMap, MappedFile


@dataclass(slots=True)
class AddressMaps:
    """The maps of one session; one that has not changed is not made again."""

    symbolizer: Symbolizer
    _known: dict[int, tuple[AddressSpace, AddressMap]] = field(default_factory=dict)

    def of(self, tracees: list[Tracee]) -> tuple[AddressMap, ...]:
        """Return the maps of these; of one that has ended, as they were then: its stacks may still be shown."""
        self._known = {each.uid: self._current(each) for each in tracees}
        return tuple(known for _, known in self._known.values())

    def _current(self, tracee: Tracee) -> tuple[AddressSpace, AddressMap]:
        known = self._known.get(tracee.uid)
        if known is not None and known[0] is tracee.space:
            return known
        return tracee.space, AddressMap(tracee.process.pid, tuple(self._files(tracee.space)))

    def _files(self, space: AddressSpace) -> list[MappedFile]:
        found = []
        for mapping in space.mappings:
            key = object_key(mapping)
            if not mapping.executable or key is None:
                continue
            file = self.symbolizer.object_file(key)
            # Of one that was cut meanwhile, nothing can be read any more.
            number = file.build_id if file is not None and file.is_whole() else None
            found.append(MappedFile(mapping.start, mapping.end, mapping.file_offset, printable(mapping.path), number))
        return found
