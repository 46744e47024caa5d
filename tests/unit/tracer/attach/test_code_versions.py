"""What is believed of an address whose code was unmapped: nothing, and of all others everything."""

from __future__ import annotations

import numpy as np

from symbolizer.mappings import AddressSpace, Mapping, parse_maps
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer import records
from tracer.attach.code_versions import CodeVersions
from tracer.attach.objects import KnownRules
from tracer.collect.rule_table import RuleTable, rule_key
from tracer.collect.unwind_rules import NO_CODE
from tracer.limits import MAX_SLOTS
from tracer.records import IMAGE_MASK, INTERRUPTED

MAIN = b"400000-401000 r-xp 00000000 08:01 11 /usr/bin/main\n"
FIRST = b"700000-701000 r-xp 00000000 08:01 22 /lib/first.so\n"
SECOND = b"700000-701000 r-xp 00000000 08:01 33 /lib/second.so\n"


class FakeObjects:
    """Every file's rule is its inode as the CFA's offset; those that were asked for are known."""

    def __init__(self) -> None:
        self.rules: dict[int, KnownRules] = {}

    def rule_for(self, mapping: Mapping, address: int, *, interrupted: bool) -> UnwindRule:
        known = self.rules.setdefault(mapping.inode, KnownRules())
        marked = mapping.offset_of(address) | (INTERRUPTED if interrupted else 0)
        return known.get(marked) or known.add(marked, UnwindRule(RuleKind.CFA_SP, mapping.inode))

    def known_rules(self, mapping: Mapping) -> KnownRules | None:
        return self.rules.get(mapping.inode)


def space(*lines: bytes) -> AddressSpace:
    return AddressSpace.of(parse_maps(b"".join(lines)))


def versions() -> tuple[CodeVersions, RuleTable, np.ndarray]:
    buckets = np.zeros(64, records.RULE_BUCKET)
    table = RuleTable(buckets)
    return made_in(table, FakeObjects()), table, buckets


def made_in(table: RuleTable, objects: FakeObjects) -> CodeVersions:
    return CodeVersions(objects, table, lambda: None)  # type: ignore[arg-type]  # a fake


def installed(buckets: np.ndarray) -> set[int]:
    return {int(key) for key in buckets["keys"].ravel() if key}


def learn(made: CodeVersions, number: int, *addresses: int) -> list[int]:
    unwinder = made.get(number).unwinder
    return [unwinder._learn(address).cfa_offset for address in addresses]


def test_rules_of_code_that_stayed_move_to_the_new_version() -> None:
    """After an unloading, the kernel side finds the rules of all other code at once, and none of the old version."""
    made, _, buckets = versions()
    made.update(0, space(MAIN, FIRST))
    assert learn(made, 0, 0x400100, 0x700100) == [11, 22]
    made.update(64, space(MAIN, SECOND))
    assert installed(buckets) == {rule_key(0x400100, 64)}
    assert learn(made, 64, 0x700100) == [33]


def test_names_come_from_the_version_of_the_stack() -> None:
    """The same address is in one library in one version, in another in the next."""
    made, _, _ = versions()
    made.update(0, space(MAIN, FIRST))
    made.update(64, space(MAIN, SECOND))
    found = [made.space(number).locate(0x700100) for number in (0, 64)]
    assert [mapping.path for mapping in found if mapping] == ["/lib/first.so", "/lib/second.so"]


def test_a_version_that_was_never_read_has_only_what_was_there_before_and_after() -> None:
    """A library that came and went unseen, or another that has its place, is not guessed."""
    made, _, _ = versions()
    made.update(0, space(MAIN, FIRST))
    made.update(128, space(MAIN, SECOND))
    guessed = made.space(64)
    assert guessed.locate(0x400100) is not None and guessed.locate(0x700100) is None
    assert made.get(64).rule_for(0x700100, interrupted=False) == NO_CODE


def test_an_address_without_code_is_asked_for_again_when_there_is_more() -> None:
    """A rule that says "no code here" does not outlive the loading of some."""
    made, _, buckets = versions()
    made.update(0, space(MAIN))
    made.get(0).unwinder._learn(0x700100)
    assert rule_key(0x700100, 0) in installed(buckets)
    made.update(0, space(MAIN, FIRST))
    assert rule_key(0x700100, 0) not in installed(buckets)
    assert learn(made, 0, 0x700100) == [22]


def test_volatile_ranges_are_those_that_changed() -> None:
    """Where the same code always was is not volatile; with one version nothing is."""
    made, _, _ = versions()
    made.update(0, space(MAIN, FIRST))
    assert made.volatile().tolist() == []
    made.update(64, space(MAIN, SECOND))
    assert made.volatile().tolist() == [[0x700000, 0x701000], [0x700000, 0x701000]]


def test_after_an_exec_no_rule_is_left() -> None:
    """Another program's addresses mean something else."""
    made, _, buckets = versions()
    made.update(0, space(MAIN))
    learn(made, 0, 0x400100)
    made.drop()
    assert installed(buckets) == set() and 0 not in made


