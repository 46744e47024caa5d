"""Learns how far it is on a kernel stack from one return address to the next, from stacks that the kernel walked.

A call always leaves the same distance between its own return address and that of the function around it, unless that
function makes room on the stack by a number it computes. A word of the stack may also equal a return address by chance:
calls that have ended leave theirs. So a distance is believed only where there is one way to place the addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum

import numpy as np

from tracer.collect.kernel_records import (
    RULE_ALIGNED,
    RULE_BEGIN,
    RULE_END,
    RULE_PLACE,
    RULE_STEP,
    STACK_BYTES,
)
from tracer.collect.rule_table import RuleTable

WORD = 8
#: Stacks after which it is believed that neither of two distances can be ruled out.
ENOUGH = 8
#: The tracing itself has fewer frames than this.
MOST_OWN = 6


class Role(Enum):
    """What a function means for a stack."""

    TRACING = "tracing"
    """It belongs to the tracing itself."""
    END = "end"
    """A stack ends there: what it interrupted has no part in what it does."""
    PLAIN = "plain"


#: A loaded program's name has its tag in it: bpf_prog_alloc() and its like are the kernel's own.
_TRACING = re.compile(r"bpf_prog_[0-9a-f]{16}_|bpf_trace_run\d+$|__bpf_trace_|__traceiter_|bpf_trampoline_\d+$|"
                      r"trace_call_bpf$|perf_trace_")
_END = re.compile(r"(?:asm_\w+|entry_\w+|ret_from_fork\w*|secondary_startup\w*|common_startup\w*|start_secondary|"
                  r"handle_softirqs|__do_softirq|__softirqentry_text_start)$")


def role_of(function: str | None) -> Role:
    """Return what a function, by its name without offset, means for a stack."""
    if function is None:
        return Role.PLAIN
    if _TRACING.match(function):
        return Role.TRACING
    return Role.END if _END.match(function) else Role.PLAIN


def own_frames(roles: Sequence[Role]) -> int:
    """Return how many of a stack's first frames are the tracing's own; the first one, the program, may have no name."""
    first = 0 if roles and roles[0] is Role.TRACING else 1
    after = first
    while after < min(len(roles), MOST_OWN) and roles[after] is Role.TRACING:
        after += 1
    return after if after > first else 0


class KernelRules:
    """The rules of one trace. name_of: the function that a return address leads back to."""

    def __init__(self, table: RuleTable, name_of: Callable[[int], str | None]) -> None:
        self._table = table
        self._name_of = name_of
        self._roles: dict[int, Role] = {}
        self._known: dict[int, int] = {}
        #: Distances that each address may have, while there are several.
        self._possible: dict[int, set[int]] = {}
        self._varying: set[int] = set()
        #: Those whose distance is one of two, and those whose next address always lies at the same place of its stack.
        self._aligned: set[int] = set()
        self._placed: set[int] = set()
        #: How often two distances that differ by a word were both possible.
        self._doubts: dict[int, int] = {}
        #: Where in its stack the next address may lie, in words from 1.
        self._spots: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def role(self, address: int) -> Role:
        """Return what the function of a return address means for a stack."""
        if address not in self._roles:
            self._roles[address] = role_of(self._name_of(address))
        return self._roles[address]

    def own_frames(self, addresses: Sequence[int]) -> int:
        """Return how many of a stack's first frames are the tracing's own."""
        return own_frames([self.role(address) for address in addresses[:MOST_OWN]])

    def learn(self, point: int, addresses: Sequence[int], words: np.ndarray, context: int) -> None:
        """Learn from one stack.

        addresses: as the kernel found them, innermost first, without the tracing's own. words: u64 (n,), the memory of
        the stack from context on.
        """
        if context % STACK_BYTES + len(words) * WORD < STACK_BYTES:
            # What lies beyond the copy may seem to lie in it, where calls that have ended were.
            return
        chain: list[int] = []
        for address in addresses:
            chain.append(address)
            if self.role(address) is Role.END:
                break
        places = self._agreeing(chain, feasible(chain, words))
        at = context // WORD
        if places and places[0]:
            self._note(RULE_BEGIN + point, {place * WORD for place in places[0]}, set(), begins=True)
        for here, after, address, caller in zip(places, places[1:], chain, chain[1:], strict=False):
            # Only entries always lie in one place for all that they call.
            spots = after if self.role(caller) is Role.END else []
            self._note(address, {(later - first) * WORD for first in here for later in after if later > first},
                       {(at + later) % (STACK_BYTES // WORD) + 1 for later in spots})
        if chain and len(places) == len(chain) and self.role(chain[-1]) is Role.END:
            self._end(chain[-1], [context // WORD + place for place in places[-1]])

    def _agreeing(self, chain: Sequence[int], places: list[list[int]]) -> list[list[int]]:
        """Return the places without those that known distances rule out; as they were where those leave none."""
        left = [set(each) for each in places]
        for order in (range(len(left) - 1), reversed(range(len(left) - 1))):
            for index in order:
                known = self._known.get(chain[index])
                if known is None or chain[index] in self._aligned or chain[index] in self._placed:
                    continue
                words = known // WORD
                left[index] &= {place - words for place in left[index + 1]}
                left[index + 1] &= {place + words for place in left[index]}
        return [sorted(each) for each in left] if all(left) else places

    def _note(self, key: int, distances: set[int], spots: set[int], *, begins: bool = False) -> None:
        """Note the distances, in bytes, that one stack leaves possible, and the places of the next address."""
        if key in self._varying or not distances:
            return
        if not begins:
            self._spots[key] = self._spots.get(key, spots) & spots
        known = self._known.get(key)
        if key in self._placed:
            if not self._spots[key]:
                self._give_up(key)
            return
        if known is not None and known not in distances:
            if begins:
                # Where programs begin changes with what else is attached there.
                self._forget(key)
                self._possible.pop(key, None)
            elif not self._explain(key, known, distances):
                self._give_up(key)
                return
            else:
                return
        possible = self._possible.get(key)
        # None left: the way of before was another one, or an address was not where it seemed to be.
        left = (distances & possible if possible else distances) or distances
        self._possible[key] = left
        if self._known.get(key) is not None:
            return
        if len(left) == 1:
            self._install(key, RULE_STEP | next(iter(left)) << 8, next(iter(left)))
        elif left == {min(left), min(left) + WORD}:
            self._doubts[key] = self._doubts.get(key, 0) + 1
            if self._doubts[key] == ENOUGH and not begins:
                # Both lead to a return address each time; where they do, the kernel walks.
                self._aligned.add(key)
                self._install(key, RULE_ALIGNED | min(left) << 8, min(left))

    def _explain(self, key: int, known: int, distances: set[int]) -> bool:
        """Have a rule of another kind, where the distance is not always the same; return whether one fits."""
        if key in self._aligned and known + WORD in distances:
            return True
        # A function that aligns its stack to 16 bytes, called from where that takes a word more or not.
        lower = next((one for one in (known, known - WORD) if {one, one + WORD} & distances), None)
        if lower is not None and key not in self._aligned:
            self._aligned.add(key)
            self._install(key, RULE_ALIGNED | lower << 8, lower)
            return True
        # The kernel begins each system call at another offset (randomize_kstack_offset), below what is always there.
        if len(self._spots[key]) == 1:
            spot = next(iter(self._spots[key]))
            # Two offsets may differ by a word, as if the function aligned its stack.
            self._aligned.discard(key)
            self._placed.add(key)
            self._install(key, RULE_PLACE | spot << 8, spot)
            return True
        return False

    def _give_up(self, key: int) -> None:
        """Leave stacks through this address to the kernel."""
        self._forget(key)
        self._placed.discard(key)
        self._varying.add(key)

    def _end(self, address: int, places: Sequence[int]) -> None:
        """places: words from address 0 on."""
        if len(places) != 1:
            return
        place = places[0] % (STACK_BYTES // WORD) + 1
        known = self._known.get(address)
        if known is None:
            self._install(address, RULE_END | place << 8, place)
        elif known not in (0, place):
            # It ends stacks of several kinds.
            self._install(address, RULE_END, 0)

    def _install(self, key: int, rule: int, value: int) -> None:
        self._known[key] = value
        self._table.install(key, rule)

    def _forget(self, key: int) -> None:
        self._known.pop(key, None)
        self._table.remove([key])


def feasible(chain: Sequence[int], words: np.ndarray) -> list[list[int]]:
    """Return where in words each address can lie if they all lie in this order; the outer ones may be elsewhere.

    words: u64 (n,). The result is shorter than chain where an address is not in words at all (another stack).
    """
    wanted = np.isin(words, np.array(list(set(chain)), np.uint64))
    at = np.flatnonzero(wanted)
    found: dict[int, list[int]] = {}
    for place, word in zip(at.tolist(), words[at].tolist(), strict=True):
        found.setdefault(word, []).append(place)
    lowest: list[int] = []
    for address in chain:
        after = lowest[-1] if lowest else -1
        first = next((place for place in found.get(address, ()) if place > after), None)
        if first is None:
            break
        lowest.append(first)
    highest: list[int] = []
    before = len(words)
    for address in reversed(chain[: len(lowest)]):
        before = max(place for place in found[address] if place < before)
        highest.append(before)
    highest.reverse()
    return [[place for place in found[address] if low <= place <= high]
            for address, low, high in zip(chain, lowest, highest, strict=False)]
