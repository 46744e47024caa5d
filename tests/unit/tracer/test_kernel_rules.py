"""Distances between return addresses are learnt from stacks that are known, and never believed where they may be wrong.

The walk is the C's own (walk_by_rules() in bpf/kernel_stack.c), compiled with gcc.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer import records
from tracer.collect.kernel_records import (
    COPY_BYTES,
    RULE_ALIGNED,
    RULE_BEGIN,
    RULE_END,
    RULE_PLACE,
    RULE_STEP,
    STACK_BYTES,
)
from tracer.collect.kernel_rules import ENOUGH, KernelRules, Role, feasible, own_frames, role_of
from tracer.collect.rule_table import RuleTable

BPF = Path(__file__).parents[3] / "bpf"
WORD = 8
POINT = 3
BUCKET_BITS, FRAMES = 8, 12
#: The lowest address of a made-up stack, and where programs' arguments lie on most of them.
STACK = 0xFFFF_C900_0004_0000
CONTEXT = STACK + STACK_BYTES - 1024
TEXT = 0xFFFF_FFFF_8100_0000
#: Return addresses: of plain functions, of two that end stacks, and of the tracing.
A, B, C, D = (TEXT + 0x100 * number for number in range(1, 5))
ENTRY, INTERRUPT, OWN = TEXT + 0xE00, TEXT + 0xF00, TEXT + 0xD00
NAMES = {ENTRY: "entry_SYSCALL_64_after_hwframe", INTERRUPT: "asm_sysvec_apic_timer_interrupt", OWN: "bpf_trace_run5"}


@dataclass
class Table:
    """Rules as the kernel side would find them."""

    rules: dict[int, int] = field(default_factory=dict)

    def install(self, key: int, rule: int) -> None:
        self.rules[key] = rule

    def remove(self, keys: Sequence[int]) -> None:
        for key in keys:
            del self.rules[key]


class Learner(KernelRules):
    """Learns from stacks that are given as what lies where, in words from the arguments on."""

    def __init__(self) -> None:
        self.table = Table()
        super().__init__(self.table, lambda address: NAMES.get(address, "plain"))  # type: ignore[arg-type]

    def stack(self, chain: Sequence[int], lies: Mapping[int, int], *, context: int = CONTEXT) -> None:
        memory = np.zeros((STACK_BYTES - context % STACK_BYTES) // WORD, np.uint64)
        for place, word in lies.items():
            memory[place] = word
        self.learn(POINT, chain, memory, context)

    def distance(self, address: int) -> int | None:
        """Return the distance of an address in words, None without a rule."""
        rule = self.table.rules.get(address)
        if rule is None:
            return None
        assert rule & 0xFF == RULE_STEP and rule >> 8 & 7 == 0
        return rule >> 8 >> 3

    @property
    def begin(self) -> int | None:
        return self.distance(RULE_BEGIN + POINT)


@pytest.fixture
def learner() -> Learner:
    return Learner()


# ---- what functions mean ----


@pytest.mark.parametrize("function", [
    "bpf_prog_0123456789abcdef_kmalloc", "bpf_trace_run5", "__bpf_trace_kmalloc", "__traceiter_kmalloc", "bpf_trampoline_6442",
    "trace_call_bpf", "perf_trace_kmalloc",
])
def test_the_tracings_own_functions(function: str) -> None:
    """Programs, what calls them, and what other tracing hangs on the same tracepoint are no part of the stack."""
    assert role_of(function) is Role.TRACING


@pytest.mark.parametrize("function", [
    "entry_SYSCALL_64_after_hwframe", "ret_from_fork_asm", "ret_from_fork", "asm_exc_page_fault", "asm_common_interrupt",
    "asm_sysvec_apic_timer_interrupt", "handle_softirqs", "__do_softirq", "__softirqentry_text_start",
    "secondary_startup_64_no_verify", "start_secondary", "common_startup_64",
])
def test_where_stacks_end(function: str) -> None:
    """Entries into the kernel and interrupts end a stack."""
    assert role_of(function) is Role.END


@pytest.mark.parametrize("function", [
    None, "", "bpf_prog_alloc", "bpf_prog_load", "bpf_trace_run_any", "bpf_map_alloc", "do_softirq", "do_softirq_own_stack",
    "__traceite", "asm_", "x_entry_SYSCALL_64", "do_syscall_64", "kmalloc", "entry_SYSCALL_64.cold",
])
def test_all_others_are_plain(function: str | None) -> None:
    """What only sounds like it, allocations of BPF's own code among them, is an ordinary function."""
    assert role_of(function) is Role.PLAIN


def test_own_frames_lead_a_stack() -> None:
    """The first one is the program, which may have no name; behind a function of the kernel there are none.

    Else what another program allocates would be taken for this one's tracing, and its frames for own ones ever after.
    """
    own, plain = Role.TRACING, Role.PLAIN
    assert own_frames([]) == own_frames([plain]) == own_frames([plain, plain]) == 0
    assert (own_frames([own]), own_frames([own, own, plain]), own_frames([own, own])) == (1, 2, 2)
    assert own_frames([plain, own, own, plain]) == 3
    assert own_frames([plain, plain, own, own]) == 0
    assert own_frames([own, own, plain, own, own]) == 2
    assert own_frames([own] * 30) == 6


