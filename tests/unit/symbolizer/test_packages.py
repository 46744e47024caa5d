import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from symbolizer.packages import ObjectLack, Packages, Remedy, closing_line, run

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"


class Machine:
    """Answers like a machine with these files; counts what it was asked."""

    def __init__(self, dpkg: dict[str, str] | None = None, rpm: dict[str, str] | None = None) -> None:
        self.dpkg, self.rpm = dpkg, rpm
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> str | None:
        self.asked.append(tuple(command))
        table = self.dpkg if command[0].startswith("dpkg") else self.rpm
        return (table or {}).get(command[-1])


def _remedy(path: str, machine: Machine, real: str | None = None) -> Remedy | None:
    return Packages(machine, lambda _: real or path).remedy(path)


@pytest.mark.parametrize(
    ("answer", "package", "archive_needed"),
    [
        (f"libc6:amd64: {LIBC}\n", "libc6-dbg", False),
        (f"libfoo1: {LIBC}\n", "libfoo1-dbgsym", True),
        (f"libfoo1:amd64, libfoo1:i386: {LIBC}\n", "libfoo1-dbgsym", True),
        (f"libfoo1-dbg: {LIBC}\n", "libfoo1-dbg", False),
        (f"diversion by dash from: {LIBC}\ndiversion by dash to: {LIBC}.distrib\nfoo: {LIBC}\n", "foo-dbgsym", True),
        (f"other: {LIBC}.1\nfoo: {LIBC}\n", "foo-dbgsym", True),
    ],
)
def test_debian_names_a_debug_package_after_the_owner(answer: str, package: str, archive_needed: bool) -> None:
    assert _remedy(LIBC, Machine(dpkg={LIBC: answer})) == Remedy(package, f"apt install {package}", archive_needed)


@pytest.mark.parametrize("known", ["/lib/x/libfoo.so.1", "/usr/lib/x/libfoo.so.1"])
@pytest.mark.parametrize("mapped", ["/lib/x/libfoo.so.1", "/usr/lib/x/libfoo.so.1"])
def test_a_merged_usr_hides_no_package(known: str, mapped: str) -> None:
    found = _remedy(mapped, Machine(dpkg={known: f"libfoo1:amd64: {known}\n"}))
    assert found is not None
    assert found.package == "libfoo1-dbgsym"


def test_the_owner_of_a_link_is_not_the_owner_of_the_file() -> None:
    machine = Machine(dpkg={"/bin/python3": "python3: /bin/python3\n", "/bin/python3.11": "python3.11: /bin/python3.11\n"})
    found = _remedy("/bin/python3", machine, real="/bin/python3.11")
    assert found is not None
    assert found.package == "python3.11-dbgsym"


def test_a_path_is_no_pattern() -> None:
    machine = Machine()
    _remedy("/opt/a*b?[c]\\", machine)
    assert machine.asked[0] == ("dpkg-query", "--search", "--", "/opt/a\\*b\\?\\[c]\\\\")


def test_rpm_knows_the_package_where_dpkg_does_not() -> None:
    assert _remedy("/usr/lib64/libfoo.so", Machine(rpm={"/usr/lib64/libfoo.so": "foo-libs\n"})) == Remedy(
        "foo-libs-debuginfo", "dnf debuginfo-install foo-libs", archive_needed=False
    )


@pytest.mark.parametrize("answer", ["", "file /opt/x is not owned by any package\n", "evil; rm\n", "\x1b[2J\n"])
def test_what_is_no_package_name_is_no_answer(answer: str) -> None:
    assert _remedy("/opt/x", Machine(dpkg={"/opt/x": answer}, rpm={"/opt/x": answer})) is None


@pytest.mark.parametrize("path", ["", "[anon]", "relative", "/a\0b"])
def test_what_is_no_path_is_not_asked_for(path: str) -> None:
    machine = Machine()
    assert _remedy(path, machine) is None
    assert machine.asked == []


def test_each_path_is_asked_for_once_also_if_nobody_knows_it() -> None:
    machine = Machine()
    packages = Packages(machine, lambda path: path)
    assert packages.remedy("/opt/x") is None
    asked = len(machine.asked)
    assert packages.remedy("/opt/x") is None
    assert len(machine.asked) == asked


