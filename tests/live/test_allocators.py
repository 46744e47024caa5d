"""The same known program under every allocator: the figures do not depend on whose malloc it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, Starter, functions, site
from tests.live.test_exact import LIBRARIES, assert_sites_exact, assert_totals_exact

#: How the program is built: compiler, options.
BUILDS = [
    pytest.param("gcc", (), "glibc", id="glibc"),
    pytest.param("gcc", ("-static",), "", id="glibc_static"),
    pytest.param("gcc", ("-static", "-Wl,--strip-debug"), "", id="glibc_static_without_debug"),
    pytest.param("gcc", ("-static-pie", "-fPIE"), "", id="glibc_static_pie"),
    pytest.param("gcc", ("-s",), "glibc", id="glibc_stripped"),
    pytest.param("musl-gcc", (), "musl", id="musl"),
    pytest.param("musl-gcc", ("-static",), "", id="musl_static"),
    pytest.param("gcc", ("-Wl,--no-as-needed", "-ljemalloc"), "jemalloc", id="jemalloc"),
    pytest.param("gcc", ("-Wl,--no-as-needed", "-ltcmalloc_minimal"), "tcmalloc", id="tcmalloc"),
    pytest.param("gcc", ("-Wl,--no-as-needed", "-lmimalloc"), "mimalloc", id="mimalloc"),
    pytest.param("gcc", (f"{LIBRARIES}/libjemalloc.a", "-lm", "-lstdc++"), "jemalloc", id="jemalloc_inside"),
]
PRELOADS = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4", "mimalloc": "libmimalloc.so.2.0"}


def preload(name: str) -> dict[str, str]:
    """Return the environment that puts an allocator in front of libc's."""
    library = Path(LIBRARIES, PRELOADS[name])
    if not library.exists():
        pytest.skip(f"needs {library.name}")
    return {"LD_PRELOAD": str(library)}


@pytest.mark.parametrize(("compiler", "flags", "kind"), BUILDS)
def test_linked_allocators_are_exact(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, compiler: str, flags: tuple[str, ...], kind: str
) -> None:
    """Every allocator that a program is linked with, as a library or inside it, is found, named and exactly counted."""
    program = run_program(build("known.c", *flags, compiler=compiler))
    trace = leaktrace.attach(program)
    truth = program.work()
    result = trace.stop()
    if "-s" not in flags:
        assert_sites_exact(result.report, truth)
    assert_totals_exact(result.report["totals"], truth)
    assert result.report["losses"] == {}
    assert f"{kind} in " in result.stderr
    assert program.finish() == 0


@pytest.mark.parametrize("name", PRELOADS)
def test_preloaded_allocators_are_exact(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, name: str
) -> None:
    """An allocator that LD_PRELOAD puts in place of libc's is the one that is counted, and each block once."""
    program = run_program(build("known.c"), **preload(name))
    trace = leaktrace.attach(program)
    truth = program.work()
    result = trace.stop()
    assert_sites_exact(result.report, truth)
    assert_totals_exact(result.report["totals"], truth)
    assert f"{name} in " in result.stderr
    assert program.finish() == 0


def test_a_command_under_musl_static_is_exact(build: Callable[..., Path], leaktrace: Starter) -> None:
    """A static program, which no dynamic loader announces, is exact when started with -c."""
    trace, program = leaktrace.command([build("known.c", "-static", compiler="musl-gcc")])
    truth = program.work()
    report = trace.stop().report
    assert_sites_exact(report, truth)
    assert_totals_exact(report["totals"], truth)


def test_a_program_without_names_is_refused_with_a_remedy(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter
) -> None:
    """A static program stripped of its symbols has no malloc to be found: exit code 3, what was searched, what to do."""
    program = run_program(build("known.c", "-static", "-s"))
    result = leaktrace("-p", str(program.pid), "1", "1")
    assert (result.returncode, result.reports) == (3, [])
    assert "no allocator" in result.stderr and "--alloc-fn" in result.stderr and "Traceback" not in result.stderr
    program.work()
    assert program.finish() == 0


