"""leaktrace kernel as a command: its forms, exit codes and outputs, and what it says where it cannot trace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.live.conftest import PATIENCE, ROOT, Lines, functions
from tests.live.test_options import WORDS, run_tool
from tests.live.test_selection import mounted

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
#: More than any machine has.
NEVER_TRUE = ("--fail-on", "total_bytes>1000g")
#: Half of what leaves() leaves.
TRUE = ("--fail-on", "bytes>1M")
LEFT = 2 << 20


def kernel(*arguments: str | Path, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run leaktrace kernel to its end, started by the words of through."""
    return subprocess.run([*through, *WORDS, "kernel", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False)


@pytest.fixture
def leaves(tmp_path: Path) -> Iterator[Sequence[str]]:
    """The words of a command that leaves 2 MB of the kernel's memory behind: a file in memory; it ends with the test."""
    subprocess.run(["mount", "-t", "tmpfs", "leaktrace", str(tmp_path)], check=True)
    try:
        yield ("dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=65536", f"count={LEFT >> 16}", "status=none")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---- memleak's forms


@pytest.fixture
def busy() -> Iterator[None]:
    """Have the kernel make something all the time."""
    load = subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"])
    try:
        yield
    finally:
        load.kill()
        load.wait(PATIENCE)


@pytest.mark.usefixtures("busy")
def test_memleaks_command_line() -> None:
    """`leaktrace INTERVAL COUNT` traces the kernel and prints sites and stacks in memleak's form."""
    answer = run_tool("-a", "--wa-missing-free", "0.5", "1")
    assert answer.returncode == 0 and "tracing the kernel: slab, pages" in answer.stderr
    lines = answer.stdout.splitlines()
    (top,) = [at for at, line in enumerate(lines) if re.match(r"\[\d\d:\d\d:\d\d\] Top 10 stacks with outstanding", line)]
    for form in (r"\taddr = ffff[0-9a-f]{12} size = \d+", r"\t\d+ bytes in \d+ allocations from stack",
                 r"\t\t0x[0-9a-f]{16} \w+"):
        assert any(re.match(form, line) for line in lines[top:]), form


@pytest.mark.usefixtures("busy")
def test_memleaks_memory_per_processor() -> None:
    """`leaktrace --percpu` traces memory per processor, of which each process has some, and nothing else."""
    answer = run_tool("--percpu", "0.5", "1", "--format", "json", "-T", "1000")
    assert answer.returncode == 0 and "tracing the kernel: percpu;" in answer.stderr
    report = json.loads(answer.stdout)
    assert {site["source"] for site in report["sites"]} <= {"percpu"} and report["totals"]["allocated_count"] > 0


# ---- under a gate


@pytest.mark.parametrize(("options", "command", "code"), [
    ((), ("sh", "-c", "exit 5"), 5), (NEVER_TRUE, ("true",), 0), (NEVER_TRUE, ("sh", "-c", "exit 5"), 5),
    ((), ("sh", "-c", "kill -TERM $$"), 143), (NEVER_TRUE, ("no-such-command-here",), 3),
    ((*TRUE, "--error-exitcode", "77"), None, 77),
])  # fmt: skip
def test_exit_codes(leaves: Sequence[str], options: Sequence[str], command: Sequence[str] | None, code: int) -> None:
    """The command's own, 128 + the signal, what --error-exitcode says over budget, 3 where there is no such command."""
    answer = kernel(*options, "--", *(command or leaves))
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr and (code != 3 or "no-such-command-here" in answer.stderr)


def test_what_is_left_fails_the_run(leaves: Sequence[str], tmp_path: Path) -> None:
    """Over budget it ends in 23, and the report in the file says which site: that of the pages the command left."""
    path = tmp_path.parent / f"{tmp_path.name}.json"
    answer = kernel(*TRUE, "--format", "json", "--output", path, "--", *leaves)
    assert (answer.returncode, answer.stdout) == (23, ""), answer.stderr
    report = json.loads(path.read_text())
    assert report["judgement"]["exit_code"] == 23 and report["last"]
    mine = [site for site in report["sites"] if site["source"] == "pages" and site["kernel"]["serves"] is None
            and functions(site)[0].startswith("shmem_")
            and "dd" in [holder["comm"] for holder in site["kernel"]["processes"]]]
    assert sum(site["bytes"] for site in mine) >= LEFT
    assert any(site["outcome"] == "failed" and "bytes" in site["reason"] for site in mine)


@pytest.mark.parametrize(("arguments", "said"), [
    (TRUE, "--fail-on"), (("--",), "no command"), (("--fail-on", "bytes > 64k and nonsense", "--", "true"), "nonsense"),
    (("-p", "1", "--cgroup", "x"), "--cgroup"), (("-z", "10", "-Z", "5"), "-z 10"),
])  # fmt: skip
def test_wrong_usage(arguments: Sequence[str], said: str) -> None:
    """What contradicts itself ends in 2 with what is wrong, before anything is traced."""
    answer = kernel(*arguments)
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stderr
    assert said in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    """A signal sent to leaktrace is the command's, whose exit code it ends with."""
    script = f"import signal, time; signal.signal({int(number)}, lambda *_: exit(9)); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([*WORDS, "kernel", "--output", "/dev/null", "--", sys.executable, "-c", script], cwd=ROOT,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout
        assert Lines(process.stdout).next() == "up"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 9
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


# ---- where something is missing


def test_as_nobody() -> None:
    """A user without rights is told what to do, with the exit code of what cannot be traced."""
    answer = kernel("0.1", "1", through=NOBODY)
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "sudo" in answer.stderr and "Traceback" not in answer.stderr


def hiding(shell: str) -> tuple[str, ...]:
    """Return the words that run a command in a mount namespace of its own, after some commands of a shell."""
    return ("unshare", "--mount", "sh", "-e", "-c", f'{shell}; exec "$@"', "sh")


def test_without_tracefs(leaves: Sequence[str], tmp_path: Path) -> None:
    """Where tracefs is not mounted and may not be, it traces all the same, and flags are numbers, which elsewhere are words."""
    away = hiding("for at in /sys/kernel/tracing /sys/kernel/debug; do while umount $at 2>/dev/null; do :; done; done")
    path, words = tmp_path.parent / f"{tmp_path.name}.json", []
    for through in ((), (*away, "setpriv", "--bounding-set=-sys_admin", "--")):
        answer = kernel("--format", "json", "--output", path, "--", *leaves, through=through)
        assert answer.returncode == 0, answer.stderr
        words.append({word for site in json.loads(path.read_text())["sites"] for word in site["kernel"]["gfp"]})
    assert words[0] and all(re.match("_*GFP_", word) for word in words[0])
    assert words[1] and all(re.fullmatch("0x[0-9a-f]+", word) for word in words[1])


def test_without_addresses(tmp_path: Path) -> None:
    """Where the kernel hides its addresses (kptr_restrict), it says so and how to see them, and does not print nonsense."""
    hidden = tmp_path / "kallsyms"
    hidden.write_text("".join(f"0000000000000000 {line.split()[1]} {line.split()[2]}\n"
                              for line in Path("/proc/kallsyms").read_text().splitlines()[:3000]))
    answer = kernel("0.1", "1", through=hiding(f"mount --bind {hidden} /proc/kallsyms"))
    assert (answer.returncode, answer.stdout) == (3, ""), answer.stderr
    assert "kptr_restrict" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize("arguments", [("-p", "999999999"), ("--cgroup", "/no/such/group")])
def test_who_is_not_there(arguments: Sequence[str]) -> None:
    """A process or group that does not exist is named, and nothing is traced."""
    answer = kernel(*arguments, "0.1", "1")
    assert answer.returncode in (2, 3) and answer.stdout == ""
    assert arguments[1] in answer.stderr and "Traceback" not in answer.stderr


def test_a_group_of_version_1() -> None:
    """A group that the kernel side cannot tell is refused, and what can be named instead is said."""
    old = next((each for each in mounted() if each.version == 1), None)
    if old is None:
        # Then there is none that could be given.
        return
    answer = kernel("--cgroup", old.point, "0.1", "1")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "version 1" in answer.stderr and "-p" in answer.stderr


def test_it_ends_when_it_is_told() -> None:
    """Ctrl-C makes the last report and ends it well; -d does so by itself."""
    begun = time.monotonic()
    answer = kernel("--format", "json", "-d", "0.5", "60")
    assert answer.returncode == 0 and time.monotonic() - begun < PATIENCE / 2
    assert [json.loads(line)["last"] for line in answer.stdout.splitlines()] == [True]
    process = subprocess.Popen([*WORDS, "kernel", "--format", "json", "60"], cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr and process.stdout
    Lines(process.stderr).until(lambda line: "Ctrl-C" in line)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert json.loads(process.stdout.read())["last"]


