"""The scripts: they parse, and scripts/leaktrace makes its environment once and afterwards only starts it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
SHELL = ("leaktrace", "check", "test", "make_manual", "environment.sh")
#: All that scripts/leaktrace runs on its way to an environment, but the system's Python, which has its full name.
STUBBED = ("apt-get", "dpkg-query", "flock", "id", "mktemp", "pip", "python3", "readlink", "rm", "sed", "sha256sum", "touch")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of the scripts with an environment whose python only tells how it was called."""

    root: Path
    stubs: Path
    calls: Path

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "leaktrace.stamp"

    def run(self, *words: str | Path, only_stubs: bool = True,
            cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = str(self.stubs) if only_stubs else f"{self.stubs}:{os.environ['PATH']}"
        # With CDPATH, cd goes elsewhere, and says so on stdout.
        return subprocess.run([str(word) for word in words], cwd=cwd or self.root, env={"PATH": path, "CDPATH": "/tmp"},
                              capture_output=True, text=True, timeout=60, check=False)

    def start(self, *words: str, only_stubs: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(self.root / "scripts" / "leaktrace", *words, only_stubs=only_stubs)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def stub(self, name: str, script: str) -> None:
        path = self.stubs / name
        path.write_text(f"#!/bin/sh\necho {name} >>'{self.calls}'\n{script}\n")
        path.chmod(0o755)

    def unstub(self, *names: str) -> None:
        for name in names:
            (self.stubs / name).unlink()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "a checkout", tmp_path / "stubs", tmp_path / "calls")
    (made.root / "scripts").mkdir(parents=True)
    made.stubs.mkdir()
    for name in ("leaktrace", "environment.sh"):
        shutil.copy(SCRIPTS / name, made.root / "scripts")
    shutil.copy(ROOT / "pyproject.toml", made.root)
    python = made.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "started with $*"\n')
    python.chmod(0o755)
    for name in STUBBED:
        made.stub(name, "exit 9")
    project = made.root / "pyproject.toml"
    digest = hashlib.sha256(project.read_bytes()).hexdigest()
    made.stamp.write_text(f"{made.root.resolve()}\n{digest}\n")
    os.utime(made.stamp, ns=(project.stat().st_atime_ns, project.stat().st_mtime_ns))
    return made


@pytest.mark.parametrize("name", SHELL)
def test_scripts_are_posix_shell(name: str) -> None:
    """Every script parses as the shell that its first line names."""
    assert subprocess.run(["sh", "-n", SCRIPTS / name], check=False).returncode == 0


def test_ci_run_is_bash() -> None:
    """.ci/run parses, can be started, and stops at the first error."""
    run = ROOT / ".ci" / "run"
    assert subprocess.run(["bash", "-n", run], check=False).returncode == 0
    assert os.access(run, os.X_OK) and "set -euo pipefail" in run.read_text()


def test_a_later_start_runs_nothing_else(checkout: Checkout) -> None:
    """With a current environment no program is started on the way: that is what keeps the start-up cost near nothing."""
    answer = checkout.start("-p", "1", "with space")
    assert answer.stdout == "started with -I -m tracer.cli -p 1 with space\n", answer.stderr
    assert checkout.called() == [] and answer.stderr == ""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_later_start_executes_twice(checkout: Checkout) -> None:
    """The start is two execve, the shell and Python: no program slipped in by its full path."""
    (checkout.root / ".venv" / "bin" / "python").unlink()
    (checkout.root / ".venv" / "bin" / "python").symlink_to("/bin/true")
    trace = checkout.root / "trace"
    answer = checkout.run(shutil.which("strace") or "", "-f", "-e", "trace=execve", "-o", trace,
                          checkout.root / "scripts" / "leaktrace")
    if not trace.exists() or not trace.read_text():
        pytest.skip(f"strace cannot trace here: {answer.stderr}")
    assert [line.split('"')[1].rpartition("/")[2] for line in trace.read_text().splitlines() if "execve(" in line] == [
        "leaktrace", "python"]


def test_it_starts_through_links_and_from_anywhere(checkout: Checkout, tmp_path: Path) -> None:
    """A symbolic link to the script, a relative path, and `sh script` all find the checkout."""
    link = tmp_path / "link"
    link.symlink_to(checkout.root / "scripts" / "leaktrace")
    checkout.unstub("readlink")
    scripts = checkout.root / "scripts"
    for words, cwd in ((str(link), tmp_path), ("./leaktrace", scripts), ("/bin/sh leaktrace", scripts),
                       ("scripts/leaktrace", checkout.root)):
        answer = checkout.run(*words.split(), cwd=cwd, only_stubs=False)
        assert answer.stdout == "started with -I -m tracer.cli\n", (words, answer.stderr)


def test_the_same_project_with_another_time_is_not_made_again(checkout: Checkout) -> None:
    """A pyproject.toml with a new time and the old text costs a hash, once, and no installation."""
    os.utime(checkout.root / "pyproject.toml")
    checkout.unstub("sha256sum", "sed", "touch")
    assert checkout.start(only_stubs=False).returncode == 0
    assert checkout.called() == []
    checkout.stub("sha256sum", "exit 9")
    assert checkout.start(only_stubs=False).returncode == 0
    assert checkout.called() == []


@pytest.mark.parametrize("spoil", ["no environment", "no stamp", "another project", "no python", "moved"])
def test_without_root_a_stale_environment_is_a_sentence(checkout: Checkout, spoil: str) -> None:
    """What is not made, half made, out of date, without its Python or moved is told to a user who cannot make it."""
    if spoil == "no environment":
        shutil.rmtree(checkout.root / ".venv")
    elif spoil == "no stamp":
        checkout.stamp.unlink()
    elif spoil == "another project":
        (checkout.root / "pyproject.toml").write_text("[project]\n")
    elif spoil == "no python":
        (checkout.root / ".venv" / "bin" / "python").unlink()
    else:
        checkout.root.rename(checkout.root.with_name("moved"))
        checkout = Checkout(checkout.root.with_name("moved"), checkout.stubs, checkout.calls)
    checkout.unstub("sha256sum", "sed", "touch")
    checkout.stub("id", "echo 1000")
    answer = checkout.start(only_stubs=False)
    assert answer.returncode == 3
    first, remedy = answer.stderr.splitlines()
    assert first.startswith("leaktrace: ") and "sudo" in remedy
    assert checkout.called() == ["id"]


def test_without_apt_the_packages_are_named(checkout: Checkout) -> None:
    """Where there is no apt-get, a sentence names what is missing and the exit code is 3."""
    checkout.unstub("apt-get")
    answer = checkout.run("/bin/sh", "-c", f"root={str(checkout.root)!r}; . scripts/environment.sh; "
                          "system_python=/nowhere/python3; require_system_python")
    assert answer.returncode == 3
    assert "apt-get" in answer.stderr and "python3-bpfcc python3-venv" in answer.stderr


def test_a_failing_pip_is_a_sentence(checkout: Checkout) -> None:
    """Where pip fails, its last lines, a sentence and a remedy are said, the exit code is 3, and no stamp is left."""
    shutil.rmtree(checkout.root / ".venv")
    checkout.unstub(*STUBBED)
    checkout.stub("id", "echo 0")
    python = checkout.stubs / "system-python"
    checkout.stub("system-python", f"""
        case "$*" in
            *"-m venv"*) mkdir -p '{checkout.root}/.venv/bin' && cp '{python}' '{checkout.root}/.venv/bin/python' ;;
            *"-m pip"*) echo 'no network' >&2; exit 1 ;;
        esac""")
    answer = checkout.run("/bin/sh", "-c", f"root={str(checkout.root)!r}; . scripts/environment.sh; "
                          f"system_python={python}; environment", only_stubs=False)
    assert answer.returncode == 3
    assert "no network\nleaktrace: pip cannot" in answer.stderr
    assert not checkout.stamp.exists()
