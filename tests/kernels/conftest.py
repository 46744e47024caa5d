"""What tests of kernel memory share: the module `leaky`, which allocates what it is told, and a trace of the kernel.

Environment: LEAKTRACE_KERNEL_MODULE names a leaky.ko that is built already; LEAKTRACE_KERNEL_BUILD the folder to build
it with (default /lib/modules/VERSION/build). Where LEAKTRACE_GUEST is set, the machine is one made for these tests:
what cannot run there is a failure, not a skip.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = Path(__file__).resolve().parent / "module"
CONTROL = Path("/proc/leaky")
IS_GUEST = bool(os.environ.get("LEAKTRACE_GUEST"))
#: Seconds until a step that never comes is a failure; a machine in software is some ten times slower.
PATIENCE = 300 if IS_GUEST else 60
#: Seconds between reports: few, or more than any test takes, so that the one report is the last.
OFTEN, NEVER = "2", "3600"
SOURCES = ("--slab", "--pages", "--percpu", "--vmalloc")
ALL_SITES = "100000"


@dataclass(frozen=True, slots=True)
class Held:
    """Blocks of one kind that the module holds: how many, the bytes they take, the bytes that were asked for."""

    count: int = 0
    taken: int = 0
    requested: int = 0

    def is_of(self, block: Held) -> bool:
        """Whether each of these blocks is as large as each of those, by what it takes or by what was asked for."""
        return (self.taken * block.count == block.taken * self.count
                or self.requested * block.count == block.requested * self.count)


class Leaky:
    """The loaded module."""

    def do(self, command: str) -> None:
        """Have the module obey one line (module/main.c has them); skips where this kernel has no such function."""
        try:
            descriptor = os.open(CONTROL, os.O_WRONLY)
            try:
                os.write(descriptor, command.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as problem:
            if problem.errno == errno.EOPNOTSUPP:
                pytest.skip(f"this kernel cannot do {command!r}")
            raise

    def held(self, kind: str) -> Held:
        """Return what is held of one kind now."""
        return Held(*(int(word) for word in self._line(kind)[:3]))

    def freed_in(self, context: str) -> int:
        """Return how many blocks were ever freed in a context: softirq or hardirq."""
        return int(self._line(f"freed_{context}")[0])

    def _line(self, name: str) -> list[str]:
        found = [words[1:] for line in CONTROL.read_text().splitlines() if (words := line.split())[0] == name]
        assert len(found) == 1, f"the module says nothing of {name}"
        return found[0]


def give_up(reason: str) -> NoReturn:
    """Skip what needs the module, or fail where it must be there."""
    if IS_GUEST:
        pytest.fail(reason)
    pytest.skip(reason)


def built_module(folder: Path) -> Path:
    """Return the module for the kernel that runs, built in a folder if it is not built yet."""
    ready = os.environ.get("LEAKTRACE_KERNEL_MODULE")
    if ready:
        return Path(ready)
    headers = Path(os.environ.get("LEAKTRACE_KERNEL_BUILD") or f"/lib/modules/{os.uname().release}/build")
    if not headers.is_dir():
        give_up(f"the kernel's headers are not at {headers}: LEAKTRACE_KERNEL_BUILD says where they are")
    done = subprocess.run(["make", "-C", str(MODULE), f"KERNEL_BUILD={headers}", f"OUT={folder}"], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        give_up("the module cannot be built:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-15:]))
    return folder / "leaky.ko"


@pytest.fixture(scope="session")
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaky]:
    if os.geteuid() != 0:
        give_up("kernel modules need root")
    if not Path("/proc/modules").exists():
        give_up("this kernel loads no modules (CONFIG_MODULES)")
    if CONTROL.exists():
        # Left by a run that was ended; it may be another version.
        subprocess.run(["rmmod", "leaky"], check=True)
    module = built_module(tmp_path_factory.mktemp("leaky"))
    done = subprocess.run(["insmod", str(module)], capture_output=True, text=True, check=False)
    if done.returncode:
        give_up(f"the module cannot be loaded: {done.stderr.strip()}")
    try:
        yield Leaky()
    finally:
        subprocess.run(["rmmod", "leaky"], check=True)


@pytest.fixture
def leaky(_loaded: Leaky) -> Iterator[Leaky]:
    """The module, holding nothing before the test and after it."""
    _loaded.do("free all")
    try:
        yield _loaded
    finally:
        _loaded.do("free all")


class KernelTrace:
    """A `leaktrace kernel` of all sources that runs, with its output in files."""

    def __init__(self, folder: Path, interval: str) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        words = [sys.executable, "-m", "tracer.cli", "kernel", *SOURCES, "--format", "json", "-T", ALL_SITES,
                 "--raw-stacks", interval]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def wait_attached(self) -> None:
        """Wait until everything allocated from now on is seen."""
        self._wait(lambda: "last report" in self._err.read_text(), "was not attached")

    def report(self) -> dict[str, Any]:
        """Return a report that was begun after the call: the second that comes, as the first may be under way."""
        before = len(self._reports())
        self._wait(lambda: len(self._reports()) >= before + 2, "did not report")
        return self._last()

    def stop(self) -> dict[str, Any]:
        """Have it take its last report and end; return that report."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert code == 0 and self._reports(), f"exit code {code}: {self._err.read_text()}"
        return self._last()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def _reports(self) -> list[str]:
        # A line that is still being written has no end.
        return [line for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def _last(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._reports()[-1])
        return document

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, f"exit code {self.process.returncode}: {self._err.read_text()}"
            assert time.monotonic() < deadline, f"leaktrace {what} for {PATIENCE} s: {self._err.read_text()}"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def _trace(_loaded: Leaky, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelTrace]:
    trace = KernelTrace(tmp_path_factory.mktemp("trace"), OFTEN)
    try:
        trace.wait_attached()
        yield trace
    finally:
        trace.close()


@pytest.fixture
def trace(leaky: Leaky, _trace: KernelTrace) -> KernelTrace:
    """A trace of the kernel that began before the test: one for all, as it takes long to begin on a slow machine."""
    return _trace


@pytest.fixture
def start_trace(tmp_path: Path) -> Iterator[Callable[[], KernelTrace]]:
    """Return a function that starts a trace of its own, and returns when it is attached."""
    running: list[KernelTrace] = []

    def start() -> KernelTrace:
        running.append(KernelTrace(tmp_path, NEVER))
        running[-1].wait_attached()
        return running[-1]

    try:
        yield start
    finally:
        for trace in running:
            trace.close()


def sites_of(report: dict[str, Any], function: str, source: str, block: Held) -> list[dict[str, Any]]:
    """Return the sites of a source that have a function of the module among their frames, with blocks of this size.

    What the allocator itself allocates on the way (a table of an area's pages, a cache's arrays of free objects) is
    other memory, at sites of its own: it is told apart by its size.
    """
    return [site for site in report["sites"] if site["source"] == source and held_at(site).is_of(block) and any(
        frame["function"] == function and frame["module"] == "[leaky]" for frame in site["frames"])]


def held_at(site: dict[str, Any]) -> Held:
    """Return what the report says is held at a site."""
    return Held(site["count"], site["bytes"], site["kernel"]["requested_bytes"])


def reported(report: dict[str, Any], function: str, source: str, block: Held) -> Held:
    """Return what the report says is held by a function of the module, in blocks of this size."""
    held = [held_at(site) for site in sites_of(report, function, source, block)]
    return Held(*(sum(getattr(each, name) for each in held) for name in ("count", "taken", "requested")))