def test_names_are_asked_for_once() -> None:
    """A return address leads back to the same function every time."""
    asked: list[int] = []
    rules = KernelRules(Table(), lambda address: asked.append(address) or NAMES.get(address))  # type: ignore[func-returns-value, arg-type]
    assert rules.own_frames([OWN, OWN, A]) == 2
    assert rules.role(OWN) is Role.TRACING and asked == [OWN, A]


# ---- where addresses can lie ----


def places(chain: Sequence[int], *words: int) -> list[list[int]]:
    return feasible(chain, np.array(words, np.uint64))


def test_one_way_is_one_place_each() -> None:
    """Addresses that lie in their order once have one place."""
    assert places([A, B, C], 0, A, 7, B, C) == [[1], [3], [4]]


def test_what_is_out_of_order_is_no_place() -> None:
    """An address below the one before it, or above the one behind it, is what another call has left."""
    assert places([A, B, C], B, A, C, B, C, A) == [[1], [3], [4]]
    assert places([A, B], A, B, A) == [[0], [1]]


def test_several_ways_are_several_places() -> None:
    """Each place is told that some way through has."""
    assert places([A, B], A, B, B) == [[0], [1, 2]]
    assert places([A, B, C], A, A, B, C, B, C) == [[0, 1], [2, 4], [3, 5]]


def test_an_address_may_come_twice() -> None:
    """Recursion: the same return address several times, each at its own place."""
    assert places([A, A, B], A, 0, A, B) == [[0], [2], [3]]
    assert places([A, A, B], A, A, A, B) == [[0, 1], [1, 2], [3]]


def test_what_is_on_another_stack_is_nowhere() -> None:
    """From the first address on that does not follow, nothing is said; also where nothing is there at all."""
    assert places([A, B, C], A, 0, B) == [[0], [2]]
    assert places([A, B, C], A, C, 0) == [[0]]
    assert places([A], 1, 2) == [] and places([A]) == [] and places([], A) == []


# ---- distances ----


def test_distances_of_one_stack(learner: Learner) -> None:
    """Each address has the distance to the next, the program's arguments that to the first, and the last its place."""
    learner.stack([A, B, ENTRY], {5: A, 9: B, 20: ENTRY})
    assert (learner.begin, learner.distance(A), learner.distance(B)) == (5, 4, 11)
    place = (CONTEXT + 20 * WORD) % STACK_BYTES // WORD + 1
    assert learner.table.rules[ENTRY] == RULE_END | place << 8
    assert len(learner) == 4


def test_a_stale_copy_above_is_not_taken(learner: Learner) -> None:
    """Where an address lies twice behind the one before, no distance is believed until other stacks say which."""
    learner.stack([A, B, ENTRY], {5: A, 7: B, 9: B, 20: ENTRY})
    assert (learner.begin, learner.distance(A), learner.distance(B)) == (5, None, None)
    learner.stack([A, B, ENTRY], {3: A, 7: B, 12: B, 18: ENTRY})
    assert (learner.distance(A), learner.distance(B)) == (4, 11)


def test_a_stale_copy_below_is_not_taken(learner: Learner) -> None:
    """The arguments' distance is not that to what an earlier call has left below the true place."""
    learner.stack([A, B], {1: A, 5: A, 9: B})
    assert (learner.begin, learner.distance(A)) == (None, None)
    learner.stack([A, B], {3: A, 5: A, 9: B})
    assert (learner.begin, learner.distance(A)) == (5, 4)


def test_what_was_narrowed_down_stays_so(learner: Learner) -> None:
    """What two stacks leave open, a third one decides among: a distance that one of them excluded does not come back."""
    learner.stack([A, B], {5: A, 7: B, 8: B, 9: B})
    learner.stack([A, B], {5: A, 8: B, 9: B})
    assert learner.distance(A) is None
    learner.stack([A, B], {5: A, 7: B, 9: B})
    assert learner.distance(A) == 4


def test_a_distance_that_varies_is_given_up(learner: Learner) -> None:
    """A function that makes room by a number it computes gets no rule, now and later."""
    learner.stack([A, B, C], {5: A, 9: B, 12: C})
    assert learner.distance(A) == 4
    learner.stack([A, B, C], {5: A, 11: B, 14: C})
    assert (learner.distance(A), learner.distance(B)) == (None, 3)
    for _ in range(3):
        learner.stack([A, B, C], {5: A, 11: B, 14: C})
    assert learner.distance(A) is None


def test_a_known_distance_that_is_possible_stays(learner: Learner) -> None:
    """A stale copy does not take away what is known."""
    learner.stack([A, B], {5: A, 9: B})
    learner.stack([A, B], {5: A, 7: B, 9: B, 11: B})
    assert learner.distance(A) == 4


