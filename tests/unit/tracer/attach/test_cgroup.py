"""Control groups found by what a user types, in trees of every version, and the processes in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.attach.cgroup import Cgroup, cgroup_of, descendants, find_cgroup, hierarchies, members
from tracer.errors import UsageError


class Machine:
    """A fake /proc and the hierarchies that it says are mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        self._lines = ["22 27 0:21 / /proc rw,relatime - proc proc rw",
                       f"31 23 0:28 / {folder} rw shared:9 - tmpfs tmpfs rw,mode=755"]
        self._write()

    def mount(self, name: str, options: str | None = None, root: str = "/") -> Path:
        """Mount version 2, or with options version 1, at a folder of that name."""
        point = self.folder / name
        point.mkdir(parents=True)
        escaped = str(point).replace(" ", r"\040")
        kind = "cgroup2 cgroup2 rw,nsdelegate" if options is None else f"cgroup cgroup rw,{options}"
        self._lines.append(f"41 31 0:{len(self._lines)} {root} {escaped} rw,nosuid shared:10 master:1 - {kind}")
        self._write()
        return add_group(point)

    def _write(self) -> None:
        (self.proc / "self/mountinfo").write_text("\n".join(self._lines) + "\n")

    def find(self, path: str) -> Cgroup:
        return find_cgroup(path, self.proc)


