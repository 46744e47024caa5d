"""Whatever is asked for wrongly gets two sentences and an exit code; whatever a target has mapped does no harm."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, ROOT, Starter, functions, site
from tests.live.test_options import WORDS, run_tool
from tests.live.test_unharmed import assert_nothing_left

Build = Callable[..., Path]
USAGE, CANNOT_TRACE = 2, 3
NOBODY = 65534
#: Flags of a task, field 9 of proc_pid_stat(5) (include/linux/sched.h).
PF_KTHREAD = 0x00200000


def assert_refused(answer: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check the exit code, that stderr names the thing and a remedy in few lines, and that nothing is left."""
    said = answer.stderr
    assert answer.returncode == code, said
    assert answer.stdout == "" and "Traceback" not in said
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("Usage:")]
    assert 2 <= len(lines) <= 4, said
    assert all(word in said for word in words), said
    assert_nothing_left()


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Return a function that starts a program that does not talk, and returns its pid."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*words: str | Path) -> int:
        running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return running[-1].pid

    try:
        yield run
    finally:
        for process in running:
            process.kill()
            process.wait(PATIENCE)


def test_a_process_that_does_not_exist() -> None:
    """A pid that nobody has, and one that nobody can have."""
    process = subprocess.Popen(["true"])
    process.wait(PATIENCE)
    assert_refused(run_tool("-p", str(process.pid)), CANNOT_TRACE, str(process.pid), "no process")
    assert_refused(run_tool("-p", "99999999"), CANNOT_TRACE, "99999999")


def kernel_thread() -> int | None:
    """Return the pid of a kernel thread; a container may have none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[6]) & PF_KTHREAD:
            return int(folder.name)
    return None


def test_a_kernel_thread() -> None:
    """A kernel thread is called one."""
    pid = kernel_thread()
    if pid is None:
        pytest.skip("no kernel thread is visible here")
    assert_refused(run_tool("-p", str(pid)), CANNOT_TRACE, str(pid), "kernel thread")


def test_a_zombie() -> None:
    """A process that has ended, and whose parent has not noticed, is called a zombie."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert_refused(run_tool("-p", str(process.pid)), CANNOT_TRACE, str(process.pid), "zombie")
    finally:
        process.wait(PATIENCE)


def test_a_process_without_an_allocator(build: Build, start: Callable[..., int]) -> None:
    """A program that has no malloc: the message says where it was looked for."""
    program = build("live_bare.c", "-nostdlib", "-static")
    answer = run_tool("-p", str(start(program)))
    assert_refused(answer, CANNOT_TRACE, str(program), "allocator", "--alloc-fn")


def test_a_32_bit_process(build: Build, start: Callable[..., int]) -> None:
    """A 32-bit program is called one."""
    program = build("live_bare.c", "-m32", "-nostdlib", "-static", name="live_bare32")
    try:
        pid = start(program)
    except OSError as problem:
        pytest.skip(f"this kernel runs no 32-bit programs: {problem}")
    assert_refused(run_tool("-p", str(pid)), CANNOT_TRACE, str(pid), "32-bit")


@pytest.mark.parametrize("which", ["no_allocator", "32_bit"])
def test_a_command_that_cannot_be_traced_is_ended(build: Build, tmp_path: Path, which: str) -> None:
    """A command without an allocator, or a 32-bit one, is refused as a process is, and does not run on untraced."""
    flags = ("-m32",) if which == "32_bit" else ()
    program = build("live_bare.c", *flags, "-nostdlib", "-static", name=f"live_{which}")
    # Into files: a command that runs on would hold pipes open.
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen([*WORDS, "-c", str(program)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout,
                                   stderr=stderr)
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)
        running = [folder for folder in Path("/proc").glob("[0-9]*") if exe_of(folder) == str(program)]
        for folder in running:
            os.kill(int(folder.name), signal.SIGKILL)
    answer = subprocess.CompletedProcess("leaktrace", code, out.read_text(), err.read_text())
    assert_refused(answer, CANNOT_TRACE, "32-bit" if flags else "allocator")
    assert running == []


