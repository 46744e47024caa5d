"""The pages of the last report, each made when it is first asked for."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tracer.judge.fingerprint import fingerprint
from tracer.report import html, json, openmetrics, pprof
from tracer.report.model import Report
from tracer.serve.outline import load, profiled

#: For what shows nothing, and for what does in addition to the page's own.
_NOTHING, _ALONE = "default-src 'none'", "frame-ancestors 'none'"
_POLICY = re.compile(rb'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
#: Bytes of a page within which its policy stands.
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered: the type of the content, the content, and what a browser may load for it."""

    kind: str
    content: bytes
    policy: str


def _metrics(report: Report) -> Page:
    out = io.StringIO()
    openmetrics.write(report, out, fingerprint)
    return Page(openmetrics.CONTENT_TYPE, out.getvalue().encode("utf-8", "backslashreplace"), _policy())


def _html(report: Report) -> Page:
    out = io.BytesIO()
    # Source files stay unread: who looks at the page is not who may read them.
    html.write(report, out)
    content = out.getvalue()
    stated = _POLICY.search(content, 0, _HEAD)
    return Page("text/html; charset=utf-8", content, _policy(stated[1].decode("ascii") if stated else _NOTHING))


def _json(report: Report) -> Page:
    out = io.StringIO()
    json.write(report, out)
    return Page("application/json", out.getvalue().encode(), _policy())


def _pprof(report: Report) -> Page:
    out = io.BytesIO()
    pprof.write(profiled(report), out)
    return Page("application/octet-stream", out.getvalue(), _policy())


def _policy(own: str = _NOTHING) -> str:
    return f"{own}; {_ALONE}"


PAGES: dict[str, Callable[[Report], Page]] = {
    "/metrics": _metrics, "/": _html, "/report.json": _json, "/profile.pb.gz": _pprof,
}
#: Answered whether there is a report or not.
HEALTH = "/healthz"


class _Moment:
    """One report, and what was made of it; each thing is made by one thread while others wait for it."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self._report: Report | None = None
        self._pages: dict[str, Page] = {}
        self._loading = threading.Lock()
        self._making = {path: threading.Lock() for path in PAGES}

    def page(self, path: str) -> Page:
        with self._making[path]:
            if path not in self._pages:
                self._pages[path] = PAGES[path](self._loaded())
            return self._pages[path]

    def _loaded(self) -> Report:
        with self._loading:
            if self._report is None:
                assert self._content is not None
                self._report, self._content = load(self._content), None
            return self._report


class Pages:
    """The pages of what was last put; any thread may ask."""

    def __init__(self) -> None:
        self._moment: _Moment | None = None

    def put(self, content: bytes) -> None:
        """Have a report, as outline.packed() gives it, in the place of the one before."""
        self._moment = _Moment(content)

    def page(self, path: str) -> Page | None:
        """Return a page of the last report, one of PAGES; None while there is no report."""
        moment = self._moment
        return moment.page(path) if moment is not None else None

    def warm_up(self, report: Report) -> None:
        """Make each page once of a report that nobody gets, so that all is loaded that they need."""
        for make in PAGES.values():
            make(report)
