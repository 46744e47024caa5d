"""Verdicts on real processes: what leaks is said to, ranked first and with a reason; what only holds memory is not."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, functions
from tests.live.test_options import Tool

pytestmark = pytest.mark.alone
Build = Callable[..., Path]
#: As the programs are built where tools are compared.
FLAGS = ("-O1", "-fno-omit-frame-pointer", "-pthread")
LEAKS = {"one_percent.c": "make_message", "error_path.c": "read_record", "growing_map.cpp": "remember_request"}
INNOCENT = ("lru_cache.cpp", "sawtooth.c", "work_queue.cpp")
#: Seconds of tracing: a verdict takes ten.
TRACED = 13


class Running:
    """A program that works by itself, ended with the test; and a leaktrace of it."""

    def __init__(self, program: Path, *options: str) -> None:
        self.program = subprocess.Popen([str(program), "60"], stdin=subprocess.DEVNULL)
        self.trace = Tool(("-p", str(self.program.pid), "--format", "json", *options))

    def close(self) -> None:
        self.trace.close()
        self.program.kill()
        self.program.wait(PATIENCE)


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    """Return a function that starts a program and a leaktrace of it."""
    with ExitStack() as stack:

        def begin(program: Path, *options: str) -> Running:
            one = Running(program, *options)
            stack.callback(one.close)
            return one

        yield begin


def leaking(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in report["sites"] if each["verdict"] in ("lost", "growing")]


def test_what_leaks_is_told_from_what_holds(build: Build, running: Callable[..., Running]) -> None:
    """After 13 s, leaks of 1%, in an error path and in a map are ranked first with a reason, beside much more memory that is
    innocent; a cache, a sawtooth and a queue are not called leaking."""
    built = {source: build(f"verdicts/{source}", *FLAGS) for source in (*LEAKS, *INNOCENT)}
    # By function: the two lines that replace pages of the cache share its room by chance, so that either may seem to grow.
    options = ("-d", str(TRACED), "--group-by", "function", "3600")
    under_way = {source: running(program, *options) for source, program in built.items()}
    said = {source: json.loads(one.trace.wait()[-1]) for source, one in under_way.items()}
    for source, function in LEAKS.items():
        first, *others = said[source]["sites"]
        assert function in functions(first), (source, first)
        assert first["verdict"] == "growing" and first["evidence"] and first["expected_loss_bytes_per_s"] > 0, (source, first)
        assert first["confidence"] in ("high", "medium") and first["slope_bytes_per_s"]
        assert max(each["bytes"] for each in others) > 2 * first["bytes"]
        assert all(function in functions(each) for each in leaking(said[source])), source
    for source in INNOCENT:
        assert leaking(said[source]) == [], source
        assert {each["verdict"] for each in said[source]["sites"]} <= {"steady", "undecided"}
        assert all(each["evidence"] and each["expected_loss_bytes_per_s"] == 0 for each in said[source]["sites"])


def kinds(report: dict[str, Any], function: str) -> dict[str, int]:
    """Return the blocks of a function's sites by how they are reached."""
    found: dict[str, int] = {}
    for each in report["sites"]:
        for kind, amount in (each["reachability"].items() if function in functions(each) else ()):
            found[kind] = found.get(kind, 0) + amount["count"]
    return found


def test_what_is_lost_is_said_at_once(build: Build, running: Callable[..., Running]) -> None:
    """A list whose head is replaced each second is lost, one list at a time, from the first report on, which a signal
    asks for; the program then goes on."""
    one = running(build("verdicts/lost_head.c", *FLAGS), "--reachability", "3600")
    one.trace.wait_attached()
    made, lines = 0, []
    for _ in range(2):
        # Two lists are read in 2.2 s, at least.
        with pytest.raises(subprocess.TimeoutExpired):
            one.program.wait(2.2)
        one.trace.process.send_signal(signal.SIGUSR1)
        lines += one.trace.out.until(lambda line: line.startswith("{"))
    for line in (*lines, one.trace.stop()[-1]):
        report = json.loads(line)
        found, scan, first = kinds(report, "add_rule"), report["scans"][0], report["sites"][0]
        lost = found["definitely"] + found["indirectly"]
        assert (scan["failed"], found["possibly"], found["reachable"]) == (None, 0, 10)
        # Of each list, the head is found lost, and the rest is by it.
        assert lost >= 10 and found["definitely"] == lost / 10
        assert "add_rule" in functions(first) and first["verdict"] == "lost" and first["expected_loss_bytes_per_s"] > 0
        assert first["evidence"].startswith(f"no pointer to {found['definitely']} of them, and only from lost blocks to ")
        assert all("add_rule" in functions(each) for each in leaking(report))
        # It went on after the look before.
        assert report["totals"]["allocated_count"] > made
        made = report["totals"]["allocated_count"]
    assert one.program.poll() is None
