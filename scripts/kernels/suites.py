"""Which kernels there are, and from where: Debian's cloud kernels, by suite, from the mirror that this machine uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Suite:
    """A row of the matrix: the kernel that one suite of Debian has now.

    `pocket` is the suite that is preferred beside the release itself, as trixie-backports is beside trixie.
    """

    name: str
    release: str
    pocket: str = ""

    @property
    def preferred(self) -> str:
        """The suite whose packages win."""
        return self.pocket or self.release


SUITES = (
    Suite("5.10", "bullseye"),
    Suite("6.1", "bookworm"),
    Suite("6.12", "trixie"),
    Suite("newest", "trixie", pocket="trixie-backports"),
)


def chosen(names: Iterable[str]) -> list[Suite]:
    """Return the suites of these names in the matrix's order, all of them for no name; Failure for a wrong name."""
    wanted = set(names)
    known = {suite.name for suite in SUITES}
    if wanted - known:
        raise Failure(f"There is no kernel {', '.join(sorted(wanted - known))} here. Name one of {', '.join(known)}.")
    return [suite for suite in SUITES if not wanted or suite.name in wanted]


@dataclass(frozen=True, slots=True)
class Archive:
    """One entry of apt's sources: an address, and the suites that are taken from it."""

    address: str
    suites: tuple[str, ...]


def archives(text: str) -> Iterator[Archive]:
    """Give the entries for binary packages of one file of apt's, in either of its two formats (sources.list(5))."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if match:
            yield Archive(match[1], (match[2],))
    for paragraph in re.split(r"\n\s*\n", text):
        fields = {
            key.lower(): value.split()
            for key, value in re.findall(r"^([A-Za-z-]+):[ \t]*((?:.*(?:\n[ \t].*)*))", paragraph, re.MULTILINE)
        }
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            for address in fields.get("uris", []):
                yield Archive(address, tuple(fields.get("suites", [])))


def host_archives(etc: Path = APT) -> list[Archive]:
    """Return what this machine's apt reads."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    return [each for file in files if file.suffix in (".list", ".sources") and file.is_file()
            for each in archives(file.read_text())]  # fmt: skip


def host_release(text: str) -> str:
    """Return the codename in the text of /etc/os-release; Failure where this is not Debian."""
    fields: dict[str, str] = dict(re.findall(r"""^(\w+)=["']?([^"'\n]*)""", text, re.MULTILINE))
    if fields.get("ID") != "debian" or not fields.get("VERSION_CODENAME"):
        raise Failure("Kernels are fetched from Debian's archive, and this is none. Run it on Debian 12 or later.")
    return fields["VERSION_CODENAME"]


def archives_of(release: str, known: Iterable[Archive]) -> tuple[str, str | None]:
    """Return the addresses that a release comes from, and its security updates; Failure without the first."""
    known = list(known)
    main = next((each.address for each in known if release in each.suites), None)
    if main is None:
        raise Failure(f"apt's sources have no entry for {release}. Add the one of Debian's archive to {APT}.")
    return main, next((each.address for each in known if f"{release}-security" in each.suites), None)


def sources(suite: Suite, known: Iterable[Archive], host: str) -> str:
    """Return the text of a sources.list for a suite, from the addresses that have the host's own release.

    known: what the host's apt reads; host: the codename of its release.
    """
    main, security = archives_of(host, known)
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    wanted = [(main, suite.release), (security, f"{suite.release}-security"), (main, suite.pocket)]
    return "".join(f"deb {signed}{address} {name} main\n" for address, name in wanted if address and name)
