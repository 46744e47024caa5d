"""What a program shows on a terminal, as text with colours and as a page."""

from __future__ import annotations

import io
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

#: Seconds in which it settles after a key.
SETTLE_S = 1.5


def screen(folder: Path, command: Sequence[str], columns: int, rows: int, seconds: float,
           keys: Sequence[str] = ()) -> str:
    """Run a command in a folder and a terminal of its own for so many seconds, press keys; return what it shows.

    The result has the terminal's escapes in it.
    """
    with tempfile.TemporaryDirectory() as place:
        tmux = ["tmux", "-u", "-f", "/dev/null", "-S", str(Path(place) / "socket")]
        subprocess.run([*tmux, "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder),
                        f"COLORTERM=truecolor LC_ALL=C.UTF-8 exec {shlex.join(command)}"], check=True)
        try:
            time.sleep(seconds)
            for key in keys:
                subprocess.run([*tmux, "send-keys", key], check=True)
            time.sleep(SETTLE_S)
            return subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)


def as_page(shown: str, columns: int) -> str:
    """Return a page that looks like the terminal."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor",
                      legacy_windows=False)
    console.print(Text.from_ansi(shown), no_wrap=True, crop=True)
    drawn = console.export_svg(title="leaktrace --live")
    return f'<!doctype html><html data-ready="1"><meta charset="utf-8"><body style="margin:0">{drawn}</body></html>'
