"""What is typed to choose sites."""

from __future__ import annotations

import pytest

from tests.unit.tracer.live import made_up
from tracer.live.query import Word, know, parse

SITE = made_up.report([100], names=["Shop::loadOrder(int)"])


@pytest.mark.parametrize(("text", "applies"), [
    ("loadorder", True),
    ("LOADORDER int", True),
    ("main", True),
    ("connect", False),
    ("loadorder connect", False),
    ("shop::load", True),
    ("name::load", False),
    ("name:loadorder", True),
    ("name:server", False),
    ("module:server", True),
    ("module:libstdc++", True),
    ("module:loadorder", False),
    ("source:heap", True),
    ("source:slab", False),
    ("module:", True),
    ("", True),
])
def test_words(text: str, applies: bool) -> None:
    """All words must apply, each anywhere in the stack, or to the part it is for; capitals do not matter."""
    assert SITE.sites is not None
    known = know(SITE.sites.finding(0, 1))
    assert all(word.matches(known) for word in parse(text)) is applies


def test_a_verdict_is_known_by_its_beginning() -> None:
    """A verdict is meant by how it begins; a word for another part means none."""
    assert Word("verdict", "grow").verdicts() == [2]
    assert Word(None, "lost").verdicts() == [1]
    assert Word("name", "lost").verdicts() == [] and Word("verdict", "row").verdicts() == []


def test_a_site_is_known_by_the_programs_own_function() -> None:
    """Neither the allocator nor what a hostile program calls itself reaches the screen as it is."""
    sites = made_up.report([1], names=["evil\x1b[2Jname"]).sites
    assert sites is not None
    known = know(sites.finding(0, 1))
    assert known.name == "evil\\x1b[2Jname" and known.module == "server"
