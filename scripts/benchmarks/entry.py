"""What the bench scripts begin and end with: root, signals, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from benchmarks.child import Failure


def run_script(work: Callable[[], int], *, root_for: str = "") -> int:
    """Do the work and return its exit code; 3 if it cannot be done here, 130 after Ctrl-C.

    root_for: the script's name, if it traces and so needs root.
    """
    if root_for and os.geteuid() != 0:
        print(f"tracing needs root: run `sudo {root_for}`", file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started is ended
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        return work()
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
