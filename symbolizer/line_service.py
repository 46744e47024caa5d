"""Has DWARF read by worker processes (line_worker.py), several at a time, each request within its time."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from symbolizer.line_worker import LONGEST_ANSWER, LONGEST_MESSAGE

#: Seconds for any request, and the bytes of .debug_info that take another second on a slow machine.
BASE_TIME, BYTES_PER_SECOND = 15.0, 4 << 20
#: Processes at work at once: reports wait for them, but the machine is not theirs. Those that make tables start sooner
#: than those that also read single entries, of which one is enough.
MOST_WORKERS = 2
TABLES, ENTRIES = "tables", "entries"
#: Seconds between two calls of idle() while an answer is waited for.
IDLE_PAUSE = 0.002
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from symbolizer.line_worker import main; main(sys.argv[2] == 'entries')"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker answered: a JSON object, the bytes it sent along, and in `error` why there is neither."""

    values: dict[str, Any] = field(default_factory=dict)
    content: bytes = b""
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request: what to do, descriptors of the files it is about (closed by the service), seconds it may take."""

    message: dict[str, Any]
    descriptors: Sequence[int]
    seconds: float = BASE_TIME

    @property
    def kind(self) -> str:
        """Return which kind of worker can answer it."""
        return TABLES if self.message["do"] == "convert" else ENTRIES


class LineService:
    """Worker processes, started when first needed and ended with close(). `idle` is called while one is waited for."""

    def __init__(self, idle: Callable[[], object] | None = None) -> None:
        self.idle = idle
        self._workers: list[_Worker] = []

    def warm_up(self) -> None:
        """Start the workers now: they take as long to start as a request takes to make."""
        while self._free_worker(TABLES, set(self._workers)) is not None:
            pass

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers in the order of the requests. A request that fails in any way has an `error`."""
        answers: list[Answer | None] = [None] * len(requests)
        waiting = list(enumerate(requests))[::-1]
        busy: dict[_Worker, tuple[int, float]] = {}
        try:
            while waiting or busy:
                while waiting and (worker := self._free_worker(waiting[-1][1].kind, busy.keys())) is not None:
                    number, request = waiting.pop()
                    if worker.send(request):
                        busy[worker] = number, time.monotonic() + request.seconds
                    else:
                        self._drop(worker)
                        answers[number] = Answer(error="its reader could not be started")
                self._collect(busy, answers)
        finally:
            for worker in busy:
                self._drop(worker)
            for _, request in waiting:
                _close(request.descriptors)
        return [answer or Answer(error="it was interrupted") for answer in answers]

    def _free_worker(self, kind: str, busy: Set[_Worker]) -> _Worker | None:
        mine = [worker for worker in self._workers if worker.kind == kind]
        for worker in mine:
            if worker not in busy:
                return worker
        if len(mine) >= (min(MOST_WORKERS, os.cpu_count() or 1) if kind == TABLES else 1):
            return None
        self._workers.append(_Worker(kind))
        return self._workers[-1]

    def _collect(self, busy: dict[_Worker, tuple[int, float]], answers: list[Answer | None]) -> None:
        ready, _, _ = select.select(list(busy), [], [], IDLE_PAUSE if self.idle else 0.1)
        for worker in ready:
            number, _ = busy.pop(worker)
            answer = worker.receive()
            if answer is None:
                self._drop(worker)
            answers[number] = answer or Answer(error="its reader ended: the file is damaged or needs too much memory")
        now = time.monotonic()
        for worker, (number, deadline) in list(busy.items()):
            if now > deadline:
                del busy[worker]
                self._drop(worker)
                answers[number] = Answer(error="reading it took too long")
        if self.idle is not None:
            self.idle()

    def _drop(self, worker: _Worker) -> None:
        worker.close()
        with suppress(ValueError):
            self._workers.remove(worker)

    def processes(self) -> list[int]:
        """Return the ids of the worker processes."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()


class _Worker:
    """One process, and the socket to it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, json.dumps(sys.path), kind],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Return what select() waits for."""
        return self._socket.fileno()

    def send(self, request: Request) -> bool:
        """Send a request, and close its descriptors; return whether that was possible."""
        try:
            socket.send_fds(self._socket, [json.dumps(request.message).encode()], list(request.descriptors))
            return True
        except OSError:
            return False
        finally:
            _close(request.descriptors)

    def receive(self) -> Answer | None:
        """Return the answer, None if the process has ended instead or made no sense."""
        descriptors: list[int] = []
        try:
            text, descriptors, _, _ = socket.recv_fds(self._socket, LONGEST_MESSAGE, 1)
            values = json.loads(text) if text else None
            if not isinstance(values, dict):
                return None
            content = os.pread(descriptors[0], LONGEST_ANSWER, 0) if descriptors else b""
            return Answer(values, content, values.get("error"))
        except (OSError, ValueError):
            return None
        finally:
            _close(descriptors)

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
