"""What is believed of an address whose code was unmapped: nothing, and of all others everything."""

from __future__ import annotations

import numpy as np

from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer import records
from tracer.attach.code_versions import CodeVersions
from tracer.collect.unwind_rules import NO_CODE, RuleTable, rule_key

MAIN = b"400000-401000 r-xp 00000000 08:01 11 /usr/bin/main\n"
FIRST = b"700000-701000 r-xp 00000000 08:01 22 /lib/first.so\n"
SECOND = b"700000-701000 r-xp 00000000 08:01 33 /lib/second.so\n"


class FakeObjects:
    """Every file's rule is its inode as the CFA's offset."""

    def rule_at(self, mapping: object, address: int) -> UnwindRule:
        return UnwindRule(RuleKind.CFA_SP, getattr(mapping, "inode", 0))


def space(*lines: bytes) -> AddressSpace:
    return AddressSpace.of(parse_maps(b"".join(lines)))


def versions() -> tuple[CodeVersions, RuleTable, np.ndarray]:
    buckets = np.zeros(64, records.RULE_BUCKET)
    table = RuleTable(buckets)
    return CodeVersions(FakeObjects(), table, lambda: None), table, buckets  # type: ignore[arg-type]  # a fake


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
