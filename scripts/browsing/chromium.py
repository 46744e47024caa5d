"""Drives headless Chromium by its own protocol over two pipes, so that nothing but the browser need be installed.

https://chromedevtools.github.io/devtools-protocol/: each message is JSON with a zero byte behind it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

#: Key codes of keys that are no letters.
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
         "ArrowDown": 40, "PageUp": 33, "PageDown": 34}
_FLAGS = ("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-extensions",
          "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
          # A container's /dev/shm is small, and root has no sandbox.
          "--disable-dev-shm-usage", "--no-sandbox", "--force-color-profile=srgb")


def find() -> str | None:
    """Return where Chromium is, None if it is not installed."""
    return shutil.which("chromium")


class BrowserError(Exception):
    """The browser, or the page in it, did not do what it was asked."""


class Page:
    """One page of a browser of its own, as a context. events: what it said without being asked, in order."""

    def __init__(self, browser: str, width: int = 1280, height: int = 800, patience: float = 30.0) -> None:
        """Start the browser. patience: seconds until an answer that does not come is an error."""
        self._patience, self._last, self._rest = patience, 0, b""
        self._folder = tempfile.mkdtemp(prefix="leaktrace-browser-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self._process = _start(browser, self._folder, theirs_in, theirs_out)
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Page:
        """Return the page."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End the browser; asked to, it takes its own processes along, which write into its folder."""
        self._session = None
        with suppress(BrowserError, OSError, subprocess.TimeoutExpired):
            self.call("Browser.close")
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what the browser answers to a command. Raises BrowserError."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        _write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._patience
        while True:
            answer = self._next(deadline - time.monotonic(), method)
            if answer.get("id") != self._last:
                self.events.append(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error'].get('message')}")
            else:
                return dict(answer["result"])

    def open(self, path: Path, part: str = "") -> None:
        """Open a file and wait until its report is drawn. part: what follows the # in its address."""
        self.call("Page.navigate", url=f"{path.resolve().as_uri()}{'#' if part else ''}{part}")
        self.wait("document.documentElement?.dataset.ready")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the window a size in pixels, and the system light or dark colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, a promise's when it is kept. Raises BrowserError."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the value of an expression as soon as it is true. Raises BrowserError if it never is."""
        deadline = time.monotonic() + self._patience
        while not (value := self.ask(expression)):
            if time.monotonic() > deadline:
                raise BrowserError(f"never true: {expression}")
            time.sleep(0.02)
        return value

    def press(self, key: str) -> None:
        """Press and release a key by its name, or by the letter it types."""
        code = _KEYS.get(key)
        typed = {} if code else {"text": key}
        if key == "Enter":
            typed = {"text": "\r"}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key if code else "",
                      windowsVirtualKeyCode=code or 0, **(typed if kind == "keyDown" else {}))

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click on the first element of a selector; x, y: where in it, as shares of its size."""
        left, top, width, height = self.ask(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); "
            "it.scrollIntoView({block: 'nearest'}); const box = it.getBoundingClientRect(); "
            "return [box.left, box.top, box.width, box.height]; })()")
        at = {"x": left + x * width, "y": top + y * height}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="none" if kind == "mouseMoved" else "left",
                      clickCount=1, **at)

    def picture(self, *, whole: bool = False) -> bytes:
        """Return what is seen as PNG; whole: all of the page, not only what the window has room for."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def problems(self) -> list[str]:
        """Return what went wrong in the page since it was opened: errors and what its policy refused."""
        found = [event["params"]["exceptionDetails"] for event in self.events
                 if event.get("method") == "Runtime.exceptionThrown"]
        found += [event["params"]["entry"] for event in self.events if event.get("method") == "Log.entryAdded"]
        return [json.dumps(each)[:500] for each in found]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for."""
        return [event["params"]["request"]["url"] for event in self.events
                if event.get("method") == "Network.requestWillBeSent"]

    def _next(self, seconds: float, method: str) -> dict[str, Any]:
        """Return the next message."""
        deadline = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._in, 1 << 16) if ready else b""
            if not piece:
                state = "runs" if self._process.poll() is None else "ended"
                raise BrowserError(f"no answer to {method}; the browser {state}")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


def _start(browser: str, folder: str, theirs_in: int, theirs_out: int) -> subprocess.Popen[bytes]:
    """Start the browser, which reads commands at 3 and answers at 4."""
    # A shell puts them there: Python would have to do it between fork and exec.
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", script, "browser", browser, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    os.close(theirs_in)
    os.close(theirs_out)
    return process


def _write(file: int, message: bytes) -> None:
    while message:
        message = message[os.write(file, message):]
