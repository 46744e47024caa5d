"""An HTTP server for a few pages: whatever its clients do, each has a bounded share of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus

from tracer.serve import request
from tracer.serve.pages import HEALTH, PAGES, Page, Pages

#: Connections at once; one more takes the place of the one that has been at its request for longest.
CONNECTIONS = 64
#: Seconds for a request to come whole, for an answer to be made and to be read, and for the client to see its end.
READING, MAKING, WRITING, LEAVING = 10.0, 30.0, 30.0, 0.5
#: Bytes that are written at once, and that a client who was refused may still send.
PIECE, IGNORED = 1 << 16, 1 << 20
_HEADERS = (
    "Cache-Control: no-store", "X-Content-Type-Options: nosniff", "X-Frame-Options: DENY",
    "Referrer-Policy: no-referrer", "Cross-Origin-Resource-Policy: same-origin", "Connection: close",
)


class Server:
    """Answers requests for pages."""

    def __init__(self, pages: Pages, names: frozenset[str] | None, *, reading: float = READING,
                 connections: int = CONNECTIONS) -> None:
        """names: what requests may call this host, None: anything. reading: seconds for a request to come whole."""
        self._pages, self._names = pages, names
        self._reading, self._most = reading, connections
        #: Of connections, those whose request has not come yet; both in the order in which they came.
        self._open: set[asyncio.Task[None]] = set()
        self._unread: dict[asyncio.Task[None], None] = {}
        #: A thread for each page: the figures of a scrape must not wait for the page of a reader.
        self._makers = {path: ThreadPoolExecutor(1, "page") for path in PAGES}

    def run(self, listening: socket.socket, take: Callable[[], bytes | None]) -> None:
        """Answer who connects, with the last report that take() gave, until it gives None."""
        asyncio.run(self._run(listening, take))
        for maker in self._makers.values():
            maker.shutdown(wait=False, cancel_futures=True)

    async def _run(self, listening: socket.socket, take: Callable[[], bytes | None]) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def receive() -> None:
            while (content := take()) is not None:
                self._pages.put(content)
            loop.call_soon_threadsafe(over.set)

        threading.Thread(target=receive, name="reports", daemon=True).start()
        server = await asyncio.start_server(self._connected, sock=listening, limit=request.LONGEST_HEAD)
        async with server:
            await over.wait()
        for task in self._open:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        full = len(self._open) >= self._most
        if full and self._unread:
            next(iter(self._unread)).cancel()
            full = False
        self._open.add(task)
        try:
            if full:
                await self._send(reader, writer, _refusal(503))
            else:
                await self._answer(task, reader, writer)
        except (OSError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._open.discard(task)
            self._unread.pop(task, None)
            writer.transport.abort()

    async def _answer(self, task: asyncio.Task[None], reader: asyncio.StreamReader,
                      writer: asyncio.StreamWriter) -> None:
        self._unread[task] = None
        try:
            async with asyncio.timeout(self._reading):
                asked = request.parse(await reader.readuntil(request.END), self._names)
        except request.Refused as refused:
            answer = _refusal(refused.status)
        except asyncio.LimitOverrunError:
            answer = _refusal(431)
        except TimeoutError:
            answer = _refusal(408)
        except asyncio.IncompleteReadError:
            return
        else:
            self._unread.pop(task, None)
            answer = await self._made(asked)
        self._unread.pop(task, None)
        await self._send(reader, writer, answer)

    async def _made(self, asked: request.Request) -> tuple[bytes, bytes]:
        """Return the head and the content of an answer."""
        if asked.path == HEALTH:
            page: Page | None = Page("text/plain; charset=utf-8", b"ok\n", "default-src 'none'")
        elif asked.path not in PAGES:
            return _refusal(404)
        else:
            making = asyncio.get_running_loop().run_in_executor(self._makers[asked.path], self._pages.page,
                                                                asked.path)
            try:
                async with asyncio.timeout(MAKING):
                    page = await making
            except Exception:
                # Whatever one page cannot be made of, there are the others, and the next report.
                return _refusal(500)
        if page is None:
            return _refusal(503)
        head = _head(200, page.kind, len(page.content), page.policy)
        return head, page.content if asked.with_content else b""

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                    answer: tuple[bytes, bytes]) -> None:
        writer.transport.set_write_buffer_limits(0)
        head, content = answer
        async with asyncio.timeout(WRITING):
            writer.write(head)
            await writer.drain()
            # In pieces, so that a slow reader does not keep a copy of a large page.
            for start in range(0, len(content), PIECE):
                writer.write(content[start : start + PIECE])
                await writer.drain()
        with suppress(TimeoutError):
            # What is still unread when a connection is closed takes the answer away from the client.
            async with asyncio.timeout(LEAVING):
                writer.write_eof()
                left = IGNORED
                while left > 0 and (more := await reader.read(PIECE)):
                    left -= len(more)


def _refusal(status: int) -> tuple[bytes, bytes]:
    """Return an answer of one line, which never has anything of the request in it."""
    content = f"{status} {HTTPStatus(status).phrase}\n".encode()
    more = {405: ("Allow: GET, HEAD",), 503: ("Retry-After: 1",)}.get(status, ())
    return _head(status, "text/plain; charset=utf-8", len(content), "default-src 'none'", *more), content


def _head(status: int, kind: str, length: int, policy: str, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {length}",
             f"Content-Security-Policy: {policy}", *_HEADERS, *more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii", "replace")
