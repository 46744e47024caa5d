"""The names of the containers that traced processes are in, asked when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from symbolizer.patience import wait_for
from tracer.attach.container import Container
from tracer.attach.tracee import Tracee


class ContainerNames:
    """Names containers for one session."""

    def __init__(self, idle: Callable[[], object]) -> None:
        """idle is called while a runtime is waited for, which may take a second to answer."""
        self._idle = idle
        self._named: Callable[[Container], Container] | None = None

    def complete(self, tracees: Iterable[Tracee]) -> None:
        """Give the container of each process its name, where its runtime tells it."""
        for tracee in tracees:
            if tracee.container is None or tracee.container.name is not None:
                continue
            if self._named is None:
                # It takes long to import, and few processes are in a container.
                from tracer.attach.container_names import Names

                self._named = Names().named
            tracee.container = wait_for(partial(self._named, tracee.container), self._idle)
