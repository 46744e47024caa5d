"""What a session names addresses with: the symbolizer, and where debug files and tables come from."""

from __future__ import annotations

import os
from collections.abc import Callable

from symbolizer.cache_folder import CacheFolder, default_folder
from symbolizer.debug_files import FOLDERS, DebugFiles
from symbolizer.line_service import LineService
from symbolizer.patience import wait_for
from symbolizer.symbolizer import Symbolizer
from tracer.listener import Listener
from tracer.settings import Settings

#: Tables of source lines that are kept between runs: some 10% of the DWARF they were made from.
LINE_CACHE_BYTES = 1 << 30


def make_symbolizer(settings: Settings, listener: Listener, idle: Callable[[], object]) -> Symbolizer:
    """Return a symbolizer as settings ask for it; idle is called while it waits for something."""
    downloads = _Downloads(listener, idle) if os.environ.get("DEBUGINFOD_URLS") else None
    return Symbolizer(
        style=settings.demangle,
        debug_files=DebugFiles((*settings.debug_folders, *FOLDERS), downloads),
        cache=CacheFolder(default_folder() / "lines", LINE_CACHE_BYTES),
        lines=LineService(idle),
    )


class _Downloads:
    """debuginfod, asked on a thread: a download may take minutes, and the kernel side does not wait for it."""

    def __init__(self, listener: Listener, idle: Callable[[], object]) -> None:
        # Loaded where somebody has set it up: it takes longer than a small report.
        from symbolizer.debuginfod import Debuginfod

        self._idle = idle
        self._client = Debuginfod.from_environment(os.environ, progress=listener.progress)

    def debuginfo(self, build_id: str, name: str | None = None) -> str | None:
        """Return the path of the debug file with that build id (debug_files.Downloads)."""
        client = self._client
        return wait_for(lambda: client.debuginfo(build_id, name), self._idle) if client is not None else None
