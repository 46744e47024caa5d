"""What a run needs from the machine, and what is taken back afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.child import Failure

PACKAGES = (
    "bpfcc-tools",
    "linux-headers-amd64",
    "bpftrace",
    "valgrind",
    "heaptrack",
    "redis-server",
    "redis-tools",
    "perl",
    "python3",
    "gcc",
    "libc6-dev",
)
TRACEFS = Path("/sys/kernel/tracing")


def missing_packages() -> list[str]:
    """Return which of PACKAGES dpkg does not call installed."""
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in installed]


def install_peers() -> str | None:
    """Install what is absent; return what went wrong, or None."""
    absent = missing_packages()
    if not absent:
        return None
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "--no-install-recommends", "-y", *absent],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"could not install {' '.join(absent)}: {done.stderr.strip().splitlines()[-1:]}"
    return None


@contextlib.contextmanager
def kernel_headers() -> Iterator[str]:
    """Let memleak find kernel headers: links from the running kernel's folder to Debian's, removed at the end.

    Yields a sentence that says which headers BCC reads. They may be of another version than the kernel; memleak reads
    nothing from them that differs.
    """
    folder = Path("/lib/modules", os.uname().release)
    made_folder = not folder.exists()
    made: list[Path] = []
    try:
        if (folder / "build").exists():
            yield f"{folder}/build"
            return
        folder.mkdir(parents=True, exist_ok=True)
        targets = (("build", "linux-headers-*-amd64"), ("source", "linux-headers-*-common"))
        for name, pattern in targets:
            found = sorted(Path("/usr/src").glob(pattern))
            if found and not (folder / name).is_symlink():
                (folder / name).symlink_to(found[-1])
                made.append(folder / name)
        yield ", ".join(f"{link} -> {link.readlink()}" for link in made) or "none found in /usr/src"
    finally:
        for link in made:
            link.unlink(missing_ok=True)
        if made_folder and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


@contextlib.contextmanager
def mounted_tracefs() -> Iterator[None]:
    """Mount tracefs where it is absent, because BCC and bpftrace detach through it; unmount it at the end."""
    mount = not (TRACEFS / "uprobe_events").exists()
    if mount:
        mount = subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACEFS)], check=False).returncode == 0
    try:
        yield
    finally:
        if mount:
            subprocess.run(["umount", str(TRACEFS)], capture_output=True, check=False)


def compile_programs(sources: Path, scratch: Path) -> None:
    """Build tests/programs/bench_*.c into the scratch folder: bench_x.c becomes x, bench_count.c becomes count.so."""
    for source in sorted(sources.glob("bench_*.c")):
        name = source.stem.removeprefix("bench_")
        shared = name == "count"
        output = scratch / (f"{name}.so" if shared else name)
        command = ["gcc", "-O2", "-o", str(output), str(source), *(["-shared", "-fPIC"] if shared else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"gcc could not build {source.name}: {done.stderr.strip()}")
