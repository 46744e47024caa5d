"""How many files this process may have open, and for how many traced processes they last."""

from __future__ import annotations

import resource
from contextlib import suppress

from tracer.settings import AttachWay

#: A process takes its pidfd and a link for each kind of probe in each of its allocators; perf events are one a probe.
_FILES_OF_PROCESS = {AttachWay.SESSION: 8, AttachWay.MULTI: 12, AttachWay.PERF: 60}
#: For everything else: maps, programs, libraries, workers, and the links of processes that have just ended.
_OTHER_FILES = 150


def allow_files() -> None:
    """Open as many files as this user may. A command that is to find the usual limit must have been started before."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def room_for_processes(way: AttachWay) -> int:
    """Return how many processes can be traced at the same time before files run out; one at the least."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 1 << 30
    return max(1, (limit - _OTHER_FILES) // _FILES_OF_PROCESS[way])