def test_a_caller_decides_nothing_about_a_function(learner: Learner) -> None:
    """The distance belongs to the address that is returned to, whoever called its function."""
    learner.stack([A, B, ENTRY], {5: A, 9: B, 20: ENTRY})
    learner.stack([A, C, ENTRY], {5: A, 9: C, 20: ENTRY})
    assert (learner.distance(A), learner.distance(B), learner.distance(C)) == (4, 11, 11)


def test_where_programs_begin_may_change(learner: Learner) -> None:
    """When another program is attached to the tracepoint, the new distance takes the place of the old one."""
    learner.stack([A, B], {5: A, 9: B})
    learner.stack([A, B], {11: A, 15: B})
    assert (learner.begin, learner.distance(A)) == (11, 4)
    learner.stack([A, B], {5: A, 9: B})
    assert learner.begin == 5


def test_a_changed_beginning_is_not_believed_at_once_where_it_is_unclear(learner: Learner) -> None:
    """While the new place is one of several, there is no rule, the old one least of all."""
    learner.stack([A, B], {5: A, 9: B})
    learner.stack([A, B], {11: A, 13: A, 15: B, 17: B})
    assert learner.begin is None
    learner.stack([A, B], {11: A, 15: B})
    assert learner.begin == 11


def test_known_distances_tell_places_apart(learner: Learner) -> None:
    """What another address's distance rules out is no place of this one."""
    learner.stack([A, B], {5: A, 9: B})
    learner.stack([C, A, B], {2: C, 11: A, 13: A, 17: B})
    assert learner.distance(C) == 11


def test_each_point_begins_elsewhere(learner: Learner) -> None:
    """Tracepoints have different numbers of arguments, so each has a beginning of its own."""
    learner.stack([A, B], {5: A, 9: B})
    words = np.zeros(128, np.uint64)
    words[[7, 11]] = A, B
    learner.learn(POINT + 1, [A, B], words, CONTEXT)
    assert (learner.begin, learner.distance(RULE_BEGIN + POINT + 1), learner.distance(A)) == (5, 7, 4)


# ---- ends ----


def test_an_end_in_one_place_is_held_to_it(learner: Learner) -> None:
    """However deep the stack, an entry lies in the same place of it."""
    for deep in (0, 16, 40):
        learner.stack([A, ENTRY], {5: A, 20 + deep: ENTRY}, context=CONTEXT - deep * WORD)
    place = CONTEXT % STACK_BYTES // WORD + 20 + 1
    assert learner.table.rules[ENTRY] == RULE_END | place << 8
    # It is another distance each time, and the same place: system calls begin at random offsets.
    assert learner.table.rules[A] == RULE_PLACE | place << 8


def test_a_function_that_aligns_its_stack_has_two_distances(learner: Learner) -> None:
    """One, or a word more, whichever was seen first; a third distance leaves the function to the kernel."""
    learner.stack([A, B, C], {5: A, 9: B, 20: C})
    learner.stack([A, B, D], {6: A, 11: B, 40: D})
    assert learner.table.rules[A] == RULE_ALIGNED | 4 * WORD << 8
    learner.stack([B, D, C], {5: B, 9: D, 20: C}, context=CONTEXT - 64)
    learner.stack([D, C, B], {7: D, 17: C, 20: B}, context=CONTEXT - 256)
    assert learner.table.rules[D] == RULE_ALIGNED | 10 * WORD << 8
    learner.stack([A, B, C], {5: A, 15: B, 20: C}, context=CONTEXT - 512)
    assert A not in learner.table.rules


def test_two_distances_that_stay_in_doubt_are_both_tried(learner: Learner) -> None:
    """Where a stale copy lies a word beside the true one each time, a rule comes after some stacks, not before."""
    for _ in range(ENOUGH - 1):
        learner.stack([A, B], {5: A, 9: B, 10: B})
        assert A not in learner.table.rules
    learner.stack([A, B], {5: A, 9: B, 10: B})
    assert learner.table.rules[A] == RULE_ALIGNED | 4 * WORD << 8


def test_a_place_is_not_believed_while_there_are_two(learner: Learner) -> None:
    """Where a stale copy of the entry lies in the same place each time, neither is taken for the true one."""
    for place in (5, 6, 4):
        learner.stack([A, ENTRY], {place: A, 19: ENTRY, 21: ENTRY})
    assert A not in learner.table.rules
    learner.stack([A, ENTRY], {1: A, 19: ENTRY, 21: ENTRY})
    assert A not in learner.table.rules


def test_an_end_in_several_places_is_one_anywhere(learner: Learner) -> None:
    """What ends stacks of several kinds is an end wherever it lies, from then on."""
    for place in (20, 21, 20):
        learner.stack([A, ENTRY], {5: A, place: ENTRY})
    assert learner.table.rules[ENTRY] == RULE_END


def test_an_end_that_may_lie_in_two_places_is_not_learnt(learner: Learner) -> None:
    """A stale copy leaves its place open."""
    learner.stack([A, ENTRY], {5: A, 20: ENTRY, 22: ENTRY})
    assert ENTRY not in learner.table.rules
    learner.stack([A, ENTRY], {5: A, 20: ENTRY})
    assert ENTRY in learner.table.rules