def test_a_command_speaks_english_and_gets_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run(("sh", "-c", "echo $LC_ALL; cat")) == "C\n"
    assert run(("echo", "$(id)")) == "$(id)\n"


def test_a_command_that_is_missing_or_fails_or_hangs_gives_no_answer(tmp_path: Path) -> None:
    assert run((str(tmp_path / "missing"),)) is None
    assert run(("false",)) is None
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    started = time.monotonic()
    assert run((str(slow),)) is None
    assert time.monotonic() - started < 10


def _lack(path: str | None, frames: int, package: str | None = None, lacks: str = "symbols") -> ObjectLack:
    return ObjectLack(path, "ab", lacks, frames, package)  # type: ignore[arg-type]  # the tests' own words


@pytest.mark.parametrize(
    ("objects", "runtime", "line"),
    [
        ([], None, None),
        ([_lack("/opt/app", 3, lacks="lines"), _lack("/opt/app", 3, lacks="split"), _lack("/opt/b", 0)], None, None),
        (
            [_lack("/l/libbar.so", 4, "libbar-dbgsym"), _lack("/l/libfoo.so.1", 8, "libfoo1-dbgsym")],
            None,
            "No names for 12 frames in libfoo.so.1, libbar.so "
            "(install libfoo1-dbgsym, libbar-dbgsym from the distribution's debug archive; or set DEBUGINFOD_URLS)",
        ),
        (
            [_lack("/lib/libc.so.6", 1, "libc6-dbg")],
            None,
            "No names for 1 frame in libc.so.6 (install libc6-dbg; or set DEBUGINFOD_URLS)",
        ),
        (
            [_lack("/home/me/app", 2)],
            None,
            "No names for 2 frames in app (build it with -g, or keep the .debug file)",
        ),
        (
            [_lack("/home/me/app", 2), _lack("/lib/libc.so.6", 1, "libc6-dbg")],
            None,
            "No names for 3 frames in app, libc.so.6 "
            "(install libc6-dbg; or set DEBUGINFOD_URLS; or build your own with -g, or keep the .debug file)",
        ),
        ([_lack(None, 7)], "/usr/bin/node", "No names for 7 frames in code made at run time (start node with --perf-basic-prof --interpreted-frames-native-stack)"),
        ([_lack("[anon:js]", 7)], None, "No names for 7 frames in code made at run time"),
        (
            [_lack("/memfd:jit (deleted)", 1)],
            "python3.12",
            "No names for 1 frame in code made at run time (start python 3.12 or later with -X perf)",
        ),
        ([_lack("/opt/\x1b[2J", 1)], None, "No names for 1 frame in \\x1b[2J (build it with -g, or keep the .debug file)"),
    ],
)
def test_one_line_says_what_is_missing_and_what_brings_it(
    objects: list[ObjectLack], runtime: str | None, line: str | None
) -> None:
    assert closing_line(objects, runtime=runtime) == line


def test_java_is_told_what_it_needs() -> None:
    line = closing_line([_lack(None, 1)], runtime="/usr/lib/jvm/bin/java")
    assert line is not None
    assert "java with -XX:+PreserveFramePointer, and run jcmd PID Compiler.perfmap" in line


def test_the_objects_with_most_frames_are_named_and_the_others_counted() -> None:
    line = closing_line([_lack(f"/l/lib{frames}.so", frames, f"lib{frames}-dbgsym") for frames in range(1, 8)])
    assert line is not None
    assert line.startswith("No names for 28 frames in lib7.so, lib6.so, lib5.so, lib4.so and 3 more (install lib7-dbgsym,")
    assert "lib3" not in line
    assert len(line) < 200


def test_missing_lines_are_said_where_they_are_asked_for() -> None:
    lack = _lack("/opt/app", 3, lacks="lines")
    line = closing_line([lack], lacks=("symbols", "lines"))
    assert line == "No source lines for 3 frames in app (build it with -g, or keep the .debug file)"
