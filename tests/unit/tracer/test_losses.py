"""Losses: the kernel side counts them by number, Python names them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracer import limits
from tracer.losses import LOSSES, Loss, loss_index

LOSSES_H = (Path(__file__).parents[3] / "bpf" / "losses.h").read_text()


def test_names_and_order_are_those_of_the_header() -> None:
    """The table has a row for each enumerator of bpf/losses.h, in its order: the number is the place in the map."""
    body = re.search(r"enum loss \{(.*?)\}", re.sub(r"/\*.*?\*/", "", LOSSES_H, flags=re.DOTALL), re.DOTALL)
    assert body
    enumerators = [word.strip() for word in body[1].split(",") if word.strip()]
    assert [loss.enumerator for loss in LOSSES] + ["LOSSES"] == enumerators
    assert len(LOSSES) == limits.LOSSES


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_each_says_what_it_means(loss: Loss) -> None:
    """A name that is the enumerator's, a meaning that can be filled in, and a remedy."""
    assert f"LOSS_{loss.name.upper()}" == loss.enumerator
    meaning = loss.meaning.format(bytes=4711)
    assert "{" not in meaning and ("4711" in meaning or "{bytes}" not in loss.meaning)
    assert loss.remedy


def test_index() -> None:
    """A loss is found by its name, and there is no other."""
    assert [loss_index(loss.name) for loss in LOSSES] == list(range(len(LOSSES)))
    with pytest.raises(StopIteration):
        loss_index("no such loss")


def test_what_hides_bytes() -> None:
    """A report is incomplete where memory is missing from it or counted wrongly, not where a stack is short."""
    assert {loss.name for loss in LOSSES if loss.hides_bytes} == {
        "outstanding_full", "in_flight", "missed_free", "result_unreadable", "late", "nested", "bulk"}


def test_the_number_of_threads() -> None:
    """The remedy names the limit that there is."""
    assert f" {limits.MAX_THREADS} threads" in LOSSES[loss_index("in_flight")].remedy
