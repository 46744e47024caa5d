"""What leaktrace and memleak say of a program, read from what they printed: sites in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

ALARMS = ("lost", "growing")
_MEMLEAK_SITE = re.compile(r"^\t(\d+) bytes in (\d+) allocations from stack")
_MEMLEAK_FRAME = re.compile(r"^\t\t(?:0x[0-9a-f]+\t)?(?:b')?(.+?)(?:\+0x[0-9a-f]+)?(?: \[[^\]]*\])?'?$")
_MEMLEAK_REPORT = "stacks with outstanding allocations"


@dataclass(frozen=True, slots=True)
class Site:
    """One site of a report; functions: innermost first, without arguments; the last three as leaktrace says them."""

    functions: tuple[str, ...]
    bytes: int
    count: int
    verdict: str | None = None
    confidence: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A tool's last report: its sites in its order; error: there is none, and why."""

    sites: tuple[Site, ...] = ()
    error: str = ""

    def rank(self, function: str) -> int | None:
        """Return the rank, from 1, of the first site that has the function in its stack; None if none has."""
        return next((rank for rank, site in enumerate(self.sites, 1) if function in site.functions), None)

    def by_size(self) -> Reading:
        """Return the same with the largest site first."""
        return replace(self, sites=tuple(sorted(self.sites, key=lambda site: -site.bytes)))

    @property
    def alarms(self) -> tuple[Site, ...]:
        """The sites that are held to leak."""
        return tuple(site for site in self.sites if site.verdict in ALARMS)

    @property
    def judged(self) -> bool:
        """Whether any site has a verdict."""
        return any(site.verdict for site in self.sites)


def bare_name(name: str) -> str:
    """Return a function's name without arguments, template arguments at its end, and what a compiler adds to it."""
    return re.sub(r"(\.(isra|part|constprop|cold|lto_priv)[.\d]*|<[^<>]*>)$", "", name.partition("(")[0]).strip()


def leaktrace(lines: Sequence[str]) -> Reading:
    """Read the lines that leaktrace printed: the last document of them is the last report."""
    documents = [line for line in lines if line.startswith("{")]
    try:
        return Reading(tuple(_site(site) for site in json.loads(documents[-1])["sites"]))
    except (IndexError, ValueError, KeyError, TypeError):
        return Reading(error=_complaint(lines))


def _site(site: dict[str, Any]) -> Site:
    functions = tuple(bare_name(frame["function"]) for frame in site["frames"] if frame["function"])
    told = (site.get("confidence") or "", site.get("evidence") or "")
    return Site(functions, site["bytes"], site["count"], site["verdict"], *told)


def memleak(lines: Sequence[str]) -> Reading:
    """Read the lines that memleak printed: of its last report, whose largest site comes last, the largest first."""
    begins = [number for number, line in enumerate(lines) if _MEMLEAK_REPORT in line]
    if not begins:
        return Reading(error=_complaint(lines))
    sites: list[Site] = []
    for line in lines[begins[-1] + 1 :]:
        site, frame = _MEMLEAK_SITE.match(line), _MEMLEAK_FRAME.match(line)
        if site:
            sites.append(Site((), int(site[1]), int(site[2])))
        elif frame and sites:
            sites[-1] = replace(sites[-1], functions=(*sites[-1].functions, bare_name(frame[1])))
    return Reading(tuple(reversed(sites)))


def _complaint(lines: Sequence[str]) -> str:
    told = [line.strip() for line in lines if line.strip() and not line.startswith("{")]
    return told[-1][:160] if told else "it printed nothing"


Reader = Callable[[Sequence[str]], Reading]
"""From the lines of its standard output and error."""
