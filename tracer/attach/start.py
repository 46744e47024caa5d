"""The first steps of a trace, which need little: find the target, start the compiler."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.attach import kernel
from tracer.attach.compiler import Compilation
from tracer.attach.spawn import HeldCommand
from tracer.attach.target import Process, find_process
from tracer.attach.user import invoking_user
from tracer.settings import AttachWay, Settings


@dataclass(frozen=True, slots=True)
class Prepared:
    """Targets that exist, a command that is held, and a program that is being compiled."""

    processes: tuple[Process, ...]
    command: HeldCommand | None
    way: AttachWay
    compilation: Compilation


def prepare(settings: Settings) -> Prepared:
    """Begin a trace. Raises CannotTrace; a command that was started is ended then."""
    kernel.require_platform()
    processes = [find_process(pid) for pid in settings.pids]
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
    return Prepared(tuple(processes), command, way, Compilation(settings, way, atomics=atomics))