def test_a_stack_that_ends_without_an_end_has_none(learner: Learner) -> None:
    """Where the kernel's own walk stopped early, its last address is no end."""
    learner.stack([A, B], {5: A, 9: B})
    assert B not in learner.table.rules


def test_what_an_interrupt_interrupted_is_not_looked_at(learner: Learner) -> None:
    """Beyond an end the addresses are another stack's, even where they seem to lie on this one."""
    learner.stack([A, INTERRUPT, B, C, ENTRY], {5: A, 9: INTERRUPT, 12: B, 15: C})
    assert learner.distance(A) == 4 and learner.table.rules[INTERRUPT] & 0xFF == RULE_END
    assert learner.distance(B) is None and ENTRY not in learner.table.rules


def test_frames_on_another_stack_have_no_distance(learner: Learner) -> None:
    """A stack that goes on elsewhere is known up to where it leaves, and an end there has no place."""
    learner.stack([A, B, C, ENTRY], {5: A, 9: B})
    assert (learner.distance(A), learner.distance(B), learner.distance(C)) == (4, None, None)
    assert ENTRY not in learner.table.rules


def test_an_empty_stack_teaches_nothing(learner: Learner) -> None:
    """No addresses, or no memory, are no error."""
    learner.stack([], {1: A})
    learner.stack([A, ENTRY], {})
    learner.learn(POINT, [A, ENTRY], np.zeros(0, np.uint64), CONTEXT)
    assert learner.table.rules == {} and len(learner) == 0


# ---- the walk ----

FAKE = """
    #include <stdint.h>
    #include <string.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;
    #undef __always_inline
    #define __always_inline inline __attribute__((always_inline))
    #define NULL ((void *)0)
    static const u8 *memory; static u64 start, size;
    static int bpf_probe_read_kernel(void *to, u32 count, const void *from)
    {
        u64 at = (u64)from;
        if (at < start || at - start > size || count > size - (at - start))
            return -14;
        memcpy(to, memory + (at - start), count);
        return 0;
    }
    struct rule_bucket { u64 keys[4]; u64 rules[4]; };
    static struct rule_bucket *buckets;
    static struct rule_bucket *look(u32 *index) { return *index < 1u << RULE_BUCKET_BITS ? &buckets[*index] : NULL; }
    static const struct { struct rule_bucket *(*lookup)(u32 *); } rules = { look };
"""
WALK = """
    /* Returns how many frames there are, -1 where rules do not lead through. */
    int walk(void *table, const u8 *bytes, u64 at, u64 count, u64 context, u32 point, u64 *found, u64 *ended)
    {
        static struct kernel_scratch scratch;
        buckets = table; memory = bytes; start = at; size = count;
        scratch.context = context;
        if (!walk_by_rules(&scratch, point))
            return -1;
        memcpy(found, scratch.addresses, sizeof(scratch.addresses));
        *ended = scratch.ended;
        return scratch.depth;
    }
"""


def part(file: str, pattern: str) -> str:
    """Return a piece of a file of bpf/."""
    found = re.search(pattern, (BPF / file).read_text(), re.MULTILINE | re.DOTALL)
    assert found, pattern
    return found[0]


def c_function(file: str, name: str) -> str:
    return part(file, rf"^static [^\n]*\b{name}\([^;]*?\n{{\n.*?^}}$")


