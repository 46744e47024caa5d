"""Snapshots: sites become rows, rows have lasting identities, and two snapshots have a difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tracer import records
from tracer.collect.snapshot import (
    NOT_SCANNED,
    Blocks,
    Members,
    Retired,
    Snapshot,
    add_counters,
    gained,
    identify,
    merge_groups,
    merge_sites,
    with_blocks,
)
from tracer.records import StackEnd

DEPTH = 8


def stack(*addresses: int, image: int = 0, code: int = 0, ended: int = StackEnd.COMPLETE, beyond: int = 0,
          identifier: int = 0) -> np.ndarray:
    """Return one struct stack, with beyond in the places that its depth leaves out."""
    made = np.zeros((), records.stack_dtype(DEPTH))
    made["id"], made["image"], made["code"], made["ended"] = identifier, image, code, ended
    made["depth"] = len(addresses)
    made["addresses"] = [*addresses, *[beyond] * (DEPTH - len(addresses))]
    return made


def site(born: int = 1, size: int = 100, freed: int = 0, *, first_ns: int = 5, bucket: int = 3) -> np.ndarray:
    """Return the counters of born blocks of size bytes, freed of which are dead."""
    made = np.zeros((), records.SITE)
    made["allocated_bytes"], made["allocated_count"] = born * size, born
    made["freed_bytes"], made["freed_count"] = freed * size, freed
    made["variance"], made["large_variance"] = 2 * born, born
    made["first_ns"] = first_ns
    made["lifetimes"][bucket] = freed
    return made


def snapshot(*rows: tuple[np.ndarray, np.ndarray], retired: Retired | None = None,
             taken_ns: int = 0) -> tuple[Snapshot, np.ndarray]:
    stacks, counters = [row[0] for row in rows], [row[1] for row in rows]
    return merge_sites(taken_ns, np.array(counters, records.SITE), np.array(stacks, records.stack_dtype(DEPTH)),
                       retired or Retired())


def blocks(*rows: tuple[int, int, int, int, int]) -> Blocks:
    """Return blocks of address, size, age in ns, weight, row."""
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    kinds = (np.uint64, np.uint64, np.int64, np.uint64, np.int64)
    return Blocks(*(column.astype(kind) for column, kind in zip(columns, kinds, strict=True)))


def test_identity_ignores_what_is_beyond_the_depth() -> None:
    """The kernel side leaves anything there: it has no part in the identity, and is cleared."""
    stacks = np.array([stack(1, 2, beyond=77), stack(1, 2, beyond=0), stack(1, 2, beyond=99)])
    assert len(set(identify(stacks).tolist())) == 1
    assert not stacks["addresses"][:, 2:].any()
    assert stacks["addresses"][:, :2].tolist() == [[1, 2]] * 3


def test_identity_ignores_the_kernels_own_number() -> None:
    """A stack that Python finished has an id of another beginning: the addresses count, not how they were found."""
    first, second = identify(np.array([stack(1, 2, identifier=5), stack(1, 2, identifier=6)]))
    assert first == second


@pytest.mark.parametrize(
    "other",
    [
        stack(0x401000, 0x402001), stack(0x402000, 0x401000), stack(0x401000), stack(0x401000, 0x402000, 0x403000),
        stack(0x401000, 0x402000, image=1), stack(0x401000, 0x402000, code=1),
        stack(0x401000, 0x402000, ended=StackEnd.DEPTH), stack(0x401000, 0x402000 | records.INTERRUPTED),
    ],
)  # fmt: skip
def test_other_stacks_have_other_identities(other: np.ndarray) -> None:
    """An address, the order, the depth, the image, the code, the end: each tells two stacks apart."""
    first, second = identify(np.array([stack(0x401000, 0x402000), other]))
    assert first != second


def test_identities_of_many_stacks_differ() -> None:
    """Stacks that differ by a little, as those of one program do, do not collide."""
    stacks = np.array([stack(0x400000 + 16 * a, 0x500000 + 16 * b, 0x600000 - 16 * b) for a in range(60) for b in range(60)])
    assert len(set(identify(stacks).tolist())) == len(stacks)


def test_sites_of_one_stack_become_one_row() -> None:
    """Counters add up, the earliest beginning stays, and each site knows its row."""
    made, rows = snapshot(
        (stack(1, 2), site(born=3, size=10, freed=1, first_ns=30, bucket=4)),
        (stack(7), site(born=1, size=500)),
        (stack(1, 2, beyond=9), site(born=2, size=20, freed=2, first_ns=40, bucket=6)),
    )
    assert len(made) == 2
    assert rows[0] == rows[2] != rows[1]
    merged, single = made.counters[rows[0]], made.counters[rows[1]]
    assert (merged["allocated_bytes"], merged["allocated_count"]) == (70, 5)
    assert (merged["freed_bytes"], merged["freed_count"]) == (50, 3)
    assert (merged["variance"], merged["large_variance"]) == (10, 5)
    assert merged["first_ns"] == 30
    assert merged["lifetimes"].tolist() == [{4: 1, 6: 2}.get(n, 0) for n in range(records.LIFETIME_BUCKETS)]
    assert single["allocated_bytes"] == 500
    assert made.live_bytes[rows].tolist() == [20, 500, 20]
    assert made.live_count[rows].tolist() == [2, 1, 2]
    assert made.stacks[rows[0]]["addresses"][:2].tolist() == [1, 2]
    assert made.oldest_ns.tolist() == [-1, -1]


def test_no_sites() -> None:
    """A program that allocates nothing has an empty snapshot, with which everything goes on."""
    made, rows = merge_sites(5, np.zeros(0, records.SITE), np.zeros(0, records.stack_dtype(DEPTH)), Retired())
    assert len(made) == 0 and rows.shape == (0,) and made.taken_ns == 5
    assert len(with_blocks(made, blocks(), 0, keep=True)) == 0
    assert gained(made, made, lambda each: each.live_bytes).shape == (0,)


def test_retired_sites_still_count() -> None:
    """A site that was given back is no longer read, and its counters are in the row of its stack, or in one of their own."""
    retired = Retired()
    identities = identify(np.array([stack(1, 2), stack(5)]))
    for _ in range(2):
        retired.add(int(identities[0]), site(size=10, freed=1, first_ns=2), stack(1, 2))
    retired.add(int(identities[1]), site(size=3, freed=1), stack(5))
    made, rows = snapshot((stack(1, 2), site(born=4, size=100)), retired=retired)
    assert made.identity.tolist() == sorted(identities.tolist())
    mine = made.counters[rows[0]]
    assert (mine["allocated_count"], mine["freed_count"], mine["allocated_bytes"], mine["first_ns"]) == (6, 2, 420, 2)
    assert made.live_bytes[rows[0]] == 400
    assert sorted(made.live_count.tolist()) == [0, 4]


def test_retired_keeps_copies() -> None:
    """What is given back to the kernel side is written over: the retired row does not change with it."""
    retired = Retired()
    counters, addresses = site(size=10), stack(1)
    retired.add(1, counters, addresses)
    counters["allocated_bytes"], addresses["addresses"] = 0, 0
    kept, kept_stack = retired.rows[1]
    assert kept["allocated_bytes"] == 10 and kept_stack["addresses"][0] == 1


def test_retired_forgets_an_image() -> None:
    """After an exec, what was retired of the old image goes too."""
    retired = Retired()
    retired.add(1, site(), stack(1, image=4))
    retired.add(2, site(), stack(1, image=5))
    retired.forget_images({4, 6})
    assert list(retired.rows) == [2]


def test_add_counters() -> None:
    """Every counter is added, and the earlier beginning stays."""
    into = site(born=2, freed=1, first_ns=9)
    add_counters(into, site(born=3, freed=3, first_ns=11))
    assert [int(into[name]) for name in ("allocated_count", "freed_count", "first_ns")] == [5, 4, 9]
    assert into["lifetimes"][3] == 4


def test_with_blocks_counts_old_blocks_only() -> None:
    """Live figures are of blocks at least that old, each times its weight; the counters stay as they are."""
    made, rows = snapshot((stack(1), site(born=9)), (stack(2), site(born=9)))
    first, second = rows.tolist()
    lived = with_blocks(made, blocks((16, 100, 50, 3, first), (32, 7, 49, 1, first), (48, 10, 90, 2, first),
                                     (64, 5, 10, 1, second)), 50, keep=True)
    assert lived.live_bytes[[first, second]].tolist() == [320, 0]
    assert lived.live_count[[first, second]].tolist() == [5, 0]
    assert lived.oldest_ns[[first, second]].tolist() == [90, -1]
    assert lived.counters is made.counters
    assert lived.blocks is not None and lived.blocks.addresses.tolist() == [16, 48]
    assert lived.blocks.rows.tolist() == [first, first]
    assert made.live_bytes.tolist() == [900, 900], "the first snapshot has changed"


def test_with_blocks_of_any_age() -> None:
    """0 counts all, also those of this moment; blocks are kept only where they are asked for."""
    made, _ = snapshot((stack(1), site(born=9)))
    lived = with_blocks(made, blocks((16, 100, 0, 1, 0)), 0, keep=False)
    assert (lived.live_bytes.tolist(), lived.oldest_ns.tolist(), lived.blocks) == ([100], [0], None)


def test_gained() -> None:
    """Each row of the later one gained what it has more than the same stack had before, a new one all of it."""
    earlier, before = snapshot((stack(1), site(born=5)), (stack(2), site(born=5)), (stack(3), site(born=1)))
    later, after = snapshot((stack(9), site(born=2)), (stack(2), site(born=5, freed=4)), (stack(1), site(born=6)))
    assert len(before) == len(after) == 3
    growth = gained(earlier, later, lambda each: each.live_bytes)
    assert growth[after].tolist() == [200, -400, 100]
    assert gained(None, later, lambda each: each.live_count)[after].tolist() == [2, 1, 6]
    empty, _ = merge_sites(0, np.zeros(0, records.SITE), np.zeros(0, records.stack_dtype(DEPTH)), Retired())
    assert gained(empty, later, lambda each: each.live_count)[after].tolist() == [2, 1, 6]


def test_stacks_of_one_site_are_added_up() -> None:
    """Rows of one group become one row with their sums, and the stack of the one that holds most."""
    made, rows = snapshot((stack(1), site(2, 50)), (stack(2), site(1, 300)), (stack(3), site(5, 10, 1)))
    groups = np.zeros(3, np.uint64)
    groups[rows[:2]], groups[rows[2]] = 7, 5
    merged, largest = merge_groups(made, groups)
    assert merged.identity.tolist() == [5, 7]
    assert merged.live_bytes.tolist() == [40, 400] and merged.live_count.tolist() == [4, 3]
    assert merged.counters["allocated_bytes"].tolist() == [50, 400]
    assert [int(merged.stacks[row]["addresses"][0]) for row in range(2)] == [3, 2]
    assert largest.tolist() == [rows[2], rows[1]]


def test_of_equal_stacks_the_deepest_stands_for_the_site() -> None:
    """Which one is shown does not depend on where the program was loaded."""
    for addresses in ((1, 2, 3), (9, 8, 7)):
        made, rows = snapshot((stack(addresses[0]), site()), (stack(*addresses), site()), (stack(*addresses[:2]), site()))
        _, largest = merge_groups(made, np.zeros(3, np.uint64))
        assert largest.tolist() == [rows[1]]


def test_blocks_follow_their_site() -> None:
    """A block's row is that of its stack's group; the oldest block of a group is the oldest of all."""
    made, _ = snapshot((stack(1), site(1, 10)), (stack(2), site(1, 20)))
    old = with_blocks(made, blocks((11, 10, 5, 1, 0), (12, 20, 9, 1, 1)), 0, keep=True)
    merged, _ = merge_groups(old, np.array([3, 3], np.uint64))
    assert merged.blocks is not None and merged.blocks.rows.tolist() == [0, 0]
    assert merged.oldest_ns.tolist() == [9] and merged.live_bytes.tolist() == [30]


def test_no_sites_make_no_groups() -> None:
    """An empty snapshot stays empty."""
    empty, _ = snapshot()
    merged, largest = merge_groups(empty, np.empty(0, np.uint64))
    assert len(merged) == 0 and len(largest) == 0


def test_chosen_blocks() -> None:
    """Those at which is true, with all that is known of each; where nobody looked, no kinds are made up."""
    made = blocks((16, 100, 5, 1, 0), (32, 200, 6, 2, 1), (48, 300, 7, 3, 0))
    which = np.array([True, False, True])
    some = replace(made, kinds=np.array([3, 1, NOT_SCANNED], np.uint8)).chosen(which)
    assert some.kinds is not None and some.kinds.tolist() == [3, NOT_SCANNED]
    assert [each.tolist() for each in (some.addresses, some.sizes, some.ages, some.weights, some.rows)] == [
        [16, 48], [100, 300], [5, 7], [1, 3], [0, 0]]
    assert made.chosen(which).kinds is None


def test_kinds_stay_with_their_blocks() -> None:
    """How a block is reached goes with it when young ones are left out, and when stacks become one site."""
    made, _ = snapshot((stack(1), site(1, 10)), (stack(2), site(2, 20)))
    kept = replace(blocks((16, 10, 50, 1, 0), (32, 20, 5, 1, 1), (48, 20, 60, 1, 1)), kinds=np.array([0, 1, 2], np.uint8))
    merged, _ = merge_groups(with_blocks(made, kept, 50, keep=True), np.array([3, 3], np.uint64))
    assert merged.blocks is not None and merged.blocks.kinds is not None
    assert merged.blocks.kinds.tolist() == [0, 2] and merged.blocks.addresses.tolist() == [16, 48]


def test_members_follow_their_site() -> None:
    """A member's row is that of its stack's group; a snapshot without members stays one without."""
    made, rows = snapshot((stack(1), site()), (stack(2), site()), (stack(3), site()))
    groups = np.zeros(3, np.uint64)
    groups[rows] = [9, 4, 9]
    members = Members(np.array([70, 71, 72, 73], np.uint64), rows[[0, 1, 2, 0]])
    merged, _ = merge_groups(replace(made, members=members), groups)
    assert merged.members is not None and merged.members.keys.tolist() == [70, 71, 72, 73]
    assert merged.members.rows.tolist() == [1, 0, 1, 1]
    assert merge_groups(made, groups)[0].members is None
