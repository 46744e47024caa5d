"""Control groups: find one by what a user types, and say which processes are in it (cgroups(7))."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from symbolizer.printable import printable
from tracer.attach.target import PROC
from tracer.errors import UsageError

#: Hierarchies of version 1 in which a group is looked for first: those that services and containers always get.
_FIRST = ("memory", "pids")
#: Mount points that a message names.
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A tree of control groups that is mounted.

    `root` is the group that lies at the mount point, as in /proc/PID/cgroup: not "/" inside a container.
    """

    point: Path
    root: str
    version: int
    controllers: tuple[str, ...] = ()

    def group(self, path: str) -> Cgroup | None:
        """Return its group of that path below the mount point, None if there is none."""
        # normpath() of an absolute path takes every ".." away: none leads out of the mount point.
        below = os.path.normpath(f"/{path.strip('/')}")
        folder = self.point / below[1:]
        try:
            if not folder.is_dir():
                return None
            number = folder.stat().st_ino
        except (OSError, ValueError):
            return None
        whole = os.path.normpath(self.root + below) if self.root != "/" else below
        return Cgroup(folder, whole, self.version, number)

    def below_root(self, path: str) -> str | None:
        """Return the part below the mount point of a path as in /proc/PID/cgroup, None where it is not mounted."""
        root = self.root.rstrip("/")
        return path[len(root):] if path == root or path.startswith(f"{root}/") else None


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A control group.

    `path` is that of /proc/PID/cgroup. `id` is the inode number of its folder, which from Linux 5.5 on is what
    bpf_get_current_cgroup_id() returns (commit 40430452fd5d), for version 2 only: that helper knows no other.
    """

    folder: Path
    path: str
    version: int
    id: int


def hierarchies(proc: Path = PROC) -> list[Hierarchy]:
    """Return what is mounted, the ones to prefer first: version 2, memory, pids, any. Raises UsageError for nothing."""
    try:
        # Bytes that are no line end in a mount point are written in octal (proc_pid_mountinfo(5)).
        lines = os.fsdecode((proc / "self/mountinfo").read_bytes()).split("\n")
    except OSError:
        lines = []
    found = [mount for mount in map(_parse_mount, lines) if mount is not None]
    if not found:
        raise UsageError("No hierarchy of control groups is mounted.",
                         "Mount one with: mount -t cgroup2 none /sys/fs/cgroup")
    return sorted(found, key=_preference)


def find_cgroup(path: str, proc: Path = PROC) -> Cgroup:
    """Return the group of a path, in the file system or within a hierarchy. Raises UsageError if there is none.

    A path of the file system means that very folder. One within a hierarchy is looked for in version 2, then in the
    hierarchy that its first part names ("memory/a.slice"), then in the others; a group that is empty stands back for
    one of the same path with processes, because a hybrid system uses version 2 for some of its groups only.
    """
    if not path.strip("/ "):
        if "/" not in path:
            raise UsageError("The name of the control group is empty.", "List those there are with: systemd-cgls")
        path = "/"
    mounted = hierarchies(proc)
    if (exact := _by_folder(path, mounted)) is not None:
        return exact
    found = _candidates(path, mounted)
    if not found:
        points = [printable(str(each.point)) for each in mounted]
        more = f" and {len(points) - _MOST_NAMED} more" if len(points) > _MOST_NAMED else ""
        raise UsageError(
            f"There is no control group {printable(path)} in {', '.join(points[:_MOST_NAMED])}{more}.",
            "List those there are with: systemd-cgls")
    return next((group for group in found if members(group, proc)), found[0])


def descendants(group: Cgroup) -> list[Cgroup]:
    """Return all groups below one, parents before children."""
    found = []
    for folder in _folders(group.folder):
        if folder == group.folder:
            continue
        try:
            number = folder.stat().st_ino
        except OSError:
            continue
        path = f"{group.path.rstrip('/')}/{folder.relative_to(group.folder)}"
        found.append(Cgroup(folder, path, group.version, number))
    return found


def members(group: Cgroup, proc: Path = PROC, read: Callable[[Path], str] = Path.read_text) -> list[int]:
    """Return the ids of the processes in a group and in all below it, ascending; of what ends meanwhile, none."""
    found: set[int] = set()
    for folder in _folders(group.folder):
        try:
            found.update(_numbers(read(folder / "cgroup.procs")))
        except OSError as error:
            # Groups of threads do not say their processes (Documentation/admin-guide/cgroup-v2.rst, "Threads").
            if error.errno == errno.EOPNOTSUPP:
                found.update(_processes_of_threads(folder, proc, read))
    # A process of a pid namespace that is not visible here has the number 0.
    return sorted(found - {0})


def cgroup_of(pid: int, proc: Path = PROC) -> tuple[str, ...]:
    """Return the paths of a process's groups, each once, that of version 2 first; nothing once it is gone."""
    try:
        text = os.fsdecode((proc / str(pid) / "cgroup").read_bytes())
    except OSError:
        return ()
    # A name may hold what splitlines() takes for the end of a line, but no newline.
    lines = [line.split(":", 2) for line in text.split("\n") if line.count(":") >= 2]
    # "0::/path" is version 2; its path ends so once the folder is removed (cgroup-v2.rst, "Processes").
    second = [fields[2].removesuffix(" (deleted)") for fields in lines if fields[:2] == ["0", ""]]
    return tuple(dict.fromkeys([*second, *(fields[2] for fields in lines if fields[:2] != ["0", ""])]))


