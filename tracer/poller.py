"""Waits for events of the kernel side, stops of followed processes, ends of others, and stop()."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from tracer.attach.follow import PAUSE, SEARCH, Follower
from tracer.attach.tracee import Tracee

#: Seconds: lets somebody else have the processor.
BREATH = 0.0005
#: Seconds; epoll takes no more than 24 days.
LONGEST_WAIT = 86_400.0
SECOND = 1_000_000_000


class Poller:
    """Waits for one session. Use as a context manager."""

    def __init__(self, ring: int, woken: int, attend: Callable[[], bool]) -> None:
        """ring, woken: what becomes readable. attend handles what there is, and returns whether there was anything."""
        self._ring, self._attend = ring, attend
        self._epoll = select.epoll()
        self._pidfds: dict[int, Tracee] = {}
        self._ended: Callable[[Tracee], None] = lambda _: None
        self._longest = LONGEST_WAIT
        for fd in (ring, woken):
            self._epoll.register(fd, select.EPOLLIN)

    def __enter__(self) -> Poller:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def follow(self, follower: Follower | None) -> None:
        """Also wake up for stops of followed processes."""
        if follower is None:
            return
        # Without something that tells of stops, look all the time; with it now and then, as some end without a word.
        self._longest = PAUSE if follower.fileno is None else SEARCH
        if follower.fileno is not None:
            self._epoll.register(follower.fileno, select.EPOLLIN)

    def watch(self, pidfds: dict[int, Tracee], ended: Callable[[Tracee], None]) -> None:
        """Call ended for each process when it does."""
        self._pidfds, self._ended = pidfds, ended
        for fd in pidfds:
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self, until: int, is_over: Callable[[], bool]) -> None:
        """Handle events until until (monotonic ns) or until is_over()."""
        while not is_over():
            left = (until - time.monotonic_ns()) / SECOND
            if left <= 0:
                return
            found = self._epoll.poll(min(left, self._longest))
            if self._longest < LONGEST_WAIT and not found:
                self._attend()
            for fd, _ in found:
                self._handle(fd)

    def notice_ends(self) -> None:
        """Call ended for those that have ended by now: wait() may be over before it looks at them."""
        for fd, _ in self._epoll.poll(0) if self._pidfds else ():
            if fd in self._pidfds:
                self._handle(fd)

    def _handle(self, fd: int) -> None:
        if fd in self._pidfds:
            self._epoll.unregister(fd)
            self._ended(self._pidfds.pop(fd))
        elif not self._attend() and fd == self._ring:
            # A record is being written, perhaps by a thread that lost its processor: let it have this one.
            time.sleep(BREATH)
