"""Gives the reports of a trace to others while it runs: the options, and what is done with each report."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.options import Decorator, together
from tracer.cli.saying import say
from tracer.errors import UsageError

if TYPE_CHECKING:
    from tracer.report.model import Report

#: Seconds that the last profiles have to get away when the trace is over.
LEAVING = 3.0
#: Of the time of a trace, what handing on its reports may take; where they come sooner, some are left out.
SHARE = 0.05
#: The names of the options.
NAMES = ("listen", "listen_public", "push_pprof")

exporting: Decorator = together(
    click.option("--listen", metavar="HOST:PORT",
                 help="Serve the last report over HTTP: /metrics for Prometheus, / for a browser, /report.json, "
                      "/profile.pb.gz. Port 0: any that is free."),
    click.option("--listen-public", is_flag=True,
                 help="Let --listen name an address that other machines can reach. Put authentication in front."),
    click.option("--push-pprof", metavar="URL",
                 help="Post each report as a profile to Pyroscope (http://HOST:4040/ingest) or Parca "
                      "(http://HOST:7070/api/profiles/writeraw)."),
)


class Exports:
    """Serves and posts the reports it is given, or does nothing where nobody asked. Use as a context manager."""

    def __init__(self, listen: str | None = None, listen_public: bool = False, push_pprof: str | None = None) -> None:
        """Begin both, before there is any report. Raises UsageError, and CannotTrace where nobody can listen there."""
        if listen_public and listen is None:
            raise UsageError("--listen-public says who may reach what --listen serves, and nothing is served.",
                             "Give --listen HOST:PORT too.")
        self._server: Any = None
        self._pusher: Any = None
        self._problem: str | None = None
        self._news: dict[str, Any] = {}
        self._served_to_the_end = True
        self._not_before = 0.0
        if push_pprof is not None:
            self._push(push_pprof)
        if listen is not None:
            self._listen(listen, listen_public)

    @staticmethod
    def begin(options: dict[str, Any], *, live: bool = False, command: bool = False) -> Exports:
        """Return what these options (NAMES) ask for. live, command: what else this trace has to do.

        Raises UsageError, and CannotTrace where nobody can listen there.
        """
        given = [f"--{name.replace('_', '-')}" for name in NAMES if options[name]]
        if given and (live or command):
            raise UsageError(f"{given[0]} does not go with {'--live' if live else 'a command behind --'}.",
                             "Leave one of them out.")
        return Exports(**options)

    def write(self, report: Report) -> None:
        """Hand on a report, without waiting for anybody; say what is wrong with those who take them, once.

        The last is always handed on, the others as often as there is time for.
        """
        began = time.monotonic()
        if (self._server is None and self._pusher is None) or (began < self._not_before and not report.last):
            return
        from tracer.serve.outline import packed

        content = packed(report)
        self._not_before = began + (time.monotonic() - began) / SHARE
        for each in (self._server, self._pusher):
            if each is not None:
                each.give(content)
        if self._server is not None and self._served_to_the_end and self._server.ended:
            self._served_to_the_end = False
            say("what serves the reports has ended; the trace goes on")
        self._listen_to_pusher()

    def close(self) -> None:
        """End both; the last profiles have a few seconds to get away."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._pusher is not None:
            self._pusher.finish(LEAVING)
            self._listen_to_pusher()
            given = self._pusher.taken + self._pusher.lost
            missing = given - int(self._news.get("sent", 0))
            if missing > 0:
                say(f"{missing} of {given} profiles were not taken by {self._destination}")
            self._pusher.close()
            self._pusher = None

    def _listen(self, text: str, public: bool) -> None:
        from tracer.serve.address import Address, listen, parse
        from tracer.serve.outbox import Outbox

        address = parse(text, public=public)
        listening = listen(address)
        address = Address(address.host, listening.getsockname()[1])
        names = address.names
        self._server = Outbox("server", {"names": None if names is None else sorted(names)}, listening)
        say(f"serving http://{address}/, and /metrics")

    def _push(self, url: str) -> None:
        from tracer.serve.destination import CREDENTIALS, authorization, parse
        from tracer.serve.outbox import Outbox

        self._destination = parse(url)
        # No program that is traced should find it in its environment.
        header = authorization(os.environ.pop(CREDENTIALS, None), self._destination)
        self._pusher = Outbox("pusher", {"url": url, "authorization": header})

    def _listen_to_pusher(self) -> None:
        for news in self._pusher.news() if self._pusher is not None else ():
            if news.get("dropped") and not self._news.get("dropped"):
                say(f"profiles wait for {self._destination} longer than there is room for them: the oldest are dropped")
            self._news = news
            problem = news.get("problem")
            if problem and problem != self._problem:
                say(f"{self._destination} takes no profile: {problem}")
            self._problem = problem

    def __enter__(self) -> Exports:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()
