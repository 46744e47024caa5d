"""Hunts the leak of the demo's program, and takes pictures of what is seen on the way."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from browsing.chromium import Page, find

from screenshots import hunt
from screenshots.terminal import as_page, screen

#: Where the README looks for them.
FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1200, 760
#: Of the terminal.
COLUMNS, ROWS = 118, 32
#: Seconds of a trace: long enough for verdicts.
SECONDS = 16


def main() -> int:
    """Write live.png, report.png and diff.png; returns 0, or 3 where a tool is missing."""
    browser = find()
    if browser is None:
        print("There is no chromium. Install it.", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="leaktrace-pictures-") as place:
        folder = Path(place)
        before, after = "before.leaktrace", "after.leaktrace"
        with hunt.running(hunt.build(folder / "leaky-server")) as pid:
            hunt.leaktrace(folder, "-p", pid, "-d", SECONDS, "--record", before, 2)
        with hunt.running(folder / "leaky-server") as pid:
            shown = screen(folder, hunt.words("-p", pid, "--live"), COLUMNS, ROWS, SECONDS, keys=("Down",))
        with hunt.running(hunt.build(folder / "leaky-server", fixed=True)) as pid:
            hunt.leaktrace(folder, "-p", pid, "-d", SECONDS, "--record", after, 2)
        hunt.leaktrace(folder, "report", before, "--format", "html", "-o", "report.html")
        hunt.leaktrace(folder, "diff", before, after, "--format", "html", "-o", "diff.html")
        (folder / "live.html").write_text(as_page(shown, COLUMNS))
        with Page(browser, WIDTH, HEIGHT) as page:
            page.open(folder / "live.html")
            width, height = page.ask("(box => [box.width, box.height])"
                                     "(document.querySelector('svg').getBoundingClientRect())")
            page.resize(round(width), round(height))
            _keep("live", page)
            page.resize(WIDTH, HEIGHT)
            page.open(folder / "report.html")
            _keep("report", page)
            page.open(folder / "diff.html")
            _keep("diff", page)
    return 0


def _keep(name: str, page: Page) -> None:
    (FOLDER / f"{name}.png").write_bytes(page.picture())
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failure:
        print(f"{failure}\n{failure.stderr}", file=sys.stderr)
        sys.exit(1)
