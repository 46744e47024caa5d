"""What the view and the trace say to each other."""

from __future__ import annotations

from typing import Protocol

from textual.message import Message

from tracer.report.model import Report


class Control(Protocol):
    """What the view can have the trace do."""

    def record(self) -> str | None:
        """Begin a recording, and return its file; where one is under way, end it and return None. Raises OSError."""


class Arrived(Message):
    """There is another report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


class Over(Message):
    """There will be no more reports. failed: by an error, which is said after the screen is restored."""

    def __init__(self, failed: bool = False) -> None:
        super().__init__()
        self.failed = failed


class Said(Message):
    """The trace has something to say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
