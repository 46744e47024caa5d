"""leaktrace diff BEFORE AFTER: what changed between two traces."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.report import _create
from tracer.cli.values import ParamType, Positive
from tracer.errors import ExitCode, UsageError
from tracer.report.diff_formats import DIFF_FORMATS

if TYPE_CHECKING:
    from tracer.report.diff_model import Per, Side

#: A unit of its own, which needs no numbers.
_SECOND = "second"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,39}")


class _Moments(ParamType):
    """SECONDS[:SECONDS]"""

    name = "SECONDS[:SECONDS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        first, _, second = str(value).partition(":")
        kind = Positive(whole=False, minimum=0)
        before, after = (float(kind.convert(text, param, ctx)) for text in (first, second or first))
        return before, after


class _Unit(ParamType):
    """second or NAME=BEFORE:AFTER; None in place of numbers where they are those of the traces."""

    name = "second|NAME=BEFORE:AFTER"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[str, tuple[float, float] | None]:
        if isinstance(value, tuple):
            return value
        if value == _SECOND:
            return _SECOND, None
        name, equals, numbers = str(value).rpartition("=")
        before, colon, after = numbers.partition(":")
        if not equals or not colon or not _NAME.fullmatch(name):
            self.fail(f"{value!r} is neither 'second' nor NAME=BEFORE:AFTER, such as request=120000:118000.",
                      param, ctx)
        kind = Positive(whole=False, maximum=1e15)
        return name, (float(kind.convert(before, param, ctx)), float(kind.convert(after, param, ctx)))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done; 23 over a budget of --fail-on; 4 where a budget was given and the two are "
                      "not comparable, or not complete; 2 no such file, or wrong usage.")
@click.argument("before", type=click.Path(), metavar="BEFORE")
@click.argument("after", type=click.Path(), metavar="AFTER")
@click.option("--format", type=click.Choice(list(DIFF_FORMATS)), default="text", show_default=True,
              help="; ".join(f"{name}: {each.meaning}" for name, each in DIFF_FORMATS.items()) + ".")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write here and not to standard output.")
@click.option("--at", type=_Moments(), metavar="SECONDS[:SECONDS]",
              help="The reports that were made by then, counted from the start of each trace; with a colon, of BEFORE "
                   "and of AFTER. Without it, the last ones.")
@click.option("--per", type=_Unit(), metavar="second|NAME=BEFORE:AFTER",
              help="Divide figures by how long each trace took, or by a number of your own, such as the requests that "
                   "each served: request=120000:118000.")
@click.option("-T", "--top", type=Positive(whole=True), metavar="N",
              help="So many sites. Without it 10 as text, and all in other formats.")
@click.option("--sort", type=click.Choice(["size", "count"]), default="size", show_default=True,
              help="The largest change first, in bytes or in blocks.")
@click.option("--fail-on", "budgets", multiple=True, metavar="EXPR",
              help="Fail if this is true of the change of any site, such as 'bytes>64k', 'percent>10' or 'state==new "
                   "and count>100', or of the sums: 'total_bytes>1M'. May be given several times.")
@click.option("--error-exitcode", type=Positive(whole=True, minimum=1, maximum=255), default=int(ExitCode.LEAKS),
              show_default=True, metavar="N", help="The exit code over budget.")
def command(before: str, after: str, **options: Any) -> int:
    """Compare two traces, each a recording of --record or a report of --format json, site by site.

    Sites are matched by the names of the functions on their stacks, so that BEFORE and AFTER may be different builds.
    Needs neither root nor the machines they come from.
    """
    from tracer.diff import difference
    from tracer.diff_gate import judge, parse
    from tracer.diff_inputs import read

    if options["error_exitcode"] in (ExitCode.USAGE, ExitCode.CANNOT_TRACE, ExitCode.INCOMPLETE):
        raise UsageError(f"--error-exitcode {options['error_exitcode']} means something else already.",
                         "Give another number.")
    budgets = [parse(text) for text in options["budgets"]]
    moments = options["at"] or (None, None)
    sides = read(before, moments[0]), read(after, moments[1])
    made = difference(*sides, per=_per(options["per"], *sides), sort=options["sort"])
    judgement = judge(made, budgets, options["error_exitcode"])
    made = replace(made, judgement=judgement)
    form = DIFF_FORMATS[options["format"]]
    with ExitStack() as files:
        out = sys.stdout.buffer if options["output"] is None else files.enter_context(_create(options["output"]))
        form.write(made, options["top"] or form.top, out)
        out.flush()
    if options["format"] != "text" or options["output"] is not None:
        for line in (*(f"WARNING: {warned.text}." for warned in made.warnings), judgement.conclusion):
            click.echo(f"leaktrace: {line}" if line else "", err=True, nl=bool(line))
    return judgement.exit_code


def _per(asked: tuple[str, tuple[float, float] | None] | None, before: Side, after: Side) -> Per | None:
    """Return what to divide by. Raises UsageError where a trace took no time."""
    from tracer.report.diff_model import Per

    if asked is None:
        return None
    name, numbers = asked
    if numbers is None:
        numbers = before.report.elapsed_s, after.report.elapsed_s
        if not 0 < min(numbers) <= max(numbers) < inf:
            raise UsageError("--per second: one of the traces took no time.", "Leave it out.")
    return Per(name, *numbers)
