"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PEERS = ("bpfcc-tools", "bpftrace", "valgrind", "heaptrack", "redis-server", "perl", "python3", "libc6", "libjemalloc2")


def describe(leaktrace: Path, headers: str) -> dict[str, object]:
    """Return the machine's facts and the versions of everything that was measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in cpuinfo,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": os.uname().release,
        "distribution": _distribution(),
        "kernel_headers": headers,
        "load_before": round(os.getloadavg()[0], 2),
        "leaktrace": _leaktrace_version(leaktrace),
        "packages": _package_versions(),
    }


def text(machine: Mapping[str, object]) -> str:
    """Return the machine as lines for a terminal."""
    return "\n".join(f"  {name.replace('_', ' '):<15} {_flat(value)}" for name, value in machine.items())


def _flat(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")


def _leaktrace_version(leaktrace: Path) -> str:
    if not shutil.which(str(leaktrace)):
        return f"absent: {leaktrace.name} is not there or not executable"
    try:
        done = subprocess.run([str(leaktrace), "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip() or "unknown"


def _package_versions() -> dict[str, str]:
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PEERS]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)
