"""The trace's end of a process that serves or posts its reports: what it is given never waits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Bytes of the first message, which says what to do, and of each that comes back.
LONGEST_MESSAGE = 1 << 16
#: What stands in the place of a report: no more will come.
END = b"end"
REPORT = b"report"
_START = ("import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
          "from tracer.serve.process import main; main(sys.argv[2])")


class Outbox:
    """A process, and the socket to it."""

    def __init__(self, kind: str, settings: Mapping[str, Any], listening: socket.socket | None = None) -> None:
        """Start it. kind, settings: what process.main and its job take; listening: passed on, and closed here."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, json.dumps(sys.path), kind],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.lost = 0
        self.taken = 0
        with suppress(OSError):
            socket.send_fds(self._socket, [json.dumps(settings).encode()],
                            [] if listening is None else [listening.fileno()])
        if listening is not None:
            listening.close()
        # The least there is, room for a few reports: where nobody takes them they must not fill the memory.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no longer."""
        return self._process.poll() is not None

    def give(self, content: bytes) -> None:
        """Send one report, in a file of the memory; where there is no room for it, it is lost and counted."""
        with os.fdopen(os.memfd_create("report", os.MFD_CLOEXEC), "wb", buffering=0) as file:
            file.write(content)
            try:
                socket.send_fds(self._socket, [REPORT], [file.fileno()], socket.MSG_DONTWAIT)
                self.taken += 1
            except OSError:
                self.lost += 1

    def news(self) -> list[dict[str, Any]]:
        """Return what the process has said since it was last asked."""
        found: list[dict[str, Any]] = []
        with suppress(OSError, ValueError):
            while text := self._socket.recv(LONGEST_MESSAGE, socket.MSG_DONTWAIT):
                said = json.loads(text)
                if isinstance(said, dict):
                    found.append(said)
        return found

    def finish(self, seconds: float) -> None:
        """Say that no more will come, and give the process so much time to end; then end it."""
        deadline = time.monotonic() + seconds
        while seconds and self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                self._socket.send(END, socket.MSG_DONTWAIT)
                break
            time.sleep(0.01)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process, whatever it does."""
        self.finish(0)
        self._socket.close()
