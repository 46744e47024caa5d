"""What a process must have to be traced; without it, the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Sequence

from tracer.attach.seccomp import would_end
from tracer.attach.tracee import Tracee
from tracer.errors import CannotTrace
from tracer.listener import Listener
from tracer.settings import AttachWay, Settings


def require_allocator(tracee: Tracee, settings: Settings, listener: Listener) -> None:
    """Raise CannotTrace if a process has nothing that allocates, unless it may still load what the user has named."""
    if tracee.knows_allocator() or not tracee.alive:
        return
    searched = ", ".join(sorted(set(tracee.searched.values()))) or "none"
    if tracee.may_load_more() and (settings.object_path or settings.symbols_prefix):
        # The user knows of one that is not there yet.
        listener.notice(f"process {tracee.process.pid} has not loaded that allocator yet; waiting for it "
                        f"(searched: {searched})")
        return
    if tracee.is_go():
        raise CannotTrace(
            f"Process {tracee.process.pid} ({tracee.process.comm}) is a Go program without C in it: its memory comes "
            "from Go's own runtime.",
            "Use Go's own profiler: import net/http/pprof, then go tool pprof http://HOST:PORT/debug/pprof/heap.")
    raise CannotTrace(
        f"Process {tracee.process.pid} ({tracee.process.comm}) has no allocator that leaktrace knows; searched: "
        f"{searched}.",
        "Name a library with -O, a prefix with --symbols-prefix, or the functions with --alloc-fn and --free-fn.")


def require_survival(tracees: Sequence[Tracee], way: AttachWay) -> None:
    """Raise CannotTrace if a return probe could end one of these."""
    filtered = next((tracee.process for tracee in tracees if would_end(tracee.process.folder, way)), None)
    if filtered is not None:
        raise CannotTrace(
            f"Process {filtered.pid} ({filtered.comm}) runs under a seccomp filter, and on this kernel a filter ends "
            "processes that return from a probed function.",
            "Use a kernel from 6.14 on or the latest of your stable series, or start the container with "
            "--security-opt seccomp=unconfined.")
