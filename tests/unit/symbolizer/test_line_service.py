"""Readers of DWARF are processes without rights, and whatever becomes of them is an answer."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from symbolizer import line_service
from symbolizer.file_map import shared_descriptor
from symbolizer.line_service import LineService, Request

Build = Callable[..., Path]


@pytest.fixture
def service() -> Iterator[LineService]:
    made = LineService()
    yield made
    made.close()


def convert(data: bytes, seconds: float = 20.0) -> Request:
    return Request({"do": "convert", "hidden": []}, [shared_descriptor(data)], seconds)


def workers(service: LineService) -> list[int]:
    return [worker._process.pid for worker in service._workers]


def test_an_answer_carries_the_table(build: Build, nested_inlines: str, service: LineService) -> None:
    """A program with DWARF becomes a table, whose form begins with symbolic's mark."""
    (answer,) = service.ask([convert(build(nested_inlines, "-g").read_bytes())])
    assert answer.error is None and answer.content[:4] in (b"SYMC", b"CMYS")


def test_answers_come_in_the_order_of_the_requests(build: Build, nested_inlines: str, service: LineService) -> None:
    """Several are at work at once, and each answer is its own request's."""
    good = build(nested_inlines, "-g").read_bytes()
    answers = service.ask([convert(b"no ELF file" * 10), convert(good), convert(b""), convert(good), convert(good)])
    assert [answer.error is None for answer in answers] == [False, True, False, True, True]
    assert 1 <= len(workers(service)) <= line_service.MOST_WORKERS


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has no rights to give up")
def test_a_reader_has_no_rights(build: Build, nested_inlines: str, service: LineService) -> None:
    """It is nobody, without groups, and can gain nothing by running a program."""
    service.ask([convert(build(nested_inlines, "-g").read_bytes())])
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{workers(service)[0]}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65534"} and set(status["Gid"].split()) == {"65534"}
    assert status["Groups"].strip() == "" and status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


def test_a_reader_that_dies_costs_its_file_only(build: Build, nested_inlines: str, service: LineService) -> None:
    """The request has an error, and the next one a new reader."""
    good = convert(build(nested_inlines, "-g").read_bytes())
    service.ask([good])
    (pid,) = workers(service)
    os.kill(pid, signal.SIGSTOP)
    again = [convert(build(nested_inlines, "-g").read_bytes()) for _ in range(2)]
    killed: list[int] = []

    def kill() -> None:
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    service.idle = kill
    answers = service.ask(again)
    assert sorted(answer.error is None for answer in answers) == [False, True]
    assert pid not in workers(service)


def test_a_reader_that_hangs_is_ended(build: Build, nested_inlines: str, service: LineService) -> None:
    """After its time a request has an error, and its reader is gone."""
    data = build(nested_inlines, "-g").read_bytes()
    service.ask([convert(data)])
    (pid,) = workers(service)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    (answer,) = service.ask([convert(data, seconds=0.2)])
    assert answer.error == "reading it took too long" and time.monotonic() - began < 5
    assert not Path(f"/proc/{pid}").exists()


def test_others_are_served_meanwhile(build: Build, nested_inlines: str) -> None:
    """Who waits for an answer is called again and again until it is there."""
    calls: list[float] = []
    service = LineService(idle=lambda: calls.append(time.monotonic()))
    service.ask([convert(build(nested_inlines, "-g").read_bytes())])
    service.close()
    assert len(calls) > 5 and max(later - earlier for earlier, later in pairwise(calls)) < 0.5


def test_no_descriptor_is_left(build: Build, nested_inlines: str, service: LineService) -> None:
    """Requests, answers and ended readers leave no open file behind."""
    data = build(nested_inlines, "-g").read_bytes()
    before = set(os.listdir("/proc/self/fd"))
    service.ask([convert(data), convert(b"damaged"), convert(data)])
    service.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_readers_end_with_their_service(build: Build, nested_inlines: str) -> None:
    """close() leaves no process; a service can be used again after it."""
    service = LineService()
    service.ask([convert(build(nested_inlines, "-g").read_bytes())])
    pids = workers(service)
    service.close()
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert service.ask([convert(build(nested_inlines, "-g").read_bytes())])[0].error is None
    service.close()
