"""Roots: small systems of other releases, in which what belongs to them is built, as their programs need their libc."""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from kernels.packages import CACHE, command
from kernels.suites import OS_RELEASE, Suite, archives_of, host_archives, host_release

#: What builds a kernel's modules there.
BUILDERS = ("gcc", "make", "libelf-dev")
#: The release that has a BCC.
BCC_RELEASES = {"0.31": "trixie"}
#: What the tests on other kernels need there.
TESTERS = ("python3-bpfcc", "python3-venv", "gcc", "g++", "libc6-dev", "libc6-dbg", "binutils", "procps", "kmod",
           "sudo", "ca-certificates")  # fmt: skip


def is_host(suite: Suite) -> bool:
    """Whether this machine is of the release that a suite belongs to."""
    return host_release(OS_RELEASE.read_text()) == suite.release


def root(suite: Suite, name: str = "build", packages: Sequence[str] = BUILDERS, cache: Path = CACHE) -> Path:
    """Return a folder with the release's base system and packages, made the first time; Failure if it cannot be had."""
    (cache / "roots").mkdir(parents=True, exist_ok=True)
    folder = cache / "roots" / f"{suite.release}-{name}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_suffix(".new")
            shutil.rmtree(making, ignore_errors=True)
            address, _ = archives_of(host_release(OS_RELEASE.read_text()), host_archives())
            command(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite.release, str(making),
                     address])  # fmt: skip
            shutil.rmtree(making / "var/cache/apt", ignore_errors=True)
            making.rename(folder)
    return folder


def run_inside(folder: Path, words: Sequence[str], seen: Sequence[Path]) -> str:
    """Run a program in a root, which sees folders of this machine at their own paths; return what it prints.

    The mounts are in a namespace of their own, and gone with it. Failure if the program fails.
    """
    binds = []
    # objtool of 7.3 looks up its own limits in /proc.
    for place in (Path("/proc"), *seen):
        inside = folder / str(place).lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        binds.append(f"mount --bind {shlex.quote(str(place))} {shlex.quote(str(inside))}")
    script = " && ".join([*binds, f"exec chroot {shlex.quote(str(folder))} {shlex.join(words)}"])
    return command(["unshare", "--mount", "sh", "-c", script])


def with_bcc(version: str, checkout: Path) -> tuple[Path, Path]:
    """Return a root with this BCC, and the folder in it of an environment with what the checkout's project needs."""
    folder = root(Suite(version, BCC_RELEASES[version]), "bcc", TESTERS)
    text = (checkout / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    environment = Path("/opt", f"leaktrace-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    inside = folder / str(environment).lstrip("/")
    with (folder.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (inside / "complete").exists():
            wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
            run_inside(folder, ["/usr/bin/python3", "-m", "venv", "--clear", "--system-site-packages",
                                str(environment)], [])  # fmt: skip
            asked = "import platform; print(*platform.python_version_tuple()[:2], sep='.', end='')"
            python = run_inside(folder, ["/usr/bin/python3", "-c", asked], [])
            # Fetched out here: proxies, certificates, folders that this machine's pip is told of are not in the root.
            command(fetch_words(python, inside / "wheels", wanted))
            run_inside(folder, [f"{environment}/bin/python", "-m", "pip", "install", "--quiet", "--no-index",
                                f"--find-links={environment}/wheels", *wanted], [])  # fmt: skip
            (inside / "complete").touch()
    return folder, environment


def fetch_words(python: str, place: Path, wanted: Sequence[str]) -> list[str]:
    """Return the command that fetches packages for a Python of another version, and of a libc of at most 2.36."""
    words = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
             "--only-binary=:all:", f"--python-version={python}", f"--dest={place}"]  # fmt: skip
    tags = ["any", "linux_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    tags += [f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)]
    return [*words, *(f"--platform={tag}" for tag in tags), *wanted]