class Walker:
    """walk_by_rules() with a table of its own."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.buckets = np.zeros(1 << BUCKET_BITS, records.RULE_BUCKET)

    def walk(self, stack: Stack) -> list[int] | None:
        """Return what the rules find on a stack, None where they do not lead through."""
        memory, found, ended = stack.memory.tobytes(), np.zeros(FRAMES, np.uint64), ctypes.c_uint64()
        depth = self._library.walk(
            self.buckets.ctypes.data_as(ctypes.c_void_p), memory, ctypes.c_uint64(STACK), ctypes.c_uint64(len(memory)),
            ctypes.c_uint64(stack.context), POINT, found.ctypes.data_as(ctypes.c_void_p), ctypes.byref(ended))
        if depth < 0:
            return None
        if ended.value == records.StackEnd.COMPLETE:
            return [int(address) for address in found[:depth]]
        assert ended.value == records.StackEnd.DEPTH and depth == FRAMES
        return [int(address) for address in found]


@dataclass
class Stack:
    """One kernel stack: all its memory, where the program's arguments lie, and its true addresses."""

    memory: np.ndarray
    context: int
    chain: list[int]

    def teach(self, rules: KernelRules, copied: int = COPY_BYTES) -> None:
        """Have rules learn from it, as send_stack() sends it."""
        first = (self.context - STACK) // WORD
        rules.learn(POINT, self.chain[:FRAMES], self.memory[first : first + copied // WORD], self.context)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("walk")
    rules = re.findall(r"^#define KERNEL_(?:RULE\w*|STACK|WINDOW|TEXT\w*)\b.*$", (BPF / "kernel.h").read_text(), re.MULTILINE)
    assert len(rules) == 12
    (folder / "walk.c").write_text("\n".join([
        f"#define RULE_BUCKET_BITS {BUCKET_BITS}\n#define KERNEL_FRAMES {FRAMES}", FAKE, *rules,
        part("records.h", r"^enum stack_end \{.*?^\};$"), part("kernel_maps.h", r"^struct kernel_scratch \{.*?^\};$"),
        part("sites.c", r"^#define SPREAD .*?$"), c_function("unwind.h", "mask_of_zero"), c_function("sites.c", "rule_in"),
        c_function("sites.c", "rule_of"), c_function("kernel_stack.c", "mix"), c_function("kernel_stack.c", "number_of"),
        c_function("kernel_stack.c", "stack_word"), c_function("kernel_stack.c", "is_text"), c_function("kernel_stack.c", "could_be_next"), c_function("kernel_stack.c", "walk_by_rules"), WALK]))
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", folder / "walk.so", folder / "walk.c"], check=True)
    return ctypes.CDLL(str(folder / "walk.so"))


#: The words of a stack, and where an entry into the kernel lies on it.
WORDS = STACK_BYTES // WORD
TOP = WORDS - 22
BEGIN = 6
#: Functions that call one another, and how much room each call takes, in words. DEEP's is larger than a copy of a stack.
FUNCTIONS = {TEXT + 0x1000 + 0x40 * number: 2 + number * number % 37 for number in range(14)}
DEEP = TEXT + 0x7000
#: Functions that align their stack, and the one that each system call begins in: the least room that they take.
ALIGNED = {TEXT + 0x7100 + 0x40 * number: 3 + 2 * number for number in range(3)}
CALL = TEXT + 0x7300
DISTANCES = {**FUNCTIONS, **ALIGNED, CALL: 7, DEEP: COPY_BYTES // WORD + 40}
#: How many words more they may take.
MORE: dict[int, Sequence[int]] = {CALL: range(40), **dict.fromkeys(ALIGNED, (0, 1))}
#: One of them.
A_PLAIN = next(iter(FUNCTIONS))
END_PLACES = {ENTRY: (TOP,), INTERRUPT: (TOP - 40, TOP - 64)}


def made_stack(chain: Sequence[int], end: int, place: int, stale: Mapping[int, int], *, varying: Mapping[int, int] | None = None,
               begin: int = BEGIN, dice: Random | None = None) -> Stack:
    """Return a stack of calls, innermost first. stale: words of it where calls before have left something.

    dice: where given, each call of a function in MORE takes its part more.
    """
    memory = np.zeros(WORDS, np.uint64)
    for at, word in stale.items():
        memory[at % WORDS] = word
    memory[place] = end
    distances = {**DISTANCES, **(varying or {})}
    for address in reversed(chain):
        place -= distances[address] + (dice.choice(MORE.get(address, (0,))) if dice else 0)
        memory[place] = address
    return Stack(memory, STACK + (place - begin) * WORD, [*chain, end])


ADDRESSES = [*FUNCTIONS, ENTRY, INTERRUPT]


def any_stack(dice: Random, pool: Sequence[int] = (*FUNCTIONS,), *, pieces: int = 4, words: int = 6) -> Stack:
    """Return a stack with what calls have left on it: whole pieces of other stacks, and single addresses."""
    end = dice.choice([*END_PLACES])
    chain = dice.choices(pool, k=dice.randint(1, 8))
    if chain.count(DEEP) > 1:
        chain = [address for address in chain if address != DEEP]
    stale = any_stale(dice, ADDRESSES, pieces, words)
    return made_stack(chain, end, dice.choice(END_PLACES[end]), stale)


def any_stale(dice: Random, addresses: Sequence[int], pieces: int, words: int) -> dict[int, int]:
    """Return what calls before have left, by its place: pieces of their stacks, and words."""
    stale: dict[int, int] = {}
    for _ in range(dice.randint(0, pieces)):
        at = WORDS - dice.randint(1, 300)
        for address in dice.choices(addresses, k=dice.randint(1, 6)):
            stale[at] = address
            at += DISTANCES.get(address, 1)
    for _ in range(dice.randint(0, words)):
        stale[WORDS - dice.randint(1, 300)] = dice.choice(addresses)
    return stale


#: What stacks of both kinds of moving functions are made of; few, so that the tests soon have met each.
MOVING = (*[*FUNCTIONS][:8], *ALIGNED)


def moving_stack(dice: Random, *, words: int = 6) -> Stack:
    """Return a stack on which functions align theirs, and each system call begins at an offset of its own."""
    end = dice.choice([*END_PLACES])
    chain = [*dice.choices(MOVING, k=dice.randint(1, 8)), *([CALL] if end == ENTRY else [])]
    return made_stack(chain, end, dice.choice(END_PLACES[end]), any_stale(dice, (*MOVING, CALL, ENTRY, INTERRUPT), 4, words),
                      dice=dice)


def teach_all_that_moves(rules: KernelRules) -> None:
    """Have rules meet each function of moving stacks, both ways that one aligns, and system calls at several offsets."""
    plain = [*FUNCTIONS][:8]
    for offset, function in enumerate(plain):
        made_stack([function, CALL], ENTRY, TOP, {}, varying={CALL: 8 + 3 * offset}).teach(rules)
    for (function, least), outer in zip(ALIGNED.items(), itertools.pairwise(plain), strict=False):
        for more in (0, 1):
            made_stack([function, outer[more], CALL], ENTRY, TOP, {}, varying={function: least + more}).teach(rules)
    made_stack(plain[:1], INTERRUPT, END_PLACES[INTERRUPT][0], {}).teach(rules)
    made_stack(plain[:1], INTERRUPT, END_PLACES[INTERRUPT][1], {}).teach(rules)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(dice=st.randoms(use_true_random=False), count=st.integers(1, 10), pool=st.sampled_from([(*FUNCTIONS, DEEP), (*[*FUNCTIONS][:4], DEEP)]))
def test_the_walk_gives_the_true_stack_or_nothing(library: ctypes.CDLL, dice: Random, count: int, pool: tuple[int, ...]) -> None:
    """Whatever was learnt, and whatever earlier calls have left on stacks, also such as reach beyond their copies."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    seen = [any_stack(dice, pool) for _ in range(count)]
    for stack in seen:
        stack.teach(rules)
    for stack in [*seen, any_stack(dice, pool)]:
        assert walker.walk(stack) in (None, stack.chain)


@pytest.mark.parametrize("seed", range(3))
def test_a_long_trace_is_walked_by_rules_mostly_and_never_wrong(library: ctypes.CDLL, seed: int) -> None:
    """Stacks full of what was left there: in the end nine of ten are found by rules, none is another one."""
    dice, walker = Random(seed), Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    found: list[bool] = []
    for _ in range(300):
        stack = any_stack(dice, words=30)
        got = walker.walk(stack)
        assert got in (None, stack.chain)
        found.append(got is not None)
        stack.teach(rules)
    assert not found[0] and sum(found[-100:]) > 90


@settings(deadline=None, derandomize=True, max_examples=150)
@given(dice=st.randoms(use_true_random=False), count=st.integers(1, 10))
def test_what_moves_is_walked_truly_or_not_at_all(library: ctypes.CDLL, dice: Random, count: int) -> None:
    """With functions that align their stack and system calls at random offsets, all known, whatever else was left there."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    teach_all_that_moves(rules)
    for _ in range(count):
        stack = moving_stack(dice, words=30)
        assert walker.walk(stack) in (None, stack.chain)
        stack.teach(rules)
        assert walker.walk(stack) in (None, stack.chain)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(dice=st.randoms(use_true_random=False), chain=st.lists(st.sampled_from(MOVING), min_size=1, max_size=8))
def test_what_moves_is_walked_by_rules(library: ctypes.CDLL, dice: Random, chain: list[int]) -> None:
    """Where nothing else was left, each stack of what is known is walked, at offsets and alignments never seen together."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    teach_all_that_moves(rules)
    stack = made_stack([*chain, CALL], ENTRY, TOP, {}, dice=dice)
    assert walker.walk(stack) == stack.chain


@pytest.mark.parametrize("seed", range(3))
def test_a_long_trace_of_what_moves_is_walked_by_rules_mostly(library: ctypes.CDLL, seed: int) -> None:
    """From nothing known on, nine of ten are found in the end, and none of these is another one."""
    dice, walker = Random(seed), Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    found: list[bool] = []
    for _ in range(300):
        stack = moving_stack(dice)
        got = walker.walk(stack)
        assert got in (None, stack.chain)
        found.append(got is not None)
        stack.teach(rules)
    assert not found[0] and sum(found[-100:]) > 90


@settings(deadline=None, derandomize=True, max_examples=30)
@given(chains=st.lists(st.lists(st.sampled_from([*FUNCTIONS]), min_size=1, max_size=8), min_size=1, max_size=4), end=st.sampled_from([*END_PLACES]))
def test_what_was_seen_without_doubt_is_walked_by_rules(library: ctypes.CDLL, chains: list[list[int]], end: int) -> None:
    """On stacks that hold nothing else, each that was seen once is found from then on: the faster way is taken at all."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    clean = [made_stack(chain, end, END_PLACES[end][0], {}) for chain in chains]
    # Recursion may be placed in several ways.
    plain = [stack for stack in clean if len(set(stack.chain)) == len(stack.chain)]
    for stack in plain:
        stack.teach(rules)
    assert [walker.walk(stack) for stack in plain] == [stack.chain for stack in plain]


def test_a_function_whose_room_varies_is_left_to_the_kernel(library: ctypes.CDLL) -> None:
    """Once it was seen to vary, no stack that it is on is walked by rules; others still are."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    varying, *others = FUNCTIONS
    for room, outer in ((3, others[1:2]), (9, others[2:4])):
        made_stack([others[0], varying, *outer], ENTRY, TOP, {}, varying={varying: room}).teach(rules)
    made_stack([others[0], others[1]], ENTRY, TOP, {}).teach(rules)
    for room in (3, 9, 5):
        assert walker.walk(made_stack([others[0], varying, others[1]], ENTRY, TOP, {}, varying={varying: room})) is None
    stack = made_stack([others[0], others[1]], ENTRY, TOP, {})
    assert walker.walk(stack) == stack.chain


@pytest.mark.parametrize("rooms", [(3, 4), (4, 3)])
def test_a_function_that_aligns_its_stack_is_walked_either_way(library: ctypes.CDLL, rooms: tuple[int, int]) -> None:
    """Both distances lead through; where a stale address lies in the other place too, the kernel walks."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    aligned, *others = FUNCTIONS
    for room, outer in zip(rooms, (others[1:2], others[2:4]), strict=True):
        made_stack([others[0], aligned, *outer], ENTRY, TOP, {}, varying={aligned: room}).teach(rules)
    for room in rooms:
        stack = made_stack([others[0], aligned, others[1]], ENTRY, TOP, {}, varying={aligned: room})
        assert walker.walk(stack) == stack.chain
    # What was left a word below the true address leads to the same entry.
    true, left = next((one, other) for one in others[1:] for other in others[1:] if DISTANCES[other] == DISTANCES[one] + 1)
    made_stack([others[0], true], ENTRY, TOP, {}).teach(rules)
    made_stack([others[0], left], ENTRY, TOP, {}).teach(rules)
    stack = made_stack([others[0], aligned, true], ENTRY, TOP, {TOP - DISTANCES[left]: left}, varying={aligned: 4})
    assert walker.walk(stack) is None
    # A third distance: nothing is there before it is learnt, and afterwards there is no rule any more.
    third = made_stack([others[0], aligned, others[4]], ENTRY, TOP, {}, varying={aligned: 12})
    assert walker.walk(third) is None
    third.teach(rules)
    for room in (*rooms, 12):
        assert walker.walk(made_stack([others[0], aligned, others[1]], ENTRY, TOP, {}, varying={aligned: room})) is None


def test_system_calls_at_random_offsets_are_walked(library: ctypes.CDLL) -> None:
    """Between a system call's first function and the entry there is another distance each time; the entry stays."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    call, inner, *_ = FUNCTIONS
    for offset in (5, 9, 30):
        made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset}).teach(rules)
    for offset in (7, 12, 60):
        stack = made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset})
        assert walker.walk(stack) == stack.chain


def test_what_is_called_from_two_places_has_no_place(library: ctypes.CDLL) -> None:
    """A distance that varies below two places of the stack says nothing: the kernel walks, also where only one is met again."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    call, inner, *_ = FUNCTIONS
    for offset in (5, 9):
        made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset}).teach(rules)
    stack = made_stack([inner, call], ENTRY, TOP, {}, varying={call: 7})
    assert walker.walk(stack) == stack.chain
    made_stack([inner, call], INTERRUPT, TOP - 40, {}, varying={call: 12}).teach(rules)
    for offset in (5, 9, 30):
        made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset}).teach(rules)
        assert walker.walk(made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset})) is None
    assert walker.walk(made_stack([inner, call], INTERRUPT, TOP - 40, {}, varying={call: 12})) is None


