"""leaktrace run [OPTIONS] -- COMMAND: trace a command from its first instruction to its last, and judge it."""

from __future__ import annotations

from typing import Any

import click

from tracer.cli import candidates
from tracer.cli import options as options_
from tracer.cli.values import Positive
from tracer.errors import UsageError


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100,
                      "allow_interspersed_args": False},
    epilog="Exit codes: the command's own (128 + N for signal N); 23 over a budget of --fail-on; 4 where a budget was "
           "given and the measurement is not complete; 2 wrong usage, 3 cannot trace.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...",
                shell_complete=candidates.words)
@options_.gating
@options_.judging
@options_.following
@click.option("--ignore-children", is_flag=True,
              help="Judge the command alone, though processes that it starts are not traced.")
@click.option("--output", type=click.Path(), metavar="FILE", help="Write the report here and not to standard error.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document, schema leaktrace/1, with all sites.")
@options_.showing
@click.option("--as-root", is_flag=True, help="Under sudo, run the command as root and not as who called sudo.")
@click.option("-T", "--top", type=Positive(whole=True), default=10, show_default=True,
              help="Show this many of the sites that did not fail.")
@options_.sampling
@options_.allocators
@options_.saving
@options_.recording
@click.option("-v", "--verbose", is_flag=True, help="Say where each probe sits and how long things take.")
def command(**options: Any) -> int:
    """Trace COMMAND from its first instruction to its last, and report what it did not free.

    The command's input, output, signals and exit code are its own. The report goes to standard error.
    """
    if options["demangle"] != "full":
        raise UsageError(f"--demangle {options['demangle']} does not go with run: it judges sites by their full names.",
                         "Leave it out.")
    from tracer.cli.gated import run

    return run(options)