def add_group(folder: Path, *pids: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return folder


def group(folder: Path, path: str = "/", version: int = 2) -> Cgroup:
    return Cgroup(folder, path, version, folder.stat().st_ino)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with nothing mounted yet."""
    return Machine(tmp_path)


@pytest.mark.parametrize("typed", ["/system.slice/x.service", "system.slice/x.service", "{point}/system.slice/x.service",
                                   "system.slice/x.service/", "/system.slice/../system.slice//x.service"])
def test_each_way_to_write_it(machine: Machine, typed: str) -> None:
    """A path of the file system, and one within the hierarchy with and without a slash, all mean the same group."""
    point = machine.mount("cgroup")
    folder = add_group(point / "system.slice/x.service", 7)
    assert machine.find(typed.format(point=point)) == Cgroup(folder, "/system.slice/x.service", 2, folder.stat().st_ino)


def test_the_root_is_a_group(machine: Machine) -> None:
    """A lone slash is the root of the hierarchy, with everything in it."""
    point = machine.mount("cgroup")
    assert machine.find("/") == machine.find(str(point)) == group(point)


def test_a_mount_point_with_a_space(machine: Machine) -> None:
    """The octal escapes of mountinfo are undone."""
    folder = add_group(machine.mount("my groups") / "a")
    assert machine.find("/a").folder == folder


def test_version_2_comes_first(machine: Machine) -> None:
    """On a hybrid system a path within the hierarchy means version 2, whose id BPF programs see."""
    for name, options in (("systemd", "xattr,name=systemd"), ("memory", "memory")):
        add_group(machine.mount(name, options) / "a.slice", 1)
    folder = add_group(machine.mount("unified") / "a.slice", 1)
    assert machine.find("a.slice") == group(folder, "/a.slice")


def test_an_empty_group_stands_back(machine: Machine) -> None:
    """Where version 2 has the group but version 1 its processes, the one with the processes is meant."""
    add_group(machine.mount("unified") / "docker/c")
    folder = add_group(machine.mount("memory", "memory") / "docker/c", 5)
    assert machine.find("docker/c") == group(folder, "/docker/c", 1)


def test_a_path_of_the_file_system_is_taken_at_its_word(machine: Machine) -> None:
    """Who names a folder of version 1 gets that one, be there one of version 2 or not."""
    add_group(machine.mount("unified") / "a", 5)
    folder = add_group(machine.mount("pids", "pids") / "a")
    assert machine.find(str(folder)) == group(folder, "/a", 1)


def test_a_controller_before_the_path(machine: Machine) -> None:
    """The hierarchy that the first part names is preferred to memory, by its controllers or its mount point."""
    add_group(machine.mount("memory", "memory") / "a")
    folder = add_group(machine.mount("cpu,cpuacct", "cpu,cpuacct") / "a")
    for typed in ("/cpuacct/a", "cpu/a", "cpu,cpuacct/a"):
        assert machine.find(typed) == group(folder, "/a", 1)


def test_the_order_of_version_1(machine: Machine) -> None:
    """Of the hierarchies of version 1, memory goes before pids, and pids before the rest."""
    folders = [add_group(machine.mount(name, name) / "a") for name in ("devices", "pids", "memory")]
    assert [each.controllers for each in hierarchies(machine.proc)] == [("memory",), ("pids",), ("devices",)]
    assert machine.find("a").folder == folders[2]


def test_a_link_to_a_hierarchy(machine: Machine) -> None:
    """The link that distributions set for a controller leads to the hierarchy it shares."""
    point = machine.mount("cpu,cpuacct", "cpu,cpuacct")
    (machine.folder / "cpu").symlink_to(point)
    folder = add_group(point / "a")
    assert machine.find(f"{machine.folder}/cpu/a") == group(folder, "/a", 1)


def test_a_hierarchy_mounted_within_another(machine: Machine) -> None:
    """A folder below two mount points belongs to the inner one."""
    point = machine.mount("cgroup")
    folder = add_group(machine.mount("cgroup/net_cls", "net_cls") / "a")
    assert machine.find(f"{point}/net_cls/a") == group(folder, "/a", 1)


@pytest.mark.parametrize("typed", ["/docker/abc/web", "/web", "web"])
def test_inside_a_container(machine: Machine, typed: str) -> None:
    """Where the mount shows a part of the hierarchy, paths as in /proc/PID/cgroup and below the mount point both work."""
    folder = add_group(machine.mount("cgroup", root="/docker/abc") / "web")
    assert machine.find(typed) == group(folder, "/docker/abc/web")


def test_the_top_seen_from_inside_a_container(machine: Machine) -> None:
    """The own path of a container is its mount point."""
    point = machine.mount("cgroup", root="/docker/abc")
    assert machine.find("/docker/abc") == group(point, "/docker/abc")


@pytest.mark.parametrize("typed", ["/no.slice", "no.slice", "x\0y", "../../../../etc", "/etc", "{folder}", "{folder}/cgroup/no"])
def test_an_unknown_one(machine: Machine, typed: str) -> None:
    """What is no group is refused, with the places that were looked at; folders elsewhere are none."""
    point = machine.mount("cgroup")
    with pytest.raises(UsageError) as raised:
        machine.find(typed.format(folder=machine.folder))
    assert str(point) in raised.value.message
    assert raised.value.message.endswith(".")
    assert "systemd-cgls" in raised.value.remedy


def test_a_name_that_could_disturb_a_terminal(machine: Machine) -> None:
    """What was typed is made safe before it is shown."""
    machine.mount("cgroup")
    with pytest.raises(UsageError, match=r"x\\x1b\[2J"):
        machine.find("x\x1b[2J")


def test_many_places(machine: Machine) -> None:
    """Of many hierarchies a message names a few, and counts the rest."""
    for name in ("memory", "pids", "cpu", "devices", "freezer", "blkio"):
        machine.mount(name, name)
    with pytest.raises(UsageError, match="and 2 more"):
        machine.find("no.slice")


@pytest.mark.parametrize("typed", ["", " "])
def test_an_empty_name(machine: Machine, typed: str) -> None:
    """A shell variable that is not set must not mean the whole machine."""
    machine.mount("cgroup")
    with pytest.raises(UsageError, match="empty"):
        machine.find(typed)


def test_nothing_mounted(machine: Machine) -> None:
    """Without any hierarchy, the message says how to mount one; so it does without /proc."""
    for proc in (machine.proc, machine.folder / "no"):
        with pytest.raises(UsageError, match="mount -t cgroup2"):
            find_cgroup("a", proc)


def test_members_of_the_whole_tree(tmp_path: Path) -> None:
    """Processes of the group and of all below it count, each once, and those that no number here means do not."""
    top = add_group(tmp_path / "a", 30, 4)
    add_group(top / "b", 0, 5)
    add_group(top / "b/c", 4, 0)
    add_group(tmp_path / "other", 99)
    assert members(group(top)) == [4, 5, 30]


def reader(failures: dict[Path, int]) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        if path in failures:
            raise OSError(failures[path], os.strerror(failures[path]))
        return path.read_text()

    return read


def test_members_of_groups_of_threads(machine: Machine) -> None:
    """A threaded group refuses to name processes: those of its threads are told from /proc, unless they just ended."""
    top = add_group(machine.folder / "a", 4)
    below = add_group(top / "threads")
    (below / "cgroup.threads").write_text("10\n11\n12\n0\n")
    for thread, process in ((10, 9), (11, 9)):
        (machine.proc / str(thread)).mkdir()
        (machine.proc / str(thread) / "status").write_text(f"Name:\tTgid: 1\nUmask:\t0022\nTgid:\t{process}\nPid:\t{thread}\n")
    read = reader({below / "cgroup.procs": errno.EOPNOTSUPP})
    assert members(group(top), machine.proc, read) == [4, 9]
    both = reader({below / "cgroup.procs": errno.EOPNOTSUPP, below / "cgroup.threads": errno.ENODEV})
    assert members(group(top), machine.proc, both) == [4]


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENODEV])
def test_groups_that_vanish(tmp_path: Path, error: int) -> None:
    """A group that is removed while it is read has no members, and the others keep theirs."""
    top = add_group(tmp_path / "a", 4)
    add_group(top / "b", 5)
    assert members(group(top), read=reader({top / "b/cgroup.procs": error})) == [4]


def test_a_group_that_is_gone(tmp_path: Path) -> None:
    """A group that is no longer there is empty."""
    gone = Cgroup(tmp_path / "no", "/no", 2, 1)
    assert members(gone) == []
    assert descendants(gone) == []


def test_descendants(tmp_path: Path) -> None:
    """All groups below come with their paths and ids, parents first, the group itself not."""
    top = add_group(tmp_path / "top")
    folders = [add_group(top / name) for name in ("b", "b/c", "d")]
    (top / "link").symlink_to(tmp_path)
    assert descendants(group(top, "/top")) == [
        group(folder, f"/top/{name}") for name, folder in zip(("b", "b/c", "d"), folders, strict=True)]
    assert [each.path for each in descendants(group(top))] == ["/b", "/b/c", "/d"]


@pytest.mark.parametrize(("text", "paths"), [
    ("0::/user.slice/a.scope\n", ("/user.slice/a.scope",)),
    ("9:name=systemd:/s\n4:memory:/m\n3:cpu,cpuacct:/s\n0::/\n", ("/", "/s", "/m")),
    ("4:memory:/m\n", ("/m",)),
    ("0::/a/x:y:z\n", ("/a/x:y:z",)),
    ("0::/a.scope (deleted)\n", ("/a.scope",)),
    ("0::/a\x0bb\u2028c\n", ("/a\x0bb\u2028c",)),
    ("", ()),
    ("nonsense\n", ()),
])  # fmt: skip
def test_the_groups_of_a_process(tmp_path: Path, text: str, paths: tuple[str, ...]) -> None:
    """Every path of /proc/PID/cgroup is given once, that of version 2 first."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_bytes(text.encode())
    assert cgroup_of(7, tmp_path) == paths


def test_the_groups_of_a_process_that_is_gone(tmp_path: Path) -> None:
    """A process that has ended is in no group."""
    assert cgroup_of(7, tmp_path) == ()


def test_on_this_machine() -> None:
    """The kernel's own files are understood: this process is a member of the group that its path leads to."""
    paths = cgroup_of(os.getpid())
    assert paths
    assert all(path.startswith("/") for path in paths)
    try:
        mounted = hierarchies()
    except UsageError:
        pytest.skip("no hierarchy of control groups is mounted")
    found = find_cgroup(paths[0])
    assert found.folder.is_dir()
    if mounted[0].version == 2 or len(paths) == 1:
        assert os.getpid() in members(found)
