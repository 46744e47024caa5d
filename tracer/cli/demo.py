"""leaktrace demo: trace a small program that leaks, to see what a report says."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tracer.errors import CannotTrace
from tracer.settings import Settings

SOURCE = Path(__file__).with_name("demo.c")
#: Optimized and without frame pointers, as distributions build.
COMPILE = ("gcc", "-O2", "-g", "-fomit-frame-pointer")

INTRODUCTION = """\
A small server that leaks is running as process {pid}. Its source is {source}
What follows is what `leaktrace -p {pid} --reachability` does: two reports, 2 s apart.
"""
LESSON = """\
What you saw: nothing points to the blocks of copy_header() any more, so they are lost; the second report says how
fast. A report names who allocated; who forgot to free is its caller, handle_request(), where it refuses a request.
remember_user() is a cache that only grows: its blocks are reachable, and a few seconds more would call it growing.
render_page() allocated more than both, and freed it: it is absent.
Next, a process of your own: sudo leaktrace -p PID
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Trace a small program that leaks, for about 5 seconds: shows what a report says, and that tracing works here."""
    from tracer.cli.running import run_trace

    with tempfile.TemporaryDirectory(prefix="leaktrace-demo-") as folder:
        program = Path(folder) / "leaky-server"
        compile_demo(program)
        with running(program) as pid:
            click.echo(INTRODUCTION.format(pid=pid, source=SOURCE), err=True)
            code = run_trace(Settings(pids=(pid,), interval=2, count=2, reachability=True))
    if code:
        raise click.exceptions.Exit(code)
    click.echo("\n" + LESSON, err=True, nl=False)


def compile_demo(program: Path) -> None:
    """Compile demo.c to program. Raises CannotTrace without a compiler that can."""
    # The map has the report say demo.c:32, not the whole path, which has been said.
    arguments = [*COMPILE, f"-fdebug-prefix-map={SOURCE.parent}=.", "-o", str(program), SOURCE.name]
    try:
        answer = subprocess.run(arguments, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotTrace("The demo compiles a small C program, and there is no gcc here.",
                          "Install gcc and libc6-dev, or trace a process that is running: leaktrace -p PID") from None
    if answer.returncode:
        said = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[0]
        raise CannotTrace(f"gcc cannot compile the demo's program: {said}",
                          "Install gcc and libc6-dev, or trace a process that is running: leaktrace -p PID")


@contextmanager
def running(program: Path) -> Iterator[int]:
    """Run program, from when it has said that it serves until the block ends; gives its pid."""
    # In a process group of its own: Ctrl-C asks leaktrace for its last report, and must not end what it traces.
    with subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise CannotTrace("The demo's program ended at once.",
                                  "See whether programs may run in the temporary folder (noexec), or set TMPDIR.")
            yield process.pid
        finally:
            process.kill()
