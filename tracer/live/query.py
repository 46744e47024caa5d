"""What is typed to choose sites: words that must all apply, each to a site's text or to one part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracer.report.model import Finding
from tracer.report.site_table import VERDICTS
from tracer.report.terminal_page import safe
from tracer.report.wording import known_by

#: Parts of a site that a word may be for, as in module:libssl.
FIELDS = ("name", "module", "verdict", "source")
_UNNAMED = "(no name)"


@dataclass(frozen=True, slots=True)
class Known:
    """What a site is called. name: of the function that it is known by; texts: by field, in small letters.

    complete: every frame has a name, so that a later look finds nothing else.
    """

    name: str
    module: str
    source: str
    texts: dict[str, str]
    complete: bool


def know(finding: Finding) -> Known:
    """Return what a site is called; all texts are safe to show."""
    frames = finding.frames
    name = known_by(frames)
    at = next((frame for frame in frames if frame.function == name), frames[0] if frames else None)
    shown = _UNNAMED if name is None and at is None else name or f"{at.address:#x}" if at else _UNNAMED
    module = safe((at.module if at and at.module else "").rpartition("/")[2])
    texts = {
        "name": "\n".join(dict.fromkeys(frame.function for frame in frames if frame.function)).lower(),
        "module": "\n".join(dict.fromkeys(frame.module for frame in frames if frame.module)).lower(),
        "source": finding.source.lower(),
    }
    return Known(safe(shown), module, safe(finding.source), texts, all(frame.function for frame in frames))


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a query; field None: any of them."""

    field: str | None
    text: str

    def matches(self, known: Known) -> bool:
        """Whether it applies to a site's texts; of the verdict, which changes, verdicts() tells."""
        if self.field is not None:
            return self.text in known.texts.get(self.field, "")
        return any(self.text in text for text in known.texts.values())

    def verdicts(self) -> list[int]:
        """Return which verdicts it applies to, as their places in VERDICTS."""
        if self.field not in (None, "verdict") or not self.text:
            return []
        # A word for anything is mostly part of a name: of a verdict it must be the beginning.
        return [code for code, verdict in enumerate(VERDICTS) if verdict and verdict.startswith(self.text)]


def parse(text: str) -> tuple[Word, ...]:
    """Return the words of a query; what stands before a colon and is no field is part of a name, as in std::."""
    words = []
    for word in text.lower().split():
        field, colon, rest = word.partition(":")
        if colon and field in FIELDS and not rest.startswith(":"):
            if rest:
                words.append(Word(field, rest))
        else:
            words.append(Word(None, word))
    return tuple(words)


def describe(words: Sequence[Word]) -> str:
    """Return a query as it would be typed."""
    return " ".join(f"{word.field}:{word.text}" if word.field else word.text for word in words)
