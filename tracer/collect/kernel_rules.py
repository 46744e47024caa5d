"""Learns how far it is on a kernel stack from one return address to the next, from stacks that the kernel walked.

A call always leaves the same distance between its own return address and that of the function around it, unless that
function makes room on the stack by a number it computes. A word of the stack may also equal a return address by chance:
calls that have ended leave theirs. So a distance is believed only where there is one way to place the addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from tracer.collect.kernel_records import (
    RULE_ALIGNED,
    RULE_BEGIN,
    RULE_END,
    RULE_PLACE,
    RULE_STALE,
    RULE_STEP,
    STACK_BYTES,
    TEXT,
    TEXT_BYTES,
)
from tracer.collect.rule_table import RuleTable

WORD = 8
#: Stacks after which it is believed that neither of two distances can be ruled out.
ENOUGH = 8
#: Words beside addresses that are none: so many are noted. There are some hundred in a kernel.
MOST_STALE = 4096
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


@dataclass(slots=True)
class _Seen:
    """What all stacks so far leave possible for the way from one address to the next, distances in bytes.

    constant: those that every stack allows. lower: those of which every stack allows this one or a word more. spots:
    where in its stack the next address may always lie, in words from 1, while that is an end.
    """

    constant: set[int]
    lower: set[int]
    spots: set[int]
    doubts: int = 0
    """Stacks that allowed two constant distances which differ by a word."""
    varies: bool = False
    """Nothing fits: stacks through this address are left to the kernel."""


class KernelRules:
    """The rules of one trace. name_of: the function that a return address leads back to.

    The sets of what is possible are made of places that nothing has ruled out but the order of the addresses, so what
    is true stays in them. What other rules say of a stack only helps to choose among what is left: a rule that is
    wrong must not make others agree with it.
    """

    def __init__(self, table: RuleTable, name_of: Callable[[int], str | None]) -> None:
        self._table = table
        self._name_of = name_of
        self._roles: dict[int, Role] = {}
        self._seen: dict[int, _Seen] = {}
        #: Every address that ever was on a stack.
        self._frames: set[int] = set()
        self._stale = 0
        #: Rules as they are installed.
        self._rules: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rules)

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
        self._frames.update(chain)
        for address in chain:
            if self._rules.get(address) == RULE_STALE:
                self._set(address, 0)
        places = feasible(chain, words)
        if not places:
            return
        likely = self._agreeing(point, chain, places)
        at = context // WORD
        self._note_beginning(RULE_BEGIN + point, {place * WORD for place in places[0]},
                             {place * WORD for place in likely[0]})
        for index, address in enumerate(chain[: len(places) - 1]):
            # Only entries always lie in one place for all that they call.
            ends = self.role(chain[index + 1]) is Role.END
            self._note(address, _distances(places, index), _distances(likely, index),
                       {(at + later) % (STACK_BYTES // WORD) + 1 for later in places[index + 1]} if ends else set())
        self._note_stale(chain, likely, words)
        if len(places) == len(chain) and self.role(chain[-1]) is Role.END:
            self._end(chain[-1], [at + place for place in likely[-1]])

    def _agreeing(self, point: int, chain: Sequence[int], places: list[list[int]]) -> list[list[int]]:
        """Return the places without those that rules rule out; as they were where those leave none."""
        left = [set(each) for each in places]
        begin = self._rules.get(RULE_BEGIN + point)
        if begin is not None and (begin >> 8) // WORD in left[0]:
            left[0] = {(begin >> 8) // WORD}
        for order in (range(len(left) - 1), reversed(range(len(left) - 1))):
            for index in order:
                rule = self._rules.get(chain[index], 0)
                if rule & 0xFF != RULE_STEP:
                    continue
                words = (rule >> 8) // WORD
                left[index] &= {place - words for place in left[index + 1]}
                left[index + 1] &= {place + words for place in left[index]}
        return [sorted(each) for each in left] if all(left) else places

    def _note_stale(self, chain: Sequence[int], places: Sequence[Sequence[int]], words: np.ndarray) -> None:
        """Note what lies where the next address could lie, too, if it never was one.

        Most of it is what calls of other functions have left; else each of these stacks would be left to the kernel.
        """
        for address, here, after in zip(chain, places, places[1:], strict=False):
            rule = self._rules.get(address, 0)
            if rule & 0xFF != RULE_ALIGNED or len(here) != 1 or len(after) != 1:
                continue
            near = here[0] + (rule >> 8) // WORD
            other = near + 1 if after[0] == near else near
            word = int(words[other]) if other < len(words) else 0
            known = word in self._frames or word in self._rules
            if word - TEXT in range(TEXT_BYTES) and not known and self._stale < MOST_STALE:
                self._stale += 1
                self._set(word, RULE_STALE)

    def _note_beginning(self, key: int, distances: set[int], likely: set[int]) -> None:
        seen = self._seen.get(key)
        if seen is None or not seen.constant & distances:
            # Where programs begin changes with what else is attached there.
            seen = self._seen[key] = _Seen(distances, set(), set())
        seen.constant &= distances
        self._set(key, _step(seen, likely, self._rules.get(key, 0)))

    def _note(self, key: int, distances: set[int], likely: set[int], spots: set[int]) -> None:
        """Note the distances that one stack leaves possible, those that are likely, and places of the next address."""
        lower = distances | {distance - WORD for distance in distances if distance > WORD}
        seen = self._seen.setdefault(key, _Seen(distances, lower, spots))
        seen.constant &= distances
        seen.lower &= lower
        seen.spots &= spots
        seen.doubts += _is_pair(seen.constant)
        self._set(key, self._rule(key, seen, likely))

    def _rule(self, key: int, seen: _Seen, likely: set[int]) -> int:
        """Return the rule that fits all that was seen, 0 where there is none, or not yet."""
        if seen.varies:
            return 0
        if seen.constant:
            if _is_pair(seen.constant) and seen.doubts >= ENOUGH:
                # Both lead to a return address each time; where they do, the kernel walks.
                return RULE_ALIGNED | min(seen.constant) << 8
            return _step(seen, likely, self._rules.get(key, 0))
        # The kernel begins each system call at another offset (randomize_kstack_offset), below what is always there.
        # Two offsets may differ by a word, as if the function aligned its stack.
        if len(seen.spots) == 1:
            return RULE_PLACE | next(iter(seen.spots)) << 8
        # A function that aligns its stack to 16 bytes, called from where that takes a word more or not.
        if len(seen.lower) == 1:
            return RULE_ALIGNED | next(iter(seen.lower)) << 8
        seen.varies = not seen.lower and not seen.spots
        return 0

    def _end(self, address: int, places: Sequence[int]) -> None:
        """places: words from address 0 on."""
        if len(places) != 1:
            return
        rule = RULE_END | (places[0] % (STACK_BYTES // WORD) + 1) << 8
        # One that ends stacks in several places is an end anywhere.
        self._set(address, rule if self._rules.get(address, rule) == rule else RULE_END)

    def _set(self, key: int, rule: int) -> None:
        if rule == self._rules.get(key, 0):
            return
        if rule:
            self._rules[key] = rule
            self._table.install(key, rule)
        else:
            del self._rules[key]
            self._table.remove([key])


def _distances(places: Sequence[Sequence[int]], index: int) -> set[int]:
    """Return the distances, in bytes, from an address's places to those of the next one."""
    return {(later - first) * WORD for first in places[index] for later in places[index + 1] if later > first}


def _is_pair(distances: set[int]) -> bool:
    """Return whether these are two distances that differ by a word."""
    return len(distances) == 2 and max(distances) - min(distances) == WORD


def _step(seen: _Seen, likely: set[int], now: int) -> int:
    """Return the rule of a constant distance: the only one, else what other rules leave, else as it is now; 0: none."""
    for left in (seen.constant, seen.constant & likely):
        if len(left) == 1:
            return RULE_STEP | next(iter(left)) << 8
    return now if now & 0xFF == RULE_STEP and now >> 8 in seen.constant else 0


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
