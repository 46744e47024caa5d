"""SIGCHLD as something that can be polled: it comes for every stop and end of what is traced, too."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress


class ChildSignals:
    """Takes SIGCHLD for as long as it is open. fd is None outside of the main thread, which alone may do so."""

    def __init__(self) -> None:
        self.fd: int | None = None
        if threading.current_thread() is not threading.main_thread():
            return
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.signal(signal.SIGCHLD, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def clear(self) -> None:
        """Be readable when the next signal comes."""
        if self.fd is not None:
            with suppress(BlockingIOError):
                os.read(self.fd, 4096)

    def again(self) -> None:
        """Be readable though no signal comes."""
        if self.fd is not None:
            with suppress(BlockingIOError):
                os.write(self._write, b"x")

    def close(self) -> None:
        """Have SIGCHLD do what it did before."""
        if self.fd is None:
            return
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGCHLD, self._before)
        os.close(self.fd)
        os.close(self._write)
        self.fd = None