class Family:
    """A parent in slot 0 and its child in slot 1, whose rules are in one table."""

    def __init__(self) -> None:
        self.buckets = np.zeros(64, records.RULE_BUCKET)
        self.table, objects = RuleTable(self.buckets), FakeObjects()
        self.parent, self.child = made_in(self.table, objects), made_in(self.table, objects)
        self.parent.update(0, space(MAIN))
        learn(self.parent, 0, 0x400100)

    def fork(self) -> None:
        version = self.parent.share(0)
        assert version is not None
        self.child.begin_with(0, version)


def test_a_child_begins_with_its_parents_code() -> None:
    """What the parent has mapped and learned is true of the child, under the same number: no rule is looked up again."""
    family = Family()
    family.fork()
    assert 0 in family.child and family.child.space(0).locate(0x400100) is not None
    assert family.child.get(0).unwinder.knows(0x400100)
    assert learn(family.child, 0, 0x400200) == [11]
    assert installed(family.buckets) == {rule_key(0x400100, 0), rule_key(0x400200, 0)}
    assert family.child.volatile().tolist() == []


def test_both_know_that_they_share() -> None:
    """A version that two processes have may get nothing that the other has not; one that was never given away is its own."""
    family = Family()
    assert not family.parent.is_shared(0)
    family.fork()
    assert family.parent.is_shared(0) and family.child.is_shared(0)
    assert not family.child.is_shared(MAX_SLOTS) and family.parent.share(7) is None


def test_what_a_child_begins_with_is_not_its_to_take_away() -> None:
    """When the child loads more, execs or ends, its parent's rules stay."""
    family = Family()
    family.fork()
    number = 1 + MAX_SLOTS
    family.child.update(number, space(MAIN, FIRST))
    learn(family.child, number, 0x700100)
    assert installed(family.buckets) == {rule_key(0x400100, 0), rule_key(0x400100, number), rule_key(0x700100, number)}
    family.child.drop()
    assert installed(family.buckets) == {rule_key(0x400100, 0)} and 0 not in family.child
    assert 0 in family.parent


def test_a_parent_that_ends_first() -> None:
    """Its rules go; the child's own stay, and it learns those of the common version again when it misses them."""
    family = Family()
    family.fork()
    family.child.update(1 + MAX_SLOTS, space(MAIN))
    family.parent.drop()
    assert installed(family.buckets) == {rule_key(0x400100, 1 + MAX_SLOTS)}
    assert 0 in family.child and family.child.get(0).unwinder.knows(0x400100)


def test_the_parents_version_is_the_oldest() -> None:
    """It has a number of another slot, which may be larger than the child's own: what came before says what was there."""
    family = Family()
    version = family.parent.get(0)
    family.child.begin_with(9 * MAX_SLOTS, version)
    family.child.update(1 + 3 * MAX_SLOTS, space(MAIN, FIRST))
    guessed = family.child.space(1 + 2 * MAX_SLOTS)
    assert guessed.locate(0x400100) is not None and guessed.locate(0x700100) is None
    newer = family.child.space(1 + 4 * MAX_SLOTS)
    assert newer.locate(0x700100) is not None


def test_rules_of_code_that_stayed_move_from_the_parents_version() -> None:
    """What the child has still mapped where its parent had it needs no miss; another library in its place does."""
    family = Family()
    family.parent.update(0, space(MAIN, FIRST))
    learn(family.parent, 0, 0x700100)
    family.fork()
    number = 1 + MAX_SLOTS
    family.child.update(number, space(MAIN, SECOND))
    assert installed(family.buckets) == {
        rule_key(0x400100, 0), rule_key(0x700100, 0), rule_key(0x400100, number)}
    assert family.child.volatile().tolist() == [[0x700000, 0x701000], [0x700000, 0x701000]]


def test_rules_that_another_process_needed() -> None:
    """A process that has the same file, at whatever address, begins with all rules of it that were ever looked up."""
    family = Family()
    learn(family.parent, 0, 0x400200 | INTERRUPTED)
    number = 1 + MAX_SLOTS
    family.child.update(number, space(b"900000-901000 r-xp 00000000 08:01 11 /usr/bin/main\n"))
    assert {rule_key(0x900100, number), rule_key(0x900200 | INTERRUPTED, number)} <= installed(family.buckets)
    assert family.child.get(number).unwinder.knows(0x900100) and not family.child.get(number).unwinder.knows(0x400100)


def test_a_number_that_comes_again() -> None:
    """What a child has learnt under its parent's number after that one's end is not believed of who gets the number next."""
    family = Family()
    family.fork()
    family.parent.drop()
    learn(family.child, 0, 0x400200)
    assert rule_key(0x400200, 0) in installed(family.buckets)
    made_in(family.table, FakeObjects()).update(IMAGE_MASK + 1, space(SECOND))
    assert installed(family.buckets) == set()