@pytest.mark.parametrize("offsets", [(5, 6, 9), (6, 5, 9), (5, 9, 6), (5, 6, 5, 30)])
def test_offsets_that_differ_by_a_word_are_no_alignment(library: ctypes.CDLL, offsets: tuple[int, ...]) -> None:
    """Two offsets of system calls may lie as near as that by chance; the third one shows what they are."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    call, inner, *_ = FUNCTIONS
    for offset in offsets:
        made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset}).teach(rules)
    for offset in (5, 6, 7, 12, 60):
        stack = made_stack([inner, call], ENTRY, TOP, {}, varying={call: offset})
        assert walker.walk(stack) == stack.chain


def test_only_where_stacks_end_is_a_place(library: ctypes.CDLL) -> None:
    """A caller that was met in one place only may be further out on another stack, and what lies between would be left out."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    varying, caller, between, *_ = FUNCTIONS
    for room in (4, 9, 15):
        made_stack([varying, caller], ENTRY, TOP, {}, varying={varying: room}).teach(rules)
    assert walker.walk(made_stack([varying, between, caller], ENTRY, TOP, {}, varying={varying: 12})) is None
    # The walk itself does not believe it either.
    table = RuleTable(walker.buckets)
    table.install(varying, RULE_PLACE | (TOP - DISTANCES[caller] + 1) << 8)
    assert walker.walk(made_stack([varying, between, caller], ENTRY, TOP, {}, varying={varying: 12})) is None


