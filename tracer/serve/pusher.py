"""Posts reports in their order, each a few times if need be; what does not fit in meanwhile is dropped, and counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tracer.report.model import Report
from tracer.serve import posts
from tracer.serve.destination import Destination
from tracer.serve.outline import load
from tracer.serve.sending import Outcome

#: Reports that wait; the oldest goes where one more comes.
WAITING = 8
#: Seconds before each repetition of an attempt that failed.
PAUSES = (0.5, 1.0, 2.0, 4.0)


class Reports(Protocol):
    """Where reports come from, and where to tell what became of them (process.Reports)."""

    def take(self) -> bytes | None:
        """Wait for one; None: no more will come."""

    def say(self, **news: Any) -> None:
        """Tell the trace something."""


class Sends(Protocol):
    """What sends a post (sending.Sender)."""

    def send(self, post: posts.Post) -> Outcome:
        """Make one attempt."""


class Queue:
    """Reports that wait, at most so many."""

    def __init__(self, most: int = WAITING) -> None:
        self._waiting: deque[bytes] = deque(maxlen=most)
        self._changed = threading.Condition()
        self._over = False
        self.dropped = 0

    def put(self, content: bytes | None) -> None:
        """Have one more wait, in the place of the oldest if there is no room; None: it was the last."""
        with self._changed:
            if content is None:
                self._over = True
            else:
                self.dropped += len(self._waiting) == self._waiting.maxlen
                self._waiting.append(content)
            self._changed.notify()

    def get(self) -> bytes | None:
        """Wait for the oldest, and return it; None: there was the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            return self._waiting.popleft() if self._waiting else None


class Pusher:
    """Posts what comes to one destination."""

    def __init__(self, destination: Destination, sender: Sends, *, sleep: Callable[[float], None] = time.sleep,
                 queue: Queue | None = None) -> None:
        self._destination, self._sender, self._sleep = destination, sender, sleep
        self._queue = queue or Queue()
        self._before: Report | None = None
        self.sent = 0
        self.failed = 0

    def run(self, reports: Reports) -> None:
        """Post reports until no more come and none waits. After each it tells how many there were."""

        def receive() -> None:
            while (content := reports.take()) is not None:
                self._queue.put(content)
            self._queue.put(None)

        threading.Thread(target=receive, name="reports", daemon=True).start()
        while (content := self._queue.get()) is not None:
            problem = self._post(load(content), lambda said: self._tell(reports, said))
            self._tell(reports, problem)

    def _tell(self, reports: Reports, problem: str | None) -> None:
        reports.say(sent=self.sent, failed=self.failed, dropped=self._queue.dropped, problem=problem)

    def _post(self, report: Report, tell: Callable[[str | None], None]) -> str | None:
        """Post one report; return what was wrong, None: it was taken."""
        post = posts.post(self._destination, report, self._before)
        outcome = self._sender.send(post)
        for pause in PAUSES:
            if outcome.problem is None or not outcome.again:
                break
            tell(outcome.problem)
            self._sleep(pause)
            outcome = self._sender.send(post)
        if outcome.problem is None:
            self._before = report
            self.sent += 1
        else:
            self.failed += 1
        return outcome.problem
