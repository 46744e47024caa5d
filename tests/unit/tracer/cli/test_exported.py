"""The options that give reports to others: what goes with what, and that nothing is begun where nothing is asked."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit.tracer.serve.conftest import report
from tracer.cli.exported import NAMES, Exports
from tracer.errors import CannotTrace, UsageError
from tracer.serve.destination import CREDENTIALS

NOTHING = {"listen": None, "listen_public": False, "push_pprof": None}


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_nothing_is_done_where_nothing_is_asked(capfd: pytest.CaptureFixture[str]) -> None:
    """No process, no word, also with --live."""
    with Exports.begin(NOTHING, live=True) as exports:
        exports.write(report([(5, 1)]))
    assert set(NOTHING) == set(NAMES) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("options", "others", "said"), [
    ({"listen_public": True}, {}, "Give --listen HOST:PORT too"),
    ({"listen": "0.0.0.0:0"}, {}, "--listen-public"),
    ({"listen": "127.0.0.1:0"}, {"live": True}, "--listen does not go with --live"),
    ({"push_pprof": "http://localhost/ingest"}, {"command": True}, "--push-pprof does not go with a command"),
    ({"push_pprof": "http://localhost/"}, {}, "/ingest"),
])
def test_what_contradicts_itself_is_said(options: dict[str, object], others: dict[str, bool], said: str) -> None:
    """Before anything begins."""
    with pytest.raises(UsageError, match=said):
        Exports.begin({**NOTHING, **options}, **others)


def test_a_report_is_served(capfd: pytest.CaptureFixture[str]) -> None:
    """By a process of its own, at the port that stderr names, until it is closed."""
    with Exports(listen="localhost:0") as exports:
        exports.write(report([(5, 1)]))
        said = capfd.readouterr().err
        url = said.partition("serving ")[2].partition("/,")[0]
        # The kernel takes connections before the process is there.
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
                    content = answer.read().decode()
                break
            except urllib.error.HTTPError as problem:
                assert problem.code == 503
                time.sleep(0.05)
        assert "leaktrace_live_bytes 40\n" in content
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_a_taken_port_is_said() -> None:
    """Before anything is attached."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotTrace, match="in use"):
        Exports(listen=f"127.0.0.1:{taken.getsockname()[1]}")


def test_nobody_waits_for_a_silent_server(silent: int, monkeypatch: pytest.MonkeyPatch,
                                          capfd: pytest.CaptureFixture[str]) -> None:
    """Reports are handed on at once however many there are; in the end it has its seconds, and is counted."""
    monkeypatch.setattr("tracer.cli.exported.LEAVING", 1.0)
    monkeypatch.setattr("tracer.cli.exported.SHARE", 1e9)
    began = time.monotonic()
    with Exports(push_pprof=f"http://127.0.0.1:{silent}/ingest") as exports:
        for _ in range(50):
            exports.write(report([(5, 1)]))
        assert time.monotonic() - began < 3
    assert time.monotonic() - began < 6
    assert f"50 of 50 profiles were not taken by http://127.0.0.1:{silent}/ingest" in capfd.readouterr().err


def test_what_is_dropped_is_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Once, while the trace runs; how many it were is said in the end."""
    monkeypatch.setattr("tracer.cli.exported.LEAVING", 0.0)
    monkeypatch.setattr("tracer.cli.exported.SHARE", 1e9)
    news = iter([[{"sent": 1, "dropped": 0}], [{"sent": 1, "dropped": 2}], [{"sent": 1, "dropped": 5}]])
    with Exports(push_pprof="http://127.0.0.1:1/ingest") as exports:
        monkeypatch.setattr(exports._pusher, "news", lambda: next(news, []))
        for _ in range(4):
            exports.write(report([(5, 1)]))
    said = capfd.readouterr().err
    assert said.count("the oldest are dropped") == 1 and "3 of 4 profiles were not taken" in said


def test_handing_on_takes_a_share_of_the_time(silent: int, monkeypatch: pytest.MonkeyPatch,
                                              capfd: pytest.CaptureFixture[str]) -> None:
    """Reports that come faster than that are left out, but neither the first nor the last."""
    monkeypatch.setattr("tracer.cli.exported.LEAVING", 0.0)
    monkeypatch.setattr("tracer.cli.exported.SHARE", 1e-9)
    with Exports(push_pprof=f"http://127.0.0.1:{silent}/ingest") as exports:
        for number in range(5):
            exports.write(replace(report([(5, 1)]), last=number == 4))
    assert "2 of 2 profiles were not taken" in capfd.readouterr().err


def test_credentials_leave_the_environment(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is traced must not find them there, nor anybody in the arguments of a process."""
    monkeypatch.setattr("tracer.cli.exported.LEAVING", 0.0)
    monkeypatch.setenv(CREDENTIALS, "me:hush")
    with Exports(push_pprof=f"http://127.0.0.1:{silent}/ingest") as exports:
        assert CREDENTIALS not in os.environ
        with open(f"/proc/{exports._pusher.pid}/cmdline", "rb") as arguments:
            assert b"hush" not in arguments.read()
        with open(f"/proc/{exports._pusher.pid}/environ", "rb") as environment:
            assert b"hush" not in environment.read()
