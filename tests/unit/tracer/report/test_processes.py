"""The processes of a report: who holds what, who inherited what, and what became of each."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from tracer.report.model import ContainerNote, Report, Share, Target, Totals
from tracer.report.processes import describe, write

MakeReport = Callable[..., Report]
WEB = ContainerNote("0123456789abcdef" * 4, "docker", "web", None, "web")


def totals(size: int, count: int) -> Totals:
    return Totals(size, count, size, count, 0)


def target(pid: int, size: int = 0, count: int = 0, **more: Any) -> Target:
    return Target(pid, f"p{pid}", f"/bin/p{pid}", totals=totals(size, count), **more)


def written(report: Report, *targets: Target, top: int = 10, follows: bool = False) -> list[str]:
    out = StringIO()
    write(replace(report, targets=targets, follows=follows), out, top=top)
    return out.getvalue().splitlines()


def test_one_process_needs_no_list(report: MakeReport) -> None:
    """Alone, a process says only which container it is in; where processes come and go, one is listed as well."""
    assert written(report(), target(1, 10, 1)) == []
    assert written(report(), target(1, 10, 1, container=WEB)) == ["in docker container web 0123456789ab"]
    assert written(report(), target(1, 10, 1), follows=True) == ["1 process:", "\tp1 (pid 1): 10 bytes in 1 allocation"]


def test_the_largest_come_first(report: MakeReport) -> None:
    """At most `top` are listed by what they hold; the rest, those that hold nothing included, is summed up."""
    lines = written(report(), target(1), target(2, 20, 2), target(3, 30, 3), target(4, 5, 1), top=2)
    assert [line.split()[0] for line in lines] == ["4", "p3", "p2", "and"]
    assert lines[-1] == "\tand 2 more: 5 bytes in 1 allocation"


def test_nobody_holds_anything(report: MakeReport) -> None:
    """Then there is no list; and before the first of a selection has come, that is said."""
    assert written(report(), target(1), target(2)) == ["2 processes, which hold nothing"]
    assert written(report(), follows=True) == ["no process of the selection has come yet"]


def test_sites_by_their_rank() -> None:
    """The first sites are named, the others counted."""
    shares = tuple(Share(rank, 10 * rank, 1) for rank in range(1, 7))
    assert describe(target(1, 210, 6, shares=shares)) == (
        "p1 (pid 1): 210 bytes in 6 allocations (10 at site 1, 20 at site 2, 30 at site 3, 40 at site 4, and at 2 more)")


def test_what_it_had_before() -> None:
    """What a child inherited, and what exec took away, stands behind what is its own."""
    line = describe(target(2, 5, 1, parent=1, inherited=(7, 1), dropped=(90, 3)))
    assert line == ("p2 (pid 2, child of 1): 5 bytes in 1 allocation; inherited 7 bytes in 1 allocation; "
                    "90 bytes in 3 allocations went with exec")
    assert "inherited" not in describe(target(2, 5, 1, inherited=(0, 0)))


@pytest.mark.parametrize(("status", "said"), [
    (0, "ended"), (3 << 8, "exit code 3"), (int(signal.SIGKILL), "ended by SIGKILL"), (None, "ended"), (35, "ended by signal 35"),
])
def test_how_it_ended(status: int | None, said: str) -> None:
    """An exit code or a signal is said; an end that nobody knows more of is an end."""
    assert describe(target(1, 1, 1, ended=True, status=status)).startswith(f"p1 (pid 1, {said}): ")


@pytest.mark.parametrize(("container", "said"), [
    (WEB, "container web 0123456789ab"), (replace(WEB, name=None, label="0123456789ab"), "container 0123456789ab"),
    (replace(WEB, id="guest", runtime="lxc", label="guest"), "container guest"),
])
def test_containers_by_name_and_id(container: ContainerNote, said: str) -> None:
    """Name and id are said, each once."""
    assert describe(target(1, 1, 1, container=container)).startswith(f"p1 (pid 1, {said}): ")
