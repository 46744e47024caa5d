"""scripts/test-kernels: what it reads of apt, of modules, of results, and what it writes."""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import gzip
import lzma
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks.child import Failure
from kernels import cli, machine, matrix, modules, results, table
from kernels.initramfs import Entry, archive, parameters
from kernels.kernel import Kernel, kernel, relocate, unpacked
from kernels.packages import PARTS, Apt, stanzas
from kernels.results import Need, Outcome, Result
from kernels.suites import Archive, Suite, archives, chosen, host_release, sources
from kernels.tree import Tree

DEB822 = """\
# A remark
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/security
Suites:
 bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
"""
KNOWN = [Archive("http://m/debian", ("bookworm", "bookworm-updates")), Archive("http://m/sec", ("bookworm-security",))]


def test_names_choose_kernels() -> None:
    """No name means all kernels, names come in the matrix's order, and an unknown one is refused by name."""
    assert [suite.name for suite in chosen([])] == ["5.10", "6.1", "6.12", "newest"]
    assert [suite.name for suite in chosen(["newest", "5.10"])] == ["5.10", "newest"]
    with pytest.raises(Failure, match=r"4\.4.*newest"):
        chosen(["4.4"])


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A folder that looks as one does in which a kernel was built."""
    made = Tree(tmp_path / "linux")
    for path, text in (("arch/x86/boot/bzImage", "MZ"), ("include/config/kernel.release", "6.99.0-mine\n"),
                       ("modules.order", "kernel/one.o\n"), ("Makefile", INSTALL)):  # fmt: skip
        (made.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / path).write_text(text)
    return made


INSTALL = "modules_install:\n\tmkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.99.0-mine/kernel\n"


def test_a_kernel_of_ones_own_is_a_folder(tree: Tree, tmp_path: Path) -> None:
    """A folder alone means its kernel only, beside names it comes last; one in which none was built is refused."""
    assert cli.origins([str(tree.folder)]) == [tree]
    assert [each.name for each in cli.origins([f"{tree.folder}/", "6.1"])] == ["6.1", "linux"]
    assert len(cli.origins([])) == 4
    with pytest.raises(Failure, match=r"no kernel that is built.*make"):
        cli.origins([str(tmp_path)])


def test_a_kernel_of_ones_own_has_its_modules_installed(tree: Tree, tmp_path: Path) -> None:
    """Into a folder of ours, where none of an earlier build are left; without any there is an empty one."""
    old = kernel(tree, tmp_path / "cache").modules / "old.ko"
    old.touch()
    found = kernel(tree, tmp_path / "cache")
    assert (found.name, found.version, found.image) == ("linux", "6.99.0-mine", tree.image)
    assert (found.modules / "kernel").is_dir() and found.modules.name == found.version and not old.exists()
    (tree.folder / "modules.order").unlink()
    assert list(kernel(tree, tmp_path / "cache").modules.iterdir()) == []


def test_both_formats_of_apts_sources_are_read() -> None:
    """Addresses are found in both formats; entries that are off, or for sources only, are not taken."""
    assert list(archives(DEB822)) == [
        Archive("http://mirror.example/debian", ("bookworm", "bookworm-updates")),
        Archive("http://mirror.example/security", ("bookworm-security",)),
    ]
    assert list(archives("deb [signed-by=/a b=c] http://m/debian bookworm main\n#deb http://n/ sid main\n")) == [
        Archive("http://m/debian", ("bookworm",))]


def test_a_suites_sources_come_from_the_hosts_addresses() -> None:
    """Release, security and pocket of the suite are read from where the host reads its own; nothing else is."""
    text = sources(Suite("newest", "trixie", pocket="trixie-backports"), KNOWN, "bookworm")
    assert [line.split()[-3:] for line in text.splitlines()] == [
        ["http://m/debian", "trixie", "main"], ["http://m/sec", "trixie-security", "main"],
        ["http://m/debian", "trixie-backports", "main"]]
    with pytest.raises(Failure, match="no entry for sid"):
        sources(Suite("6.1", "bookworm"), KNOWN, "sid")


def test_only_debian_has_debians_kernels() -> None:
    """The host's codename is read from os-release, and another distribution is refused."""
    assert host_release('ID=debian\nVERSION_CODENAME="bookworm"\n') == "bookworm"
    with pytest.raises(Failure, match="Debian"):
        host_release("ID=ubuntu\nVERSION_CODENAME=noble\n")


class Told(Apt):
    """An apt that answers from a text."""

    def __init__(self, text: str) -> None:
        self.suite, self.text = Suite("x", "x"), text

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        return self.text