def test_an_unknown_address_in_the_other_place_counts(library: ctypes.CDLL) -> None:
    """The true caller of a function that aligns its stack may be new, and what lies a word below it be left there."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    aligned, below, other, inner, *_ = FUNCTIONS
    for room, outer in ((3, below), (4, other)):
        made_stack([inner, aligned, outer], ENTRY, TOP, {}, varying={aligned: room}).teach(rules)
    stale = {TOP - DISTANCES[below]: below}
    stack = made_stack([inner, aligned, DEEP], ENTRY, TOP, stale, varying={aligned: 4, DEEP: DISTANCES[below] - 1})
    assert walker.walk(stack) is None


def test_what_never_was_an_address_does_not_count_in_the_other_place(library: ctypes.CDLL) -> None:
    """What a call of another function left beside the true address is known after one such stack; until it is on one."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    aligned, below, other, inner, *_ = FUNCTIONS
    for room, outer in ((3, below), (4, other)):
        made_stack([inner, aligned, outer], ENTRY, TOP, {}, varying={aligned: room}).teach(rules)
    left = {TOP - DISTANCES[below] + 1: TEXT + 0xB0}
    stack = made_stack([inner, aligned, below], ENTRY, TOP, left, varying={aligned: 3})
    assert walker.walk(stack) is None
    stack.teach(rules)
    assert walker.walk(stack) == stack.chain
    made_stack([inner, TEXT + 0xB0], ENTRY, TOP, {}, varying={TEXT + 0xB0: 8}).teach(rules)
    assert walker.walk(stack) is None


