"""--listen and --push-pprof on a process that leaks: scraped by Prometheus, and by clients that mean no good."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.live.conftest import PATIENCE, ROOT, Lines, RunningProgram
from tracer.report.pprof_messages import profile_class

Build = Callable[..., Path]
#: Seconds that a scrape may take, whatever else happens.
QUICK = 1.0


class Exporting:
    """A leaktrace of one process that gives its reports to others."""

    def __init__(self, pid: int, *arguments: str) -> None:
        words = [sys.executable, "-m", "tracer.cli", "-p", str(pid), *arguments]
        self.process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.err = Lines(self.process.stderr)
        said = self.err.until(lambda line: "attached by" in line)
        found = re.search(r"serving http://127\.0\.0\.1:(\d+)/", "\n".join(said))
        self.port = int(found[1]) if found else 0

    def get(self, path: str = "/metrics") -> tuple[bytes, float]:
        """Return a page and the seconds it took, as soon as there is a report."""
        deadline = time.monotonic() + PATIENCE
        while True:
            began = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                    return answer.read(), time.monotonic() - began
            except urllib.error.HTTPError as problem:
                assert problem.code == 503 and time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> tuple[int, str, float]:
        """End it; return its exit code, all it said, and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        took = time.monotonic() - began
        self.err.rest()
        return code, "\n".join(self.err.seen), took

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def export() -> Iterator[Callable[..., Exporting]]:
    """Return a function that starts a trace of a process, which is ended with the test."""
    running: list[Exporting] = []

    def start(program: RunningProgram, *arguments: str) -> Exporting:
        running.append(Exporting(program.pid, *arguments))
        return running[-1]

    try:
        yield start
    finally:
        for one in running:
            one.close()


@pytest.fixture
def leaking(build: Build, run_program: Callable[..., RunningProgram]) -> RunningProgram:
    """A program that leaks as soon as it is told to go: 48 bytes, three times at each of 200 sites."""
    return run_program(build("bench_sites.c"), "200")


HELD = 200 * 3 * 48


def value(metrics: bytes, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics.decode(), re.MULTILINE)
    assert found, metrics[:500]
    return float(found[1])


def until_held(exporting: Exporting) -> bytes:
    """Return the first figures in which all that leaked is there."""
    deadline = time.monotonic() + PATIENCE
    while value(metrics := exporting.get()[0], "leaktrace_live_bytes") < HELD:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return metrics


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def asked(port: int, query: str) -> list[Any]:
    """Return what Prometheus answers to a query, nothing where it is not there yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}", timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])
    except OSError:
        return []


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """Return a function that has Debian's Prometheus scrape a port, and gives the port that it answers at."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("this needs Debian's prometheus")
    running: list[subprocess.Popen[bytes]] = []

    def start(target: int) -> int:
        config, port = tmp_path / "prometheus.yml", free_port()
        config.write_text("global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n"
                          f"- {{job_name: leaktrace, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n")
        running.append(subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return port

    try:
        yield start
    finally:
        for each in running:
            each.kill()
            each.wait(PATIENCE)


def misbehave(port: int, others: Callable[[], None]) -> None:
    """Send slow, huge and malformed requests; others is called after each while slow ones go on."""
    slow = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(150)]
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.05):
            for each in slow:
                with suppress(OSError):
                    each.send(b"G")

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        for bad in (b"GET /" + b"x" * 5_000_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500_000, os.urandom(100_000),
                    b"\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"):
            answer = b""
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client, suppress(OSError):
                client.sendall(bad)
                client.shutdown(socket.SHUT_WR)
                while piece := client.recv(1 << 16):
                    answer += piece
            assert len(answer) < 1000 and (not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer))
            others()
    finally:
        over.set()
        thread.join()
        for each in slow:
            each.close()