def test_extended_interface_of_jemalloc(build: Callable[..., Path], run_program: Any, leaktrace: Starter) -> None:
    """mallocx, rallocx, xallocx, dallocx and sdallocx are births and deaths, and failed ones are neither."""
    program = run_program(build("extended.c", "-ljemalloc"))
    trace = leaktrace.attach(program)
    truth = program.work()
    report = trace.stop().report
    assert_sites_exact(report, truth)
    assert_totals_exact(report["totals"], truth)
    assert program.finish() == 0


@pytest.mark.parametrize("attach", ["session", "multi", "perf"])
@pytest.mark.parametrize(
    ("options", "mine"),
    [
        pytest.param(("--symbols-prefix", "my_"), ("by_my_malloc", "by_my_calloc", "by_my_realloc"), id="prefix"),
        pytest.param(("--alloc-fn", "region_get:size=0,ptr=arg1", "--free-fn", "region_put:ptr=1"), ("by_region_get",),
                     id="functions"),
    ],
)
def test_an_allocator_loaded_after_the_attach(
    build: Callable[..., Path], run_program: Any, leaktrace: Starter, options: tuple[str, ...], mine: tuple[str, ...],
    attach: str,
) -> None:
    """A library that dlopen brings later is attached when it comes, and exact from then on."""
    plugin = build("plugin.c", "-shared", "-fPIC", name="plugin.so")
    program = run_program(build("loads.c"), plugin)
    trace = leaktrace.attach(program, "--attach", attach, *options)
    program.work()
    trace.err.until(lambda line: "plugin.so" in line)
    truth = [each for each in program.work() if each["function"] in mine]
    report = trace.stop().report
    assert_sites_exact(report, truth)
    # dlopen itself allocates.
    others = [each for each in report["sites"] if not set(mine) & set(functions(each))]
    assert all("dlopen" in functions(each) for each in others)
    live = sum(each["bytes"] for each in [*truth, *others]), sum(each["count"] for each in [*truth, *others])
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"]) == live
    assert program.finish() == 0


@pytest.mark.parametrize("kind", ["path", "name"])
def test_one_object_only(build: Callable[..., Path], run_program: Any, leaktrace: Starter, kind: str) -> None:
    """-O, with a path or with memleak's short name, attaches to that file and to no other."""
    program = run_program(build("known.c"), **preload("jemalloc"))
    wanted = {"path": f"{LIBRARIES}/libjemalloc.so.2", "name": "jemalloc"}[kind]
    right, wrong = leaktrace.attach(program, "-O", wanted), leaktrace.attach(program, "-O", "c")
    truth = program.work()
    result = right.stop()
    assert_sites_exact(result.report, truth)
    assert_totals_exact(result.report["totals"], truth)
    assert "jemalloc in " in result.stderr and "glibc in " not in result.stderr
    assert wrong.stop().report["totals"]["allocated_count"] == 0
    assert program.finish() == 0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, Callable[[str], str]]]:
    """Start a redis-server on a socket; give its pid and a function that sends it commands, one a line."""
    if not (shutil.which("redis-server") and shutil.which("redis-cli")):
        pytest.skip("needs redis-server and redis-cli")
    socket = tmp_path / "redis.sock"
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", tmp_path],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break

        def send(commands: str) -> str:
            return subprocess.run(["redis-cli", "-s", socket], input=commands, capture_output=True, text=True,
                                  check=True, timeout=PATIENCE).stdout

        yield server.pid, send
    finally:
        server.kill()
        server.wait(PATIENCE)


def test_a_real_server_holds_what_it_was_given(redis: tuple[int, Callable[[str], str]], leaktrace: Starter) -> None:
    """A thousand values of a thousand bytes are a little over a million live bytes, at sites of redis."""
    pid, send = redis
    send("PING\n")
    trace = leaktrace.attach(pid)
    assert send("".join(f"SET key:{number} {'v' * 1000}\n" for number in range(1000))).count("OK") == 1000
    result = trace.stop()
    report = result.report
    assert "jemalloc in " in result.stderr
    assert report["losses"] == {}
    assert 1_000_000 <= report["totals"]["live_bytes"] <= 1_300_000
    # The values, and one entry of the keyspace for each.
    assert 2_000 <= report["totals"]["live_count"] <= 5_000
    # The values are made while the command is read, the keys while it is carried out.
    assert site(report, "processInputBuffer").bytes >= 1_000_000
    assert site(report, "setGenericCommand").count >= 2_000