def exe_of(folder: Path) -> str | None:
    """Return the executable of a process by its folder in /proc."""
    try:
        return os.readlink(folder / "exe")
    except OSError:
        return None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("-z", "100", "-Z", "50"), ("-z", "-Z"), id="least_over_most"),
        pytest.param(("0",), ("INTERVAL", "0"), id="interval_0"),
        pytest.param(("-1",), ("-1",), id="interval_negative"),
        pytest.param(("nan",), ("INTERVAL",), id="interval_nan"),
        pytest.param(("inf",), ("INTERVAL",), id="interval_inf"),
        pytest.param(("soon",), ("INTERVAL", "soon"), id="interval_word"),
        pytest.param(("1", "0"), ("COUNT", "0"), id="count_0"),
        pytest.param(("1", "1.5"), ("COUNT", "1.5"), id="count_fraction"),
        pytest.param(("1", "2", "3"), ("3",), id="one_too_many"),
        pytest.param(("-T", "0"), ("--top", "0"), id="top_0"),
        pytest.param(("-T", "-3"), ("--top", "-3"), id="top_negative"),
        pytest.param(("--depth", "0"), ("--depth",), id="depth_0"),
        pytest.param(("--depth", "128"), ("--depth", "127"), id="depth_too_large"),
        pytest.param(("-z", "-5"), ("--min-size", "-5"), id="size_negative"),
        pytest.param(("-Z", "much"), ("--max-size", "much"), id="size_word"),
        pytest.param(("-o", "-1"), ("--older",), id="age_negative"),
        pytest.param(("-d", "0"), ("--duration",), id="duration_0"),
        pytest.param(("-s", "0"), ("--sample-rate",), id="rate_0"),
        pytest.param(("--sample-bytes", "0"), ("--sample-bytes",), id="distance_0"),
        pytest.param(("-s", "2", "--sample-bytes", "512k"), ("-s", "--sample-bytes"), id="two_ways_to_sample"),
        pytest.param(("--max-outstanding", "0"), ("--max-outstanding",), id="no_room"),
        pytest.param(("--max-stacks", "99999999999"), ("--max-stacks",), id="too_many_stacks"),
        pytest.param(("--alloc-fn", "pool"), ("pool", "--alloc-fn"), id="function_without_arguments"),
        pytest.param(("--alloc-fn", "pool:size=7"), ("7",), id="function_with_a_far_argument"),
        pytest.param(("--free-fn", "pool:size=0"), ("--free-fn",), id="free_without_pointer"),
        pytest.param(("--sort", "age"), ("--sort", "size"), id="no_such_order"),
        pytest.param(("--format", "xml"), ("--format", "json"), id="no_such_format"),
        pytest.param(("--no-such-option",), ("--no-such-option",), id="no_such_option"),
        pytest.param(("-c", "true"), ("-p", "-c"), id="process_and_command"),
        pytest.param(("--percpu",), ("--percpu", "kernel"), id="percpu"),
        pytest.param(("--wa-missing-free",), ("--wa-missing-free", "kernel"), id="wa_missing_free"),
    ],
)
def test_options_without_sense(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Values out of range, and options that contradict each other, are wrong usage; the message names them."""
    assert_refused(run_tool("-p", str(os.getpid()), *arguments), USAGE, *words)


@pytest.mark.parametrize(("arguments", "option"), [
    (("-s", "3", "5", "2"), "--sample-rate"), (("--reachability", "5"), "--reachability"), (("-t",), "--trace"),
])
def test_an_option_for_processes_without_one(arguments: tuple[str, ...], option: str) -> None:
    """Without a process the kernel is traced, as memleak does; what only makes sense with one is wrong usage then."""
    assert_refused(run_tool(*arguments), USAGE, option, "-p", "-c", "kernel")


def test_a_pid_that_is_none() -> None:
    """-p wants a positive number."""
    for word in ("0", "-5", "init", "1.5", ""):
        assert_refused(run_tool("-p", word), USAGE, "--pid")


def test_bare_leaktrace_prints_help() -> None:
    """Without any argument there is nothing to do wrong: the help, and exit code 0."""
    answer = run_tool()
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Usage: leaktrace" in answer.stdout and "--pid" in answer.stdout
    assert run_tool("--help").stdout == answer.stdout


@pytest.fixture
def open_checkout() -> Iterator[Path]:
    """Return a copy of the program that everybody may read."""
    with tempfile.TemporaryDirectory(prefix="leaktrace-live-") as name:
        folder = Path(name)
        for package in ("bpf", "symbolizer", "tracer"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield folder


def as_nobody(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run leaktrace as a user without any right."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HOME": "/nonexistent"}
    tried = subprocess.run([*user, sys.executable, "-c", "import click, numpy, bcc"], cwd="/", env=environment,
                           capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"nobody may not use this Python: {tried.stderr.strip()}")
    return subprocess.run([*user, *WORDS, *arguments], cwd="/", env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("target", ["of_root", "its_own", "command"])
def test_a_user_without_rights(start: Callable[..., int], open_checkout: Path, target: str) -> None:
    """Who is not root is told which capabilities it takes, whether the target is root's or the user's own."""
    if target == "command":
        answer = as_nobody(open_checkout, "-c", "sleep 600")
    else:
        own = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        pid = start(*(own if target == "its_own" else ()), "sleep", "600")
        answer = as_nobody(open_checkout, "-p", str(pid))
    assert_refused(answer, CANNOT_TRACE, "sudo", "CAP_BPF", "CAP_PERFMON")


def garbage_files(folder: Path) -> list[Path]:
    """Return files that are no code, or not all of it: noise, nothing, half a library, and damaged headers."""
    libc = next(Path("/usr/lib/x86_64-linux-gnu").glob("libc.so.6")).read_bytes()
    noise = random.Random(1).randbytes
    headers = {f"header_{at}": libc[:at] + noise(64 - at) + libc[64:200000] for at in (16, 24, 32, 40, 48, 54)}
    contents = {
        "noise": noise(70000), "empty": b"", "magic_only": b"\x7fELF", "noise_behind_magic": b"\x7fELF\2\1\1" + noise(70000),
        "half": libc[: len(libc) // 2], "first_page": libc[:4096], "without_end": libc[:-5000], "header_only": libc[:64],
        "tables_of_noise": libc[:4096] + noise(len(libc) - 4096), **headers,
    }
    for name, content in contents.items():
        (folder / f"{name}.so").write_bytes(content)
    return [folder / f"{name}.so" for name in contents]


def test_files_that_are_no_code_do_no_harm(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path
) -> None:
    """Mapped as code, truncated libraries and noise are passed over: the trace is exact, and says nothing alarming."""
    program = run_program(build("live_maps.c"), *garbage_files(tmp_path))
    trace = leaktrace.attach(program)
    truth = program.work()
    result = trace.stop()
    assert site(result.report, "keeps").live == (truth[0]["bytes"], truth[0]["count"])
    assert {functions(each)[-1] for each in site(result.report, "keeps").sites} == {"_start"}
    assert result.report["losses"] == {} and "Traceback" not in result.stderr


@pytest.mark.parametrize("padding", [0, 8 << 20], ids=["small", "large"])
def test_a_library_may_be_cut_while_it_is_traced(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path, padding: int
) -> None:
    """A library that somebody cuts short in place, or overwrites, costs its names at most; the trace is not lost."""
    copy = tmp_path / "first.so"
    shutil.copyfile(build("live_library.c", "-shared", "-fPIC", "-DKEEPS=first_keeps", name="first.so"), copy)
    with copy.open("ab") as file:
        file.write(bytes(padding))
    # Its second library is never loaded.
    program = run_program(build("live_loader.c"), copy, "-")
    trace = leaktrace.attach(program)
    program.work()
    # leaktrace reads it within milliseconds, and no report names it yet.
    time.sleep(1)
    os.truncate(copy, 0)
    totals = trace.stop().report["totals"]
    assert totals["live_bytes"] >= 1110


STUBS = {
    "missing": ("raise ImportError('No module named bcc')\n", "python3-bpfcc"),
    "another_project": ("'''A project of the same name.'''\n__version__ = '0.1'\n", "BPF Compiler Collection"),
}


@pytest.mark.parametrize("stub", STUBS)
def test_bcc_that_is_not_there(start: Callable[..., int], tmp_path: Path, stub: str) -> None:
    """Without BCC for Python, or with the other project of that name, the message says what to install."""
    text, word = STUBS[stub]
    (tmp_path / "bcc.py").write_text(text)
    pid = start("sleep", "600")
    answer = run_tool("-p", str(pid), environment={"PYTHONPATH": str(tmp_path)})
    assert_refused(answer, CANNOT_TRACE, word)
    command = run_tool("-c", shlex.join(["sleep", "600"]), environment={"PYTHONPATH": str(tmp_path)})
    assert_refused(command, CANNOT_TRACE, word)
