"""redis-server answering SET requests from redis-benchmark over a unix socket."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from benchmarks.child import Child, Failure

INTERVAL_S = 0.5
START_TIMEOUT_S = 60.0
SERVER = "/usr/bin/redis-server --port 0 --save '' --appendonly no --daemonize no"
# Values are replaced over and over: a key's value lives for about a second. Without pipelining the system calls, not
# the server's own work, would be what is measured.
LOAD = "/usr/bin/redis-benchmark -t set -n 2000000000 -r 50000 -d 64 -c 20 -P 16 -q"


class RedisUnderLoad:
    """A server with its load; requests per second come from the server's own counter."""

    def __init__(self, scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        self._socket_path = str(scratch / "redis.sock")
        self._samples: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._load: Child | None = None
        words = [word.strip("'") for word in SERVER.split()]
        self._server = Child([*prefix, *words, "--dir", str(scratch), "--unixsocket", self._socket_path], env)
        try:
            self._wait_until_ready()
            self._load = Child([*LOAD.split(), "-s", self._socket_path])
        except BaseException:
            self._stop()
            raise
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()

    @property
    def pid(self) -> int:
        return self._server.pid

    def samples(self) -> list[tuple[float, float]]:
        return list(self._samples)

    def check(self) -> None:
        self._server.check()
        if self._load:
            self._load.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for child in (self._load, self._server):
            if child:
                child.stop()
        Path(self._socket_path).unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._server.check()
            with contextlib.suppress(OSError):
                self._requests()
                return
            time.sleep(0.05)
        raise Failure(f"redis-server did not answer within {START_TIMEOUT_S:.0f} s")

    def _poll(self) -> None:
        try:
            before, count = time.monotonic(), self._requests()
            while not self._stopping.wait(INTERVAL_S):
                now, total = time.monotonic(), self._requests()
                self._samples.append((now, (total - count) / (now - before)))
                before, count = now, total
        except OSError:
            return  # the server has ended: check() says so

    def _requests(self) -> int:
        """Return the number of requests that the server has answered since it started."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self._socket_path)
            connection.sendall(b"INFO stats\r\n")
            answer = b""
            while b"total_commands_processed:" not in answer or b"total_net_input" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    raise ConnectionError("redis-server closed the connection")
                answer += piece
        match = re.search(rb"total_commands_processed:(\d+)", answer)
        assert match
        return int(match[1])