def test_prometheus_scrapes_it_whoever_else_comes(
    leaking: RunningProgram, export: Callable[..., Exporting], prometheus: Callable[[int], int]
) -> None:
    """Slow, huge and malformed requests, many at once: a scrape is answered in a second, and none of Prometheus' fails.

    What leaked and where can be asked for there.
    """
    exporting = export(leaking, "--listen", "127.0.0.1:0", "0.5")
    port = prometheus(exporting.port)
    leaking.go()
    metrics = until_held(exporting)

    def scrape() -> None:
        content, took = exporting.get()
        assert took < QUICK and value(content, "leaktrace_live_bytes") == HELD

    deadline = time.monotonic() + PATIENCE
    while not (found := asked(port, "leaktrace_live_bytes")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert float(found[0]["value"][1]) == HELD and found[0]["metric"]["job"] == "leaktrace"
    misbehave(exporting.port, scrape)
    sites = asked(port, "leaktrace_site_live_bytes")
    assert sum(float(each["value"][1]) for each in sites) == HELD
    assert {each["metric"]["function"] for each in sites} == {"keep_block"}
    assert {each["metric"]["site"] for each in sites} == set(re.findall(r'live_bytes\{site="(\w+)"', metrics.decode()))
    assert asked(port, "min_over_time(up[1m])")[0]["value"][1] == "1"
    code, said, _ = exporting.stop()
    assert code == 0 and "ended" not in said


def test_a_scrape_is_answered_during_a_heavy_drain(build: Build, export: Callable[..., Exporting]) -> None:
    """While a program allocates as fast as it can, with reports all the time, each page comes within a second."""
    loop = subprocess.Popen([build("bench_malloc_loop.c")], stdout=subprocess.DEVNULL)
    many = subprocess.Popen([build("bench_sites.c"), "6000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        exporting = export(many, "-p", str(loop.pid), "--listen", "127.0.0.1:0", "0.25")
        assert many.stdin
        exporting.get()
        # Thousands of stacks that nobody has seen yet come at once.
        many.stdin.write(b"\n")
        many.stdin.flush()
        slowest, metrics = 0.0, b""
        deadline = time.monotonic() + PATIENCE
        # The report that has them comes late; until then there is the one before.
        while not metrics or value(metrics, "leaktrace_allocations_total") < 18_000:
            assert time.monotonic() < deadline
            metrics, took = exporting.get()
            slowest = max(slowest, took, *(exporting.get(path)[1] for path in ("/", "/report.json", "/profile.pb.gz")))
            time.sleep(0.05)
        assert slowest < QUICK
        status = Path(f"/proc/{exporting.process.pid}/task/{exporting.process.pid}/children").read_text().split()
        users = {os.stat(f"/proc/{each}").st_uid for each in status
                 if b"tracer.serve.process" in Path(f"/proc/{each}/cmdline").read_bytes()}
        assert users == {65534}, "what serves has no rights"
        assert exporting.stop()[0] == 0
    finally:
        for each in (loop, many):
            each.kill()
            each.wait(PATIENCE)


class Taking:
    """A server that profiles are posted to: it fails twice, and then takes them."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        taking = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                form: Any = BytesParser(policy=HTTP).parsebytes(head + content)
                profile = next(part.get_payload(decode=True) for part in form.iter_parts()
                               if part.get_filename() == "profile.pb.gz")
                taking.posts.append((self.path, profile))
                self.send_response(200 if len(taking.posts) > 2 else 503)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


def test_profiles_are_pushed(leaking: RunningProgram, export: Callable[..., Exporting]) -> None:
    """To a server that fails twice: the same comes again until it is taken, and all of the trace is there in the end."""
    taking = Taking()
    try:
        exporting = export(leaking, "--push-pprof", f"http://127.0.0.1:{taking.port}/ingest", "0.5")
        leaking.go()
        deadline = time.monotonic() + PATIENCE
        while len(taking.posts) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        code, said, _ = exporting.stop()
    finally:
        taking.server.shutdown()
        taking.server.server_close()
    assert code == 0 and said.count("takes no profile: it answers 503 Service Unavailable") == 1
    assert taking.posts[0] == taking.posts[1] == taking.posts[2] != taking.posts[3]
    profiles = [profile_class().FromString(gzip.decompress(content)) for _, content in taking.posts[2:]]
    assert sum(sample.value[3] for sample in profiles[-1].sample) == HELD
    # What was allocated is in one of them, and in one only.
    assert sum(sample.value[1] for each in profiles for sample in each.sample) == HELD
    names = {profiles[-1].string_table[each.name] for each in profiles[-1].function}
    assert {"keep_block", "left", "right"} <= names
    query = parse_qs(urlsplit(taking.posts[-1][0]).query)
    assert query["name"] == ["leaktrace.bench_sites"] and query["format"] == ["pprof"]


def test_a_server_that_never_answers_holds_up_nothing(leaking: RunningProgram, export: Callable[..., Exporting]) -> None:
    """Reports come in time, the trace ends in time, and what was not taken is counted."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        exporting = export(leaking, "--push-pprof", f"http://127.0.0.1:{port}/ingest", "--listen", "127.0.0.1:0", "0.1")
        leaking.go()
        until_held(exporting)
        began = value(exporting.get()[0], "leaktrace_elapsed_seconds")
        time.sleep(0.5)
        assert value(exporting.get()[0], "leaktrace_elapsed_seconds") - began > 0.2
        code, said, took = exporting.stop()
    assert code == 0 and took < 6
    assert re.search(rf"(\d+) of \1 profiles were not taken by http://127\.0\.0\.1:{port}/ingest", said)


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("--listen", "0.0.0.0:0"), 2, "Give --listen-public too if that is meant, and put authentication in front."),
    (("--listen", "nowhere"), 2, "Write for example 127.0.0.1:9464."),
    (("--listen", "127.0.0.1:TAKEN"), 3, "Name another port, or 0 for any that is free."),
])
def test_what_cannot_be_is_said_before_anything_is_traced(arguments: tuple[str, ...], code: int, said: str) -> None:
    """With the exit code that says whose fault it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [each.replace("TAKEN", str(taken.getsockname()[1])) for each in arguments]
        answer = subprocess.run([sys.executable, "-m", "tracer.cli", "-p", str(os.getpid()), *words, "1", "1"], cwd=ROOT,
                                capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    assert answer.returncode == code and said in answer.stderr and "attached" not in answer.stderr
    assert "Traceback" not in answer.stderr