def test_an_address_that_varies_spoils_no_other(library: ctypes.CDLL) -> None:
    """A system call lies at random offsets, with copies of its address left above it: its function's distance is found."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    call, function, another, inner, *_ = FUNCTIONS
    # On the first four, one distance fits all, and it is not the true one.
    for offset, caller, copies in ((60, another, (40, 18)), (30, another, (18,)), (51, function, (18,)),
                                   (44, function, (18,)), (70, function, (20,)), (38, function, (33,))):
        left = {TOP - copy: call for copy in copies}
        made_stack([inner, caller, call], ENTRY, TOP, left, varying={call: offset}).teach(rules)
    for offset, copy in ((57, 18), (25, 12), (70, 40)):
        stack = made_stack([inner, function, call], ENTRY, TOP, {TOP - copy: call}, varying={call: offset})
        assert walker.walk(stack) == stack.chain


def test_a_copy_that_is_cut_teaches_nothing(library: ctypes.CDLL) -> None:
    """What lies beyond it may seem to lie in it: calls that have ended leave their addresses there."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    deep, outer, *_ = [DEEP, *FUNCTIONS]
    made_stack([deep, outer], ENTRY, TOP, {TOP - DISTANCES[outer] - 900: outer}).teach(rules)
    assert len(rules) == 0


def test_a_stack_deeper_than_is_kept_is_cut(library: ctypes.CDLL) -> None:
    """As many frames as there is room for, without an end."""
    walker = Walker(library)
    rules = KernelRules(RuleTable(walker.buckets), NAMES.get)
    chain = [*FUNCTIONS][:FRAMES + 1]
    stack = made_stack(chain, ENTRY, TOP, {})
    stack.teach(rules)
    made_stack(chain[4:], ENTRY, TOP, {}).teach(rules)
    assert walker.walk(stack) == chain[:FRAMES]


def test_the_walk_stops_where_memory_ends(library: ctypes.CDLL) -> None:
    """Rules that lead beyond the stack find nothing there."""
    walker = Walker(library)
    table = RuleTable(walker.buckets)
    stack = made_stack([A_PLAIN], ENTRY, TOP, {})
    table.install(RULE_BEGIN + POINT, RULE_STEP | BEGIN * WORD << 8)
    table.install(A_PLAIN, RULE_STEP | STACK_BYTES << 8)
    assert walker.walk(stack) is None


def test_an_end_in_a_wrong_place_is_none(library: ctypes.CDLL) -> None:
    """An end that is held to its place is refused elsewhere, and one that is not is taken."""
    walker = Walker(library)
    table = RuleTable(walker.buckets)
    table.install(RULE_BEGIN + POINT, RULE_STEP | BEGIN * WORD << 8)
    table.install(A_PLAIN, RULE_STEP | FUNCTIONS[A_PLAIN] * WORD << 8)
    stack = made_stack([A_PLAIN], ENTRY, TOP, {})
    for place, found in ((TOP + 2, None), (TOP + 1, stack.chain), (0, stack.chain)):
        table.install(ENTRY, RULE_END | place << 8)
        assert walker.walk(stack) == found


def test_without_a_beginning_there_is_no_walk(library: ctypes.CDLL) -> None:
    """An argument that happens to be a return address is not where a stack begins."""
    walker = Walker(library)
    table = RuleTable(walker.buckets)
    stack = made_stack([A_PLAIN], ENTRY, TOP, {}, begin=0)
    table.install(A_PLAIN, RULE_STEP | FUNCTIONS[A_PLAIN] * WORD << 8)
    table.install(ENTRY, RULE_END)
    assert walker.walk(stack) is None
    table.install(RULE_BEGIN + POINT, RULE_STEP)
    assert walker.walk(stack) == stack.chain
