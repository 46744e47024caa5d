"""Says what would bring the names that a report lacks: a package with debug symbols, a way to build or to start."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from symbolizer.printable import printable

#: Runs a command and returns what it wrote to standard output, None if it failed.
Runner = Callable[[Sequence[str]], str | None]

TIME_OUT_S: Final = 2.0
#: Objects that a closing line names; the others are counted.
MOST_NAMED: Final = 4
#: Debian makes debug packages by itself, named after the package; a few are made by hand.
_DEBIAN_OWN_NAMES: Final[Mapping[str, str]] = {"libc6": "libc6-dbg"}
#: How a runtime writes down the names of the code it makes: name of the executable's file → what to do.
_RUNTIMES: Final = (
    (re.compile(r"node(?:js)?[0-9.]*"), "start node with --perf-basic-prof --interpreted-frames-native-stack"),
    (
        re.compile(r"java"),
        "start java with -XX:+PreserveFramePointer, and run jcmd PID Compiler.perfmap before the report",
    ),
    (re.compile(r"python(?:3[0-9.]*)?"), "start python 3.12 or later with -X perf"),
)
_DPKG_LINE = re.compile(r"([a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?(?:, [a-z0-9][a-z0-9+.:-]*)*): (/.*)")
_RPM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
# Where a merged /usr puts what packages may still name by the old path, and the other way round.
_MERGED = re.compile(r"(?:/usr)?(/(?:lib|lib32|lib64|libx32|bin|sbin)/.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Remedy:
    """How to get the names of one object: the package of its debug symbols and the command that installs it."""

    package: str
    command: str
    archive_needed: bool
    """Whether it is in the distribution's archive of debug symbols, which apt does not ask unless it was added."""


@dataclass(frozen=True, slots=True)
class ObjectLack:
    """What one object lacks, in how many frames. path is None for code that no file holds; package: Remedy.package."""

    path: str | None
    build_id: str | None
    lacks: Literal["symbols", "lines", "split"]
    frames: int
    package: str | None = None


def run(command: Sequence[str]) -> str | None:
    """Return what a command writes to standard output within TIME_OUT_S, None if it fails or is not installed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            timeout=TIME_OUT_S,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


class Packages:
    """Asks the package managers of this machine, each path once."""

    def __init__(self, runner: Runner = run, real_path: Callable[[str], str] = os.path.realpath) -> None:
        """Ask through the runner; real_path follows symbolic links."""
        self._run = runner
        self._real_path = real_path
        self._found: dict[str, Remedy | None] = {}

    def remedy(self, path: str, build_id: str | None = None) -> Remedy | None:
        """Return what to install for an object in this machine's root folder; None if no package has it.

        The path is the answer's key; the build id does not matter to dpkg and rpm, which keep one version of a file.
        """
        if not path.startswith("/") or "\0" in path:
            return None
        if path not in self._found:
            self._found[path] = self._ask(path)
        return self._found[path]

    def _ask(self, path: str) -> Remedy | None:
        for name in _names(self._real_path(path), path):
            owner = _dpkg_owner(self._run(("dpkg-query", "--search", "--", _literally(name))), name)
            if owner is not None:
                own = _DEBIAN_OWN_NAMES.get(owner)
                package = own or (owner if owner.endswith(("-dbg", "-dbgsym")) else f"{owner}-dbgsym")
                return Remedy(package, f"apt install {package}", archive_needed=package.endswith("-dbgsym"))
        name = (self._run(("rpm", "-qf", "--qf", "%{NAME}\\n", "--", path)) or "").partition("\n")[0].strip()
        if _RPM_NAME.fullmatch(name):
            return Remedy(f"{name}-debuginfo", f"dnf debuginfo-install {name}", archive_needed=False)
        return None


def _names(*paths: str) -> list[str]:
    """Return the paths by which packages may know the files, in the order of the paths."""
    names = []
    for name in paths:
        names.append(name)
        if merged := _MERGED.fullmatch(name):
            names += [merged[1], f"/usr{merged[1]}"]
    return list(dict.fromkeys(names))


def _literally(path: str) -> str:
    """Return a pattern for dpkg that only fits this path (dpkg-query(1): * ? [ and the backslash are special)."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def _dpkg_owner(answer: str | None, path: str) -> str | None:
    """Return the package without its architecture, from lines such as `libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6`.

    Lines about a diversion name the package that moved another one's file, not the owner of what lies there.
    """
    for line in (answer or "").splitlines():
        found = _DPKG_LINE.fullmatch(line)
        if found is not None and found[2] == path:
            return found[1].partition(",")[0].partition(":")[0]
    return None


def closing_line(
    objects: Sequence[ObjectLack], *, runtime: str | None = None, lacks: Sequence[str] = ("symbols",)
) -> str | None:
    """Return one line that says where names are missing and what brings them, None if nothing is worth it.

    `runtime` is the name of the target's executable; `lacks` are the kinds of lack that count.
    """
    counted = sorted(
        (lack for lack in objects if lack.lacks in lacks and lack.frames > 0),
        key=lambda lack: (-lack.frames, lack.path or ""),
    )
    if not counted:
        return None
    files = [lack for lack in counted if not _is_made_at_run_time(lack.path)]
    made = len(files) < len(counted)
    frames = sum(lack.frames for lack in counted)
    places = [*dict.fromkeys(_base_name(lack.path) for lack in files[:MOST_NAMED])]
    if len(files) > MOST_NAMED:
        places.append(f"{len(files) - MOST_NAMED} more")
    if made:
        places.append("code made at run time")
    what = "names" if "symbols" in {lack.lacks for lack in counted} else "source lines"
    remedies = [*_file_remedies(files[:MOST_NAMED])]
    if made and (how := _runtime_remedy(runtime)):
        remedies.append(how)
    text = f"No {what} for {frames} frame{'s' * (frames != 1)} in {_listed(places)}"
    return f"{text} ({'; or '.join(remedies)})" if remedies else text


def _file_remedies(files: Sequence[ObjectLack]) -> list[str]:
    if not files:
        return []
    packages = dict.fromkeys(printable(lack.package) for lack in files if lack.package)
    own = [lack for lack in files if not lack.package]
    remedies = [f"install {', '.join(packages)}"] if packages else []
    if any(package.endswith("-dbgsym") for package in packages):
        remedies[0] += " from the distribution's debug archive"
    if packages and any(lack.package and lack.build_id for lack in files):
        remedies.append("set DEBUGINFOD_URLS")
    if own:
        which = "it" if len(files) == 1 else "your own"
        remedies.append(f"build {which} with -g, or keep the .debug file")
    return remedies


def _runtime_remedy(runtime: str | None) -> str | None:
    name = (runtime or "").rpartition("/")[2]
    return next((how for pattern, how in _RUNTIMES if pattern.fullmatch(name)), None)


def _is_made_at_run_time(path: str | None) -> bool:
    """Return whether no file holds the code: no name, [anon:...], memfd and other files that have no folder."""
    return not path or path.startswith(("[anon", "//anon", "/memfd:", "anon_inode:", "/dev/zero"))


def _base_name(path: str | None) -> str:
    return printable((path or "").rpartition("/")[2])


def _listed(places: Sequence[str]) -> str:
    if len(places) > 1 and places[-1].endswith((" more", "run time")):
        return f"{', '.join(places[:-1])} and {places[-1]}"
    return ", ".join(places)
