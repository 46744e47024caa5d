"""What a session waits for: processes that end."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tracer.attach.tracee import Tracee
from tracer.poller import Poller

Process = tuple[subprocess.Popen[bytes], int, Tracee]


@pytest.fixture
def pipes() -> Iterator[tuple[int, int]]:
    """Two descriptors that nothing can be read from: a ring, and what wakes a session."""
    first, second = os.pipe(), os.pipe()
    yield first[0], second[0]
    for fd in (*first, *second):
        os.close(fd)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Two processes that wait for their input, each with a descriptor and something that stands for it."""
    made: list[Process] = []
    for number in range(2):
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        made.append((process, os.pidfd_open(process.pid), cast(Tracee, SimpleNamespace(number=number))))
    yield made
    for process, fd, _ in made:
        process.communicate()
        os.close(fd)


def test_ends_are_noticed_where_the_wait_is_over_at_once(pipes: tuple[int, int], processes: list[Process]) -> None:
    """A process that ended right before the trace was told to is told of, once, and one that runs is not."""
    ended: list[Any] = []
    with Poller(*pipes, attend=lambda: False) as poller:
        poller.watch({fd: tracee for _, fd, tracee in processes}, ended.append)
        poller.notice_ends()
        assert ended == []
        process, fd, tracee = processes[0]
        assert process.stdin is not None
        process.stdin.close()
        assert select.select([fd], [], [], 10)[0]
        process.stdin = None
        poller.wait(0, lambda: True)
        assert ended == []
        for _ in range(2):
            poller.notice_ends()
        assert ended == [tracee]
