"""Every process has a slot while it runs, and a number for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tracer import roster as roster_module
from tracer.attach.objects import Objects
from tracer.attach.target import Process
from tracer.attach.tracee import Tracee
from tracer.roster import Roster
from tracer.settings import Settings
from tracer.stack_pool import NOBODY

SLOTS = 3


@pytest.fixture
def roster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Roster]:
    """Return a roster of three slots."""
    monkeypatch.setattr(roster_module, "MAX_SLOTS", SLOTS)
    made = Roster(Settings(), cast(Objects, None))
    yield made
    for tracee in made.everyone:
        tracee.close()


def process(pid: int | None = None) -> Process:
    """Return a process that exists: this one, in a /proc that may say otherwise."""
    return Process(os.getpid() if pid is None else pid, "made-up", 1, Path("/proc"))


def admit(roster: Roster) -> Tracee:
    tracee = roster.admit(process())
    assert tracee is not None
    return tracee


def leave(roster: Roster, tracee: Tracee) -> None:
    tracee.end()
    roster.leave(tracee)
    roster.retire(tracee)


def test_slots_and_numbers(roster: Roster) -> None:
    """Slots are numbered from 0 and one process has each; its number counts all that ever came."""
    three = [admit(roster) for _ in range(3)]
    assert [(each.slot, each.uid) for each in three] == [(0, 0), (1, 1), (2, 2)]
    assert [roster.at(slot) for slot in range(3)] == three == roster.running == roster.everyone


def test_none_is_free(roster: Roster) -> None:
    """More processes than slots: the one that is too many gets none, and no trace of it is left; later there is room."""
    three = [admit(roster) for _ in range(3)]
    assert roster.admit(process()) is None
    assert roster.everyone == three
    leave(roster, three[1])
    assert (fourth := admit(roster)).slot == 1 and fourth.uid == 3


def test_a_slot_is_used_again_as_late_as_possible(roster: Roster) -> None:
    """What is still on its way speaks of the last process in a slot: the slot that has been free for longest is next."""
    slots = []
    for _ in range(5):
        tracee = admit(roster)
        slots.append(tracee.slot)
        leave(roster, tracee)
    assert slots == [0, 1, 2, 0, 1]


def test_a_slot_is_not_used_before_it_is_retired(roster: Roster) -> None:
    """A process that has ended keeps its slot until nothing more can speak of it; it runs no longer all the same."""
    first = admit(roster)
    first.end()
    roster.leave(first)
    assert roster.running == [] and roster.at(0) is first and roster.everyone == [first]
    assert [admit(roster).slot, admit(roster).slot] == [1, 2] and roster.admit(process()) is None
    roster.retire(first)
    assert roster.at(0) is None and admit(roster).slot == 0


def test_by_pid(roster: Roster) -> None:
    """A process is found by its id while it runs; after its end the id is nobody's, or another's."""
    first = admit(roster)
    assert roster.by_pid(os.getpid()) is first and roster.by_pid(1) is None
    roster.leave(first)
    assert roster.by_pid(os.getpid()) is None
    second = admit(roster)
    roster.leave(first)
    assert roster.by_pid(os.getpid()) is second, "the end of the first one took the second one away"


def test_of_image(roster: Roster) -> None:
    """An image's number says the slot, also after execs; 0 is nobody's, and so is that of a slot that is free."""
    first, second = admit(roster), admit(roster)
    assert roster.of_image(SLOTS) is first and roster.of_image(1 + 5 * SLOTS) is second
    assert roster.of_image(0) is NOBODY
    assert roster.of_image(2 + SLOTS) is NOBODY
    leave(roster, second)
    assert roster.of_image(1 + 5 * SLOTS) is NOBODY


def test_forget(roster: Roster) -> None:
    """Those that ended leave the list by their numbers; the others keep their order."""
    three = [admit(roster) for _ in range(3)]
    roster.forget({1, 77})
    assert roster.everyone == [three[0], three[2]]
    three[1].close()


def test_a_process_that_is_gone(roster: Roster) -> None:
    """It takes no slot and no number."""
    with pytest.raises(OSError):
        roster.admit(process(pid=(1 << 22) + 1))
    assert roster.everyone == [] and admit(roster).uid == 0
