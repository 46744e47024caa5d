"""What a shell may complete a word of the command line with, where the option's type does not say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from symbolizer.printable import printable

PROC = Path("/proc")
#: Words of a process's command line that tell it from its like, in characters.
_COMMAND_LINE = 60


def pids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return processes whose id, or whose name, begins so; the name and command line explain the id."""
    return [CompletionItem(str(pid), help=f"{name} ({line})" if line else name)
            for pid, name, line in _processes(PROC) if str(pid).startswith(incomplete)
            or (incomplete and name.startswith(incomplete))]


def comms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of processes that begin so."""
    return [CompletionItem(name) for name in sorted({name for _, name, _ in _processes(PROC)})
            if name.startswith(incomplete)]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows files."""
    return [CompletionItem(incomplete, type="file")]


def words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return programs for the first word of a command; the others are files, as far as anybody can tell."""
    return command(ctx.params.get("words") or (), incomplete)


def command(before: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    """Return what the next word of a command may be; before: its words so far."""
    if before or "/" in incomplete or not incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(set(_programs(incomplete)))]


def _processes(proc: Path) -> Iterator[tuple[int, str, str]]:
    """Give id, name and command line of the processes of programs, but not of this one and the shell's helper."""
    own = {os.getpid(), os.getppid()}
    for entry in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):
        if entry in own:
            continue
        try:
            line = (proc / str(entry) / "cmdline").read_bytes()
            name = (proc / str(entry) / "comm").read_bytes()
        except OSError:
            continue
        # Those of the kernel have none.
        if line:
            yield entry, _shown(name), _shown(line.replace(b"\0", b" "))[:_COMMAND_LINE]


def _shown(content: bytes) -> str:
    return printable(content.decode("utf-8", "backslashreplace").strip())


def _programs(begin: str) -> Iterator[str]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        try:
            with os.scandir(folder or ".") as entries:
                yield from (entry.name for entry in entries
                            if entry.name.startswith(begin) and os.access(entry.path, os.X_OK))
        except OSError:
            continue
