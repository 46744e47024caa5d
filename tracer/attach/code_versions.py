"""What code a process had mapped when: a new version begins where code is unmapped, and with each exec.

An address means something only together with the version: after dlclose() another library may lie there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from symbolizer.unwind_rule import UnwindRule
from tracer.attach.objects import Objects
from tracer.collect.rule_table import RuleTable
from tracer.collect.unwind_rules import END_RULE, NO_CODE, Unwinder
from tracer.records import ADDRESS_MASK, INTERRUPTED

#: The mappings are not read again sooner than this for an address that is in none: it may just be no address.
PAUSE_NS = 5_000_000
#: Where the kernel makes probed functions return to: seen in the stack of a call that another one makes for its work.
TRAMPOLINE = "[uprobes]"
#: It is mapped there or above, and nothing else is (is_trampoline() in bpf/flight.c): known before the mappings say so.
TRAMPOLINES_FROM = 0x7FFFFFFF0000

Code = tuple[int, int, int, ObjectKey | None]


def code_of(space: AddressSpace) -> set[Code]:
    """Return which file's code is mapped where (start, end, offset, file); code made at run time is not told apart."""
    return {code_line(mapping) for mapping in space.mappings if mapping.executable and mapping.is_file}


def code_line(mapping: Mapping) -> Code:
    """Return which part of which file a mapping has where."""
    return mapping.start, mapping.end, mapping.file_offset, object_key(mapping)


class CodeVersion:
    """One version: its mappings as last read, and the rules to unwind its stacks (a RuleSource)."""

    def __init__(self, number: int, space: AddressSpace, objects: Objects, table: RuleTable,
                 read_again: Callable[[], None]) -> None:
        self.space = space
        #: A child has it too: neither may add to it what the other has not.
        self.shared = False
        self.unwinder = Unwinder(number, self, table)
        self._objects = objects
        self._read_again = read_again
        self._read_at = time.monotonic_ns()
        self._without_code: set[int] = set()

    def update(self, space: AddressSpace) -> None:
        """Take newer mappings: only ever more code, or it would be another version."""
        self._read_at = time.monotonic_ns()
        if self._without_code and code_of(space) - code_of(self.space):
            self.unwinder.forget(self._without_code)
            self._without_code.clear()
        before, self.space = code_of(self.space), space
        self.seed(before)

    def seed(self, known: set[Code]) -> None:
        """Put the rules in place that other processes have needed of the same files, except of code that is known."""
        for mapping in self.space.mappings:
            if mapping.executable and mapping.is_file and code_line(mapping) not in known:
                rules = self._objects.known_rules(mapping)
                if rules is not None:
                    self.unwinder.seed(*rules.at(mapping))

    def code_at(self, address: int) -> Mapping | None:
        """Return the mapping with code that holds the address, None if there is none."""
        mapping = self.space.locate(address)
        return mapping if mapping is not None and mapping.executable else None

    def _is_trampoline(self, address: int) -> bool:
        mapping = self.space.locate(address)
        return mapping is not None and mapping.path == TRAMPOLINE

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule at an address (collect.unwind_rules.RuleSource)."""
        if address >= TRAMPOLINES_FROM:
            return END_RULE
        at = address if interrupted else address - 1
        mapping = self.code_at(at)
        if mapping is None and time.monotonic_ns() - self._read_at > PAUSE_NS:
            self._read_at = time.monotonic_ns()
            self._read_again()
            mapping = self.code_at(at)
        if mapping is None and self._is_trampoline(address):
            return END_RULE
        if mapping is None:
            self._without_code.add(address | (INTERRUPTED if interrupted else 0))
            return NO_CODE
        return self._objects.rule_for(mapping, address, interrupted=interrupted)


class CodeVersions:
    """All versions of one process image."""

    def __init__(self, objects: Objects, table: RuleTable, read_again: Callable[[], None]) -> None:
        self._objects = objects
        self._table = table
        self._read_again = read_again
        self._versions: dict[int, CodeVersion] = {}
        #: Whose rules are this process's to take away.
        self._own: set[int] = set()
        #: Its parent's, with which it began.
        self._first = -1

    def update(self, number: int, space: AddressSpace) -> None:
        """Take what is mapped now, in version number. What stayed where it was keeps its rules."""
        if number in self._versions:
            self._versions[number].update(space)
            return
        version = self._begin(number, space)
        same: set[Code] = set()
        if self._versions:
            last = self._versions[max(self._versions, key=self._age)]
            same = code_of(last.space) & code_of(space)

            def stayed(marked: int) -> bool:
                # The call lies before its return address; an interrupted address is the first of its code at worst.
                at = (marked & ADDRESS_MASK) - (0 if marked & INTERRUPTED else 1)
                mapping = version.code_at(at)
                return mapping is not None and code_line(mapping) in same

            version.unwinder.adopt(last.unwinder, stayed)
        version.seed(same)
        for old in self._own - {number}:
            self._table.drop(old)
        self._own = {number}
        self._versions[number] = version

    def _begin(self, number: int, space: AddressSpace) -> CodeVersion:
        # Numbers come again (IMAGE_MASK), and children may have gone on with that of a parent that had ended.
        self._table.drop(number)
        return CodeVersion(number, space, self._objects, self._table, self._read_again)

    def share(self, number: int) -> CodeVersion | None:
        """Return a version for a child that begins with it; None if it was never read."""
        version = self._versions.get(number)
        if version is not None:
            version.shared = True
        return version

    def begin_with(self, number: int, version: CodeVersion) -> None:
        """Begin with the code of the parent."""
        self._versions[number] = version
        self._first = number

    def is_shared(self, number: int) -> bool:
        """Return whether another process has this version too."""
        return number in self._versions and self._versions[number].shared

    def __contains__(self, number: int) -> bool:
        return number in self._versions

    def get(self, number: int) -> CodeVersion:
        """Return a version; one that was gone before it was read has what lay where it does before and after."""
        if number not in self._versions:
            self._versions[number] = self._begin(number, self.space(number))
            self._own.add(number)
        return self._versions[number]

    def space(self, number: int) -> AddressSpace:
        """Return the mappings of a version; of one that was too short to be read, those of before that stayed."""
        known = self._versions.get(number)
        if known is not None:
            return known.space
        before = [each for each in self._versions if self._age(each) < self._age(number)]
        after = [each for each in self._versions if self._age(each) > self._age(number)]
        if not before:
            return AddressSpace.of(())
        earlier = self._versions[max(before, key=self._age)].space
        if not after:
            return earlier
        later = self._versions[min(after, key=self._age)].space
        return AddressSpace.of(set(earlier.mappings) & set(later.mappings))

    def _age(self, number: int) -> tuple[bool, int]:
        """Return by what versions are in the order of time: numbers grow, but the parent's are from another slot."""
        return number != self._first, number

    def volatile(self) -> np.ndarray:
        """Return the address ranges that had different code in different versions, u64 (n, 2): [start, end)."""
        if len(self._versions) < 2:
            return np.empty((0, 2), np.uint64)
        first, *others = (code_of(version.space) for version in self._versions.values())
        changing = first.union(*others) - first.intersection(*others)
        return np.array(sorted((start, end) for start, end, _, _ in changing), np.uint64).reshape(-1, 2)

    def drop(self) -> None:
        """Forget everything: another program runs now."""
        for number in self._own:
            self._table.drop(number)
        self._own.clear()
        self._versions.clear()
        self._first = -1