def _parse_mount(line: str) -> Hierarchy | None:
    """Return the hierarchy of a line of proc_pid_mountinfo(5), None if it mounts something else."""
    before, separator, after = line.partition(" - ")
    fields, kind = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
        return None
    point, root = Path(_unescape(fields[4])), _unescape(fields[3])
    if kind[0] == "cgroup2":
        return Hierarchy(point, root, 2)
    options = (option.removeprefix("name=") for option in kind[2].split(","))
    return Hierarchy(point, root, 1, tuple(option for option in options if option not in ("rw", "ro", "xattr")))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _preference(mount: Hierarchy) -> tuple[int, int, bool]:
    rank = next((place for place, name in enumerate(_FIRST) if name in mount.controllers), len(_FIRST))
    # Of several mounts of one hierarchy, the whole one.
    return -mount.version, rank, mount.root != "/"


def _by_folder(path: str, mounted: list[Hierarchy]) -> Cgroup | None:
    """Return the group of an absolute path in the file system."""
    if not path.startswith("/"):
        return None
    try:
        # /sys/fs/cgroup/cpu is often a link to cpu,cpuacct.
        real = Path(os.path.realpath(path))
    except ValueError:
        return None
    holders = [mount for mount in mounted if real.is_relative_to(mount.point)]
    if not holders:
        return None
    # Hierarchies may be mounted inside each other: the innermost holds the folder.
    holder = max(holders, key=lambda mount: len(mount.point.parts))
    return holder.group(str(real.relative_to(holder.point)))


def _candidates(path: str, mounted: list[Hierarchy]) -> list[Cgroup]:
    """Return the groups of a path within a hierarchy, the preferred ones first."""
    name, _, rest = path.strip("/").partition("/")
    named = [mount for mount in mounted if mount.version == 1 and name in (*mount.controllers, mount.point.name)]
    newest = [mount for mount in mounted if mount.version == 2]
    tries = [
        *((mount, path) for mount in newest),
        *((mount, rest) for mount in named),
        *((mount, path) for mount in mounted if mount.version == 1),
    ]
    found = []
    for mount, text in tries:
        below = mount.below_root(f"/{text.lstrip('/')}")
        ways = [text] if below is None else [below, text]
        found += [group for group in map(mount.group, dict.fromkeys(ways)) if group is not None]
    return found


def _folders(top: Path) -> list[Path]:
    """Return a folder and all below it, parents before children; os.walk() passes over what vanishes."""
    found = []
    for folder, names, _ in os.walk(top):
        names.sort()
        found.append(Path(folder))
    return found


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def _processes_of_threads(folder: Path, proc: Path, read: Callable[[Path], str]) -> set[int]:
    """Return the processes to which the threads of a group belong (Tgid of proc_pid_status(5))."""
    try:
        threads = _numbers(read(folder / "cgroup.threads"))
    except OSError:
        return set()
    found = set()
    for thread in threads:
        try:
            status = (proc / str(thread) / "status").read_bytes()
        except OSError:
            continue
        if match := re.search(rb"^Tgid:\s*(\d+)$", status, re.MULTILINE):
            found.add(int(match[1]))
    return found