IMAGE = """\
Package: linux-image-7.3-cloud-amd64
Version: 7.3-1
Depends: dracut | initramfs-tools (>= 0.1), kmod, linux-binary-7.3-cloud-amd64 (= 7.3-1), linux-modules-7.3-cloud-amd64

Package: linux-binary-7.3-cloud-amd64
Version: 7.3-1
Description: the image
 of a kernel

Package: linux-modules-7.3-cloud-amd64
Version: 7.3-2
Depends: linux-binary-7.3-cloud-amd64 (= 7.3-1), linux-base (>= 4)
"""


def test_the_parts_of_a_split_kernel_are_found() -> None:
    """What an image depends on is followed to what belongs to the kernel, each once, and to nothing else."""
    assert stanzas(IMAGE)[0].depends[:2] == ("dracut", "kmod")
    found = {(each.name, each.version) for each in Told(IMAGE).parts("linux-image-7.3-cloud-amd64")}
    assert found == {("linux-image-7.3-cloud-amd64", "7.3-1"), ("linux-binary-7.3-cloud-amd64", "7.3-1"),
                     ("linux-modules-7.3-cloud-amd64", "7.3-2")}
    assert not PARTS.match("linux-base") and not PARTS.match("linux-compiler-gcc-10-x86")


def module(*needed: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0name=x\0"


def test_modules_load_behind_what_they_need() -> None:
    """Each module comes behind its dependencies, once; what a kernel has built in is no module and left out."""
    files = {"virtio_pci": module("virtio", "virtio-ring"), "virtio": module("virtio_ring"), "virtio_ring": module(),
             "virtiofs": module("fuse", "virtio"), "fuse": module()}
    assert modules.load_order(modules.WANTED, files) == ["virtio_ring", "virtio", "virtio_pci", "fuse", "virtiofs"]


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_modules_are_unpacked(tmp_path: Path, suffix: str) -> None:
    """A module is the same however the distribution compresses it."""
    if suffix == ".zst" and not shutil.which("zstd"):
        pytest.skip("there is no zstd here")
    pack: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress,
            ".zst": lambda data: subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout}
    path = tmp_path / f"virtio-ring.ko{suffix}"
    path.write_bytes(pack[suffix](module("fuse")))
    assert modules.Files(tmp_path)["virtio_ring"] == module("fuse")


