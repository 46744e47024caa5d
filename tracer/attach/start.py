"""The first steps of a trace, which need little: find the target, start the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tracer.attach import kernel
from tracer.attach.compiler import Compilation
from tracer.attach.open_files import allow_files
from tracer.attach.selection import Selection, select
from tracer.attach.spawn import HeldCommand
from tracer.attach.target import Process, children, find_process
from tracer.attach.user import invoking_user
from tracer.errors import CannotTrace
from tracer.settings import AttachWay, Settings


@dataclass(frozen=True, slots=True)
class Prepared:
    """Targets that exist, a command that is held, and a program that is being compiled."""

    processes: tuple[Process, ...]
    selection: Selection | None
    command: HeldCommand | None
    way: AttachWay
    compilation: Compilation


def prepare(settings: Settings) -> Prepared:
    """Begin a trace. Raises CannotTrace; a command that was started is ended then."""
    kernel.require_platform()
    selection = select(settings)
    settings = replace(settings, tell_every_exec=selection is not None and not selection.tells_apart())
    processes = [find_process(pid) for pid in settings.pids]
    if settings.follow_forks:
        processes = _with_descendants(processes)
    # Before any thread exists: the child of a fork has but one.
    command = HeldCommand(settings.command, None if settings.as_root else invoking_user()) if settings.command else None
    try:
        if command:
            processes.append(find_process(command.pid))
        way = kernel.choose_attach_way(settings.attach)
        atomics = not settings.hash_map and kernel.has_atomics()
    except BaseException:
        if command:
            command.kill()
        raise
    allow_files()
    return Prepared(tuple(processes), selection, command, way, Compilation(settings, way, atomics=atomics))


def _with_descendants(processes: Sequence[Process]) -> list[Process]:
    """Return the processes, and those that they have made so far, parents first."""
    found = {process.pid: process for process in processes}
    waiting = list(found)
    while waiting:
        for child in children(waiting.pop()):
            if child not in found:
                with suppress(CannotTrace):
                    found[child] = find_process(child)
                    waiting.append(child)
    return list(found.values())
