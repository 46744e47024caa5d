"""A program under a seccomp filter is traced where it survives that, which is tried on a child first."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.conftest import RunningProgram, Starter, site
from tracer.attach.kernel import choose_attach_way
from tracer.attach.seccomp import has_filter, return_probes_survive
from tracer.errors import CannotTrace
from tracer.requirements import require_survival
from tracer.settings import AttachWay

Build = Callable[..., Path]
SYS_EXIT_GROUP, SYS_GETPPID = 231, 110


def works(way: AttachWay) -> bool:
    try:
        choose_attach_way(way)
    except CannotTrace:
        return False
    return True


@pytest.mark.parametrize("way", list(AttachWay))
def test_the_trial_tells_life_from_death(way: AttachWay) -> None:
    """A filter that kills the child for what it surely does is told from one for what it never does."""
    if not works(way):
        pytest.skip(f"this kernel does not attach by {way}")
    assert return_probes_survive(way, (SYS_GETPPID,)) is True
    assert return_probes_survive(way, (SYS_EXIT_GROUP,)) is False


def test_the_trial_leaves_nothing_behind() -> None:
    """No process and no open file is left, however it ends."""
    way = choose_attach_way()
    before = set(os.listdir("/proc/self/fd"))
    return_probes_survive(way, (SYS_EXIT_GROUP, SYS_GETPPID))
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_filtered_program_is_traced_unharmed(
    build: Build, run_program: Callable[..., RunningProgram], leaktrace: Starter
) -> None:
    """Its allocations are counted, and it goes on to its own end."""
    program = run_program(build("seccomp_filter.c"))
    assert has_filter(Path(f"/proc/{program.pid}"))
    trace = leaktrace.attach(program)
    program.work()
    assert site(trace.stop().report, "keep").live == (300, 3)
    assert program.finish() == 0


def test_without_a_filter_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a filter costs no trial; one with a filter that it would not survive is refused, with a remedy."""

    class Fake:
        def __init__(self, pid: int) -> None:
            self.process = self
            self.pid, self.comm, self.folder = pid, "x", Path(f"/proc/{pid}")

    def never(way: AttachWay) -> bool:
        return False

    monkeypatch.setattr("tracer.attach.seccomp.return_probes_survive", never)
    require_survival([Fake(os.getpid())], AttachWay.SESSION)  # type: ignore[list-item]
    monkeypatch.setattr("tracer.attach.seccomp.has_filter", lambda folder: True)
    with pytest.raises(CannotTrace, match="seccomp filter") as caught:
        require_survival([Fake(os.getpid())], AttachWay.SESSION)  # type: ignore[list-item]
    assert "seccomp=unconfined" in caught.value.remedy
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
