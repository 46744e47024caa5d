"""leaktrace run [OPTIONS] -- COMMAND: trace a command from its first instruction to its last, and judge it."""

from __future__ import annotations

from typing import Any

import click

from tracer.cli import options as options_
from tracer.cli.values import Positive
from tracer.errors import ExitCode, UsageError


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100,
                      "allow_interspersed_args": False},
    epilog="Exit codes: the command's own (128 + N for signal N); 23 over a budget of --fail-on; 4 where a budget was "
           "given and the measurement is not complete; 2 wrong usage, 3 cannot trace.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
@click.option("--fail-on", "budgets", multiple=True, metavar="EXPR",
              help="Fail if this is true of any site, such as 'bytes>64k' or 'count>100 and growth_bytes_per_s>0', or "
                   "of the sums: 'total_bytes>1M'. May be given several times.")
@click.option("--error-exitcode", type=Positive(whole=True, minimum=1, maximum=255), default=int(ExitCode.LEAKS),
              show_default=True, metavar="N", help="The exit code of a run over budget.")
@click.option("--suppressions", type=click.Path(), multiple=True, metavar="FILE",
              help="Accept the leaks of this file, in LeakSanitizer's or valgrind's form.")
@click.option("--no-default-suppressions", is_flag=True,
              help="Also report what glibc, its loader and libstdc++ keep on purpose.")
@click.option("--print-suppressions", is_flag=True, help="Also print a suppression for each site that is reported.")
@click.option("--baseline", type=click.Path(), metavar="FILE",
              help="Accept what a report saved with --format json has, unless it grew.")
@options_.judging
@options_.following
@click.option("--ignore-children", is_flag=True,
              help="Judge the command alone, though processes that it starts are not traced.")
@click.option("--junit", type=click.Path(), metavar="FILE", help="Also write the judgement as JUnit XML.")
@click.option("--sarif", type=click.Path(), metavar="FILE", help="Also write the judgement as SARIF 2.1.0.")
@click.option("--github", is_flag=True, help="Also write annotations for GitHub Actions to standard output.")
@click.option("--output", type=click.Path(), metavar="FILE", help="Write the report here and not to standard error.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document, schema leaktrace/1, with all sites.")
@click.option("--as-root", is_flag=True, help="Under sudo, run the command as root and not as who called sudo.")
@click.option("-T", "--top", type=Positive(whole=True), default=10, show_default=True,
              help="Show this many of the sites that did not fail.")
@options_.sampling
@options_.allocators
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
