"""Waits for slow work on a thread, so that the thread that waits can look after something else meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Seconds between two calls of idle().
PAUSE = 0.002


def wait_for(work: Callable[[], T], idle: Callable[[], object]) -> T:
    """Return what work() returns, or raise what it raises; idle() is called again and again until then."""
    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(PAUSE)
        idle()
    if problems:
        raise problems[0]
    return results[0]
