"""A kernel's packages: read from a suite by an apt with a state of its own, and unpacked, not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

from kernels.suites import OS_RELEASE, Suite, host_archives, host_release, sources

CACHE = Path("/var/cache/leaktrace/kernels")
#: Lists younger than this are not fetched again.
FRESH_S = 12 * 3600
#: What belongs to a kernel among the packages that it depends on. From 6.19 on the image itself is empty, and depends
#: on linux-binary-…, linux-modules-… and linux-base-…; headers depend on what they share and on build programs.
PARTS = re.compile(r"linux-(image|binary|modules|base|headers|kbuild)-\d")


@dataclass(frozen=True, slots=True)
class Stanza:
    """What apt knows of one version of a package."""

    name: str
    version: str
    depends: tuple[str, ...]
    """The first alternative of each dependency, by name."""


def stanzas(text: str) -> list[Stanza]:
    """Read what `apt-cache show` prints."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if "Package" in fields:
            depends = [re.split(r"[ (:|]", each.strip())[0] for each in fields.get("Depends", "").split(",")]
            found.append(Stanza(fields["Package"], fields["Version"], tuple(filter(None, depends))))
    return found


class Apt:
    """apt on one suite, with lists and settings in a folder of its own; the host's proxies and keys count."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite = suite
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        self.sources = folder / "sources.list"
        settings: dict[str, object] = {
            "Dir::State": folder, "Dir::State::status": folder / "status", "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache", "Dir::Etc::sourcelist": self.sources, "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": "amd64", "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
        }  # fmt: skip
        # Only there: set to the release itself, it would win over the release's own security updates.
        if suite.pocket:
            settings["APT::Default-Release"] = suite.pocket
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Have the lists of today."""
        text = sources(self.suite, host_archives(), host_release(OS_RELEASE.read_text()))
        stamp = self.folder / "updated"
        fresh = stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_S
        if fresh and self.sources.exists() and self.sources.read_text() == text:
            return
        self.sources.write_text(text)
        self._run("apt-get", "-qq", "update")
        stamp.touch()

    def show(self, package: str) -> Stanza:
        """Return the version of a package that this suite has."""
        answer = self._run("apt-cache", "show", "--no-all-versions", package)
        found = [each for each in stanzas(answer) if each.name == package]
        if not found:
            raise Failure(f"{self.suite.preferred} has no package {package}.")
        return found[0]

    def parts(self, package: str) -> Iterator[Stanza]:
        """Give a package, and those among its dependencies that belong to the kernel, to any depth."""
        waiting, seen = [package], {package}
        while waiting:
            stanza = self.show(waiting.pop())
            yield stanza
            for name in stanza.depends:
                if PARTS.match(name) and name not in seen:
                    seen.add(name)
                    waiting.append(name)

    def unpack(self, wanted: Sequence[Stanza], folder: Path) -> None:
        """Fetch packages and unpack them into a folder, which is there only when it is whole."""
        making = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        fetched = self.folder / "packages"
        self._run("apt-get", "-qq", "download", *(f"{each.name}={each.version}" for each in wanted), cwd=fetched)
        for file in sorted(fetched.glob("*.deb")):
            command(["dpkg-deb", "-x", str(file), str(making)])
            file.unlink()
        making.rename(folder)

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        return command([program, *self.options, *words], cwd)


def command(words: Sequence[str], cwd: Path | None = None) -> str:
    """Run a program and return what it prints; Failure with its last line if it fails."""
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()
        # The last lines of make only say where it was.
        told = [line for line in told if not line.startswith("make")] or told
        raise Failure(f"{words[0]} failed: {told[-1]}")
    return done.stdout
