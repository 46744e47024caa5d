"""Limits, usage, events and stalls of control groups, from folders that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach.pressure import memory_groups, parse_events, parse_size, parse_stall, read_pressure

MB = 1 << 20


def make(root: Path, kind: str, cgroup: str, groups: dict[str, dict[str, str]]) -> Path:
    """Make a /proc with one process, 7, and a hierarchy with these groups' files; return the /proc."""
    proc, point = root / "proc", root / "cg"
    (proc / "self").mkdir(parents=True)
    (proc / "7").mkdir()
    options = "rw,memory" if kind == "cgroup" else "rw"
    (proc / "self/mountinfo").write_text(f"1 2 0:3 / {point} rw - {kind} none {options}\n")
    (proc / "7/cgroup").write_text(cgroup)
    for path, files in groups.items():
        folder = point / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    return proc


def test_the_closest_limit_counts(tmp_path: Path) -> None:
    """Of the group's own limit and those above, the one with the least left is shown, with what stands there."""
    proc = make(tmp_path, "cgroup2", "0::/app.slice/web\n", {
        "app.slice": {"memory.current": f"{90 * MB}", "memory.max": f"{100 * MB}", "memory.high": "max",
                      "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n",
                      "memory.pressure": "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.50 avg60=0\n"},
        "app.slice/web": {"memory.current": f"{20 * MB}", "memory.max": f"{60 * MB}", "memory.high": f"{50 * MB}"},
    })
    found = read_pressure(7, proc)
    assert found is not None
    assert (found.path, found.usage, found.limit, found.kind) == ("/app.slice", 90 * MB, 100 * MB, "memory.max")
    assert (found.events, found.stall) == ((("oom_kill", 1), ("oom", 2), ("max", 3)), 1.25)


def test_memory_high_limits_too(tmp_path: Path) -> None:
    """memory.high slows a group down before memory.max ends it, so the smaller of the two is the limit."""
    proc = make(tmp_path, "cgroup2", "0::/web\n", {
        "web": {"memory.current": "5", "memory.max": f"{60 * MB}", "memory.high": f"{50 * MB}"}})
    found = read_pressure(7, proc)
    assert found is not None and (found.limit, found.kind) == (50 * MB, "memory.high")


def test_version_1(tmp_path: Path) -> None:
    """The memory hierarchy of version 1 gives its limit, usage and failures; "no limit" there is a huge number."""
    files = {"memory.usage_in_bytes": "10", "memory.limit_in_bytes": "9223372036854771712", "memory.failcnt": "0",
             "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"}
    proc = make(tmp_path, "cgroup", "4:memory:/job\n0::/\n", {"": files, "job": files | {"memory.failcnt": "6"}})
    found = read_pressure(7, proc)
    assert found is not None
    assert (found.path, found.usage, found.limit, found.events) == ("/job", 10, None, (("oom_kill", 4), ("max", 6)))
    (tmp_path / "cg/job/memory.limit_in_bytes").write_text(str(MB))
    limited = read_pressure(7, proc)
    assert limited is not None and (limited.limit, limited.kind) == (MB, "memory.limit_in_bytes")


def test_nothing_counts_its_memory(tmp_path: Path) -> None:
    """Without a group that counts memory, or without the process, there is nothing to say."""
    proc = make(tmp_path, "cgroup2", "0::/web\n", {"web": {}})
    assert read_pressure(7, proc) is None and read_pressure(8, proc) is None


@pytest.mark.parametrize(("text", "size"), [(b"max\n", None), (b"4096\n", 4096), (b"", None), (b"-1", None),
                                            (b"9" * 30, None), (b"0\n", 0)])
def test_sizes(text: bytes, size: int | None) -> None:
    """A number is a size; "max", nothing, and what no memory has are none."""
    assert parse_size(text) == size


def test_garbage_says_nothing() -> None:
    """Texts of another form give no events, no stall and no groups."""
    assert (parse_events(b"oom x\n\xff 3\n"), parse_stall(b"full avg10=3.00 "), memory_groups(b"junk\n1:x\n")) == ((), None, [])
