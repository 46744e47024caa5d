"""leaktrace doctor on this machine: as root, as nobody, and where something was taken away."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, ROOT
from tracer.attach import bpf_trials
from tracer.attach.doctor_process import try_access
from tracer.attach.kernel import choose_attach_way

WORDS = (sys.executable, "-m", "tracer.cli", "doctor")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


def doctor(*options: str, through: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, started by the words of through."""
    return subprocess.run([*through, *WORDS, *options], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
                          check=False, env={**os.environ, "LC_ALL": "C.UTF-8", **environment})


def needs(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of the JSON by id."""
    document = json.loads(answer.stdout)
    assert document["schema"] == "leaktrace-doctor/1"
    return {row["need"]: row for row in document["needs"]}


def test_as_root() -> None:
    """What live tests depend on is found, and the verdict agrees with what a trace would do."""
    answer = doctor("--format", "json")
    assert (answer.returncode, answer.stderr) == (0, "")
    found = needs(answer)
    for need in ("capabilities", "ring_buffer", "mapped_arrays", "batches", "python", "packages", "bcc", "ptrace",
                 "process_vm_readv"):
        assert found[need]["status"] == "ok", found[need]
    assert found["btf"]["status"] == ("ok" if Path("/sys/kernel/btf/vmlinux").exists() else "missing")
    has_kprobes = Path("/sys/bus/event_source/devices/kprobe").exists()
    assert (found["kprobes"]["status"] == "missing") is not has_kprobes
    assert json.loads(answer.stdout)["can_trace"]["user"] == choose_attach_way().value


def test_as_nobody() -> None:
    """A user without rights is told so and what to do, not a traceback, with the exit code of what cannot be traced."""
    answer = doctor(through=NOBODY)
    assert (answer.returncode, answer.stderr) == (3, "")
    assert "can trace nothing as it is" in answer.stdout and "not root (uid 65534)" in answer.stdout
    assert "sudo leaktrace doctor" in answer.stdout and "Traceback" not in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 80
    found = needs(doctor("--format", "json", through=NOBODY))
    assert found["capabilities"]["status"] == "missing" and found["ring_buffer"]["status"] == "unknown"


def test_without_tracefs() -> None:
    """Where nobody mounted it, it is missing, how to mount it is said, and it stays unmounted."""
    hide = ("unshare", "--mount", "sh", "-c",
            "for place in /sys/kernel/tracing /sys/kernel/debug; do while umount $place 2>/dev/null; do :; done; done; "
            '"$@"; code=$?; [ ! -e /sys/kernel/tracing/events ] || code=99; exit $code', "sh")
    answer = doctor("--format", "json", through=hide)
    assert answer.returncode == 0, answer.stderr
    row = needs(answer)["tracefs"]
    assert row["status"] == "missing" and "mount -t tracefs tracefs /sys/kernel/tracing" in row["remedy"]


def test_without_packages() -> None:
    """Where Python packages are absent it still runs, and names them."""
    script = ("import sys; sys.modules.update(numpy=None, elftools=None, symbolic=None, bcc=None); "
              "from tracer.cli import main; sys.exit(main(['doctor', '--format', 'json']))")
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
                            check=False)
    assert answer.returncode == 3, answer.stderr
    found = needs(answer)
    assert found["packages"]["found"] == "not there: pyelftools, numpy, symbolic" and found["bcc"]["status"] == "missing"


def test_it_changes_nothing(tmp_path: Path) -> None:
    """No mount, no probe by name, no setting and no cached file is there afterwards that was not before."""
    def state() -> list[str]:
        places = ("/proc/self/mountinfo", "/sys/kernel/tracing/uprobe_events", "/proc/sys/kernel/kptr_restrict",
                  "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/kernel/perf_event_paranoid")
        return [Path(place).read_text() for place in places if Path(place).exists()]

    before = state()
    assert doctor(LEAKTRACE_CACHE=str(tmp_path)).returncode == 0
    assert state() == before and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trial", [
    bpf_trials.ring_buffer, bpf_trials.mapped_array, bpf_trials.batch_lookup, bpf_trials.compare_and_swap,
    bpf_trials.cookies, bpf_trials.kernel_reads, bpf_trials.raw_tracepoint, bpf_trials.perf_event_of_all,
    bpf_trials.map_beyond_memlock, bpf_trials.machine_code_bytes,
    lambda: bpf_trials.kprobe(bpf_trials.QUIET_FUNCTION), lambda: bpf_trials.fentry(1),
])
def test_a_trial_lets_go(trial: Callable[[], object]) -> None:
    """No open file, by which the kernel would keep what was tried, is left, nor a lowered limit, whether it works or not."""
    before = set(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with suppress(OSError):
        trial()
    assert (set(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_MEMLOCK)) == before


def test_a_function_that_does_not_exist() -> None:
    """A trampoline for a type that is no function is refused, so that the trial tells something."""
    with pytest.raises(OSError):
        bpf_trials.fentry(1)


def test_it_is_quick() -> None:
    """It answers soon enough that nobody hesitates to ask; the bound leaves room for a busy machine."""
    doctor()
    begun = time.monotonic()
    doctor()
    assert time.monotonic() - begun < 3


def test_strangers_are_told_from_relatives() -> None:
    """Root may seize and read; no child is left of the trial."""
    assert try_access() == (True, True)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert not children.exists() or all(
        "Z" not in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1] for pid in children.read_text().split())