def test_the_first_file_system_is_an_archive(tmp_path: Path) -> None:
    """The archive holds files, folders and modes as another program reads them."""
    if not shutil.which("cpio"):
        pytest.skip("there is no cpio here")
    data = archive([Entry("bin", 0o040755), Entry("bin/odd", 0o100755, b"12345"), Entry("last", 0o100755, b"x" * 4096)])
    subprocess.run(["cpio", "-id", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/odd").read_bytes() == b"12345" and (tmp_path / "last").read_bytes() == b"x" * 4096
    assert (tmp_path / "bin/odd").stat().st_mode == 0o100755


def test_parameters_survive_a_shell() -> None:
    """Values with spaces and quotes come to init as they are."""
    text = parameters({"keep": "/a b/it's", "release": "7.3"}).decode()
    done = subprocess.run(["sh", "-c", f'{text}printf "%s|%s" "$keep" "$release"'], capture_output=True, text=True, check=True)
    assert done.stdout == "/a b/it's|7.3"


def test_an_unpacked_kernel_is_found(tmp_path: Path) -> None:
    """Image and modules are found in the old places and in those of a merged /usr; half a kernel is refused."""
    old, new = tmp_path / "old", tmp_path / "new"
    for image, place in ((old / "boot/vmlinuz-6.1", old / "lib/modules/6.1"),
                         (new / "usr/lib/modules/7.3/vmlinuz", new / "usr/lib/modules/7.3")):
        (place / "kernel").mkdir(parents=True)
        (place / "modules.dep").touch()
        image.parent.mkdir(exist_ok=True)
        image.touch()
        found = unpacked("x", image.parents[1] if image.parent.name == "boot" else new)
        assert (found.image, found.modules, found.version) == (image, place, place.name)
    shutil.rmtree(old / "lib")
    with pytest.raises(Failure, match="no modules"):
        unpacked("x", old)


def test_headers_name_each_other_where_they_lie(tmp_path: Path) -> None:
    """Absolute links and paths in unpacked headers lead into the folder, not to /usr."""
    tree, kbuild = tmp_path / "usr/src/linux-headers-6.1-cloud-amd64", tmp_path / "usr/lib/linux-kbuild-6.1"
    tree.mkdir(parents=True)
    kbuild.mkdir(parents=True)
    (tree / "scripts").symlink_to("/usr/lib/linux-kbuild-6.1")
    (tree / "tools").symlink_to("../elsewhere")
    (tree / "Makefile").write_text("include /usr/src/linux-headers-6.1-common/Makefile\n")
    relocate(tmp_path)
    assert (tree / "scripts").readlink() == kbuild and str((tree / "tools").readlink()) == "../elsewhere"
    assert (tree / "Makefile").read_text() == f"include {tmp_path}/usr/src/linux-headers-6.1-common/Makefile\n"


JUNIT = """\
<testsuites><testsuite>
<testcase classname="tests.live.test_exact" name="test_a[perf]" time="2.5"/>
<testcase classname="tests.live.test_run" name="test_b" time="1"><failure message="assert 1 == 2&#10;more">x</failure></testcase>
<testcase classname="tests.live.test_run" name="test_c" time="1"><skipped message="no perl"/></testcase>
<testcase classname="" name="tests.live.test_bad" time="0"><error message="collection failure"/></testcase>
</testsuite></testsuites>"""


def test_results_are_read() -> None:
    """Each test has its id and its outcome; of a failure the first line is kept."""
    assert [(each.node, each.outcome, each.why) for each in results.tests(JUNIT)] == [
        ("tests/live/test_exact.py::test_a[perf]", Outcome.PASSED, ""),
        ("tests/live/test_run.py::test_b", Outcome.FAILED, "assert 1 == 2"),
        ("tests/live/test_run.py::test_c", Outcome.SKIPPED, "no perl"),
        ("tests/live/test_bad", Outcome.FAILED, "collection failure")]
    with pytest.raises(Failure):
        results.tests(JUNIT[:100])


PASSED, FAILED = results.tests(JUNIT)[:2]


@pytest.mark.parametrize(("status", "found", "outcome", "why"), [
    (0, [PASSED], Outcome.PASSED, ""),
    (1, [PASSED, FAILED], Outcome.FAILED, "1 of 2 tests failed"),
    (None, [PASSED], Outcome.FAILED, "it panicked"),
    (0, [], Outcome.FAILED, "no test ran"),
    (0, [results.tests(JUNIT)[2]], Outcome.FAILED, "no test ran"),
    (2, [PASSED], Outcome.FAILED, "pytest ended with 2"),
])  # fmt: skip
def test_a_machine_passes_only_if_all_is_well(status: int | None, found: list[results.Test], outcome: Outcome, why: str) -> None:
    """A machine without an exit status, without a test that ran, or with one that failed, has not passed."""
    assert results.judge(status, "it panicked", found) == (outcome, why)


DOCTOR = """{"schema": "leaktrace-doctor/1", "can_trace": {"user": "perf", "kernel": []}, "needs": [
{"need": "atomics", "title": "compare and swap", "group": "BPF in this kernel", "status": "missing", "found": "refused"}]}"""


def test_doctors_answers_are_read() -> None:
    """Rows and the way to attach are taken from doctor's document; another text is no answer, and no error."""
    assert results.checkup(DOCTOR) == ((Need("atomics", "compare and swap", "BPF in this kernel", "missing", "refused"),), "perf")
    assert results.checkup("Traceback") == results.checkup("{}") == ((), "")


def test_the_list_of_tests_is_by_feature() -> None:
    """Ids stand below their feature, and an id means its parameters, the file's and the folder's tests."""
    listed = results.features("# remark\n[a b]\nx/t.py::one\n\n[c]\nx/u.py # why\n")
    assert listed == {"a b": ("x/t.py::one",), "c": ("x/u.py",)}
    assert results.belongs("x/t.py::one[1]", "x/t.py::one") and results.belongs("x/u.py::two", "x/u.py")
    assert not results.belongs("x/t.py::ones", "x/t.py::one")
    with pytest.raises(Failure, match="below no"):
        results.features("x/t.py\n")


def test_every_listed_test_exists() -> None:
    """The list names tests that the checkout has."""
    for nodes in matrix.listed().values():
        for node in nodes:
            path, _, name = node.partition("::")
            file = SCRIPTS.parent / path
            assert file.exists(), node
            assert not name or f"def {name.partition('[')[0]}(" in file.read_text(), node


RESULTS = [
    Result("5.10", "5.10.0-46", Outcome.FAILED, "1 of 2 tests failed", 9.0, (PASSED, FAILED), results.checkup(DOCTOR)[0], "perf"),
    Result("6.1", "6.1.0-56", Outcome.FAILED, "it panicked; the last lines of its console:\n    | Oops"),
    Result("newest", "", Outcome.SKIPPED, "no network"),
]


def test_the_table_says_what_each_kernel_said() -> None:
    """Features, tests and kernels that were not fetched or died are told apart."""
    rows = [line.strip("| ").split(" | ") for line in table.table(RESULTS, {"exact": ("tests/live/test_exact.py",), "run": ("tests/live/test_run.py",)}).splitlines()]
    assert ["compare and swap", "no", "?", "?"] in rows and ["uprobes are attached by", "perf", "?", "?"] in rows
    assert ["exact", "yes, 1 test", "not tested", "not tested"] in rows
    assert ["run", "**1 of 1 tests fail**", "not tested", "not tested"] in rows
    assert ["all tests", "1 passed, 1 failed", "**it panicked**", "not fetched"] in rows


def test_the_table_is_put_in_its_place(tmp_path: Path) -> None:
    """Only what stands between the two comments changes, a second time as well; a file without them is refused."""
    path = tmp_path / "README.md"
    path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nbehind\n")
    for text in ("| one |", "| two |"):
        table.write(path, text)
        assert path.read_text() == f"before\n{table.BEGIN}\n{text}\n{table.END}\nbehind\n"
    path.write_text("nothing\n")
    with pytest.raises(Failure, match="no place"):
        table.write(path, "x")


def test_a_failure_names_the_test_and_a_death_its_last_words(tmp_path: Path) -> None:
    """A line says how a kernel went; a machine that died is a failure with the end of its console."""
    assert "FAILED tests/live/test_run.py::test_b: assert 1 == 2" in matrix.as_text(RESULTS[0])
    assert "PASSED" not in matrix.as_text(RESULTS[0]) and "test_exact" not in matrix.as_text(RESULTS[0])
    console = "\n".join(["boots", "BUG: kernel NULL pointer dereference", *["a register"] * 100])
    assert "NULL pointer" in matrix.last_lines(console) and "boots" not in matrix.last_lines(console)
    assert matrix.last_lines("\n".join(["first", *["more"] * 100])).count("more") == matrix.CONSOLE_LINES
    booted = Kernel("6.1", "6.1.0-56", tmp_path, tmp_path)
    ended = matrix.judged(booted, machine.Ending(None, "its kernel panicked", 5.0, "boots\nOops: 0002\n"), tmp_path)
    assert ended.outcome is Outcome.FAILED and "panicked" in ended.why and "Oops: 0002" in ended.why


@pytest.mark.parametrize(
    ("console", "accelerator", "boots"),
    [("[ 1.7] Oops: int3: 0000 [#1] SMP", "tcg", 3), ("[ 1.7] int3: 0000 [#1] SMP", "tcg", 3),
     ("Oops: int3: 0000 [#1] SMP", "kvm", 1), ("Oops: 0002 [#1] SMP", "tcg", 1), ("no files", "tcg", 1)],
)  # fmt: skip
def test_only_a_kernel_that_its_emulator_kills_is_booted_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, console: str, accelerator: str, boots: int
) -> None:
    """Twice more at most, with nothing of the last time left; any other death is a failure."""
    made: list[bool] = []

    def run(*_: object) -> machine.Ending:
        made.append((tmp_path / "stdout").exists())
        (tmp_path / "stdout").touch()
        return machine.Ending(None, "its kernel panicked", 5.0, console)

    monkeypatch.setattr(machine, "run", run)
    work = machine.Work("true", tmp_path, accelerator=accelerator)
    assert matrix.ended(Kernel("6.1", "6.1.0-56", tmp_path, tmp_path), work, tmp_path).status is None
    assert made == [False] * boots


def test_a_machine_that_boots_again_is_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What counts is the boot that came through."""
    ends = iter([machine.Ending(None, "", 5.0, "Oops: int3: 0000 [#1] SMP"), machine.Ending(0, "", 6.0, "")])
    monkeypatch.setattr(machine, "run", lambda *_: next(ends))
    ending = matrix.ended(Kernel("6.1", "6.1.0-56", tmp_path, tmp_path), machine.Work("true", tmp_path), tmp_path)
    assert (ending.status, ending.seconds) == (0, 6.0)


def test_scripts_for_the_machine_are_shell_scripts() -> None:
    """What runs in a machine is parsed by a shell, and a folder with a quote in its name is entered."""
    text = machine.session_script(machine.Work("true", Path("/a b/it's")))
    assert shlex.quote("/a b/it's") in text and "/a b/it's " not in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0, text
    for script in (SCRIPTS / "test-kernels", SCRIPTS / "kernels" / "init.sh"):
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
