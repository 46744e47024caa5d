"""leaktrace report FILE: what a recording says, in any format."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import click

from symbolizer.choices import Style
from tracer.cli.options import showing
from tracer.cli.values import Positive
from tracer.errors import UsageError
from tracer.report.formats import FORMATS, naming_sites
from tracer.report.terminal_look import laid_out_writer


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done, 2 no such recording, or wrong usage.")
@click.argument("recording", type=click.Path(), metavar="FILE")
@click.option("--format", type=click.Choice(list(FORMATS)), default="text", show_default=True,
              help="; ".join(f"{name}: {each.meaning}" for name, each in FORMATS.items()) + ".")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE",
              help="Write here and not to standard output.")
@click.option("--at", type=Positive(whole=False, minimum=0), metavar="SECONDS",
              help="The report that was made by then, counted from the start of the trace; without it, the last.")
@click.option("--all", "every", is_flag=True, help="Every report of the recording, in their order.")
@click.option("-T", "--top", type=Positive(whole=True), metavar="N",
              help="So many sites. Without it 10 as text, and all in other formats.")
@click.option("--sort", type=click.Choice(["loss", "size", "count"]), default="loss", show_default=True,
              help="Order of sites: by what they are expected to lose, then by size; or by size or blocks only.")
@showing
@click.option("--debug-dir", "debug_folders", type=click.Path(file_okay=False), multiple=True, metavar="DIR",
              help="Name the frames again from the debug files in DIR, found by build id. May be given several times.")
def command(recording: str, output: str | None, at: float | None, every: bool, **options: Any) -> int:
    """Report what FILE, made with --record, says. Needs neither root nor the machine it comes from."""
    from tracer.recording import load

    found = load(recording)
    form = FORMATS[options["format"]]
    if options["format"] == "openmetrics":
        from tracer.judge.fingerprint import fingerprint

        form = naming_sites(fingerprint)
    if every and not form.many:
        raise UsageError(f"--format {options['format']} has room for one report.", "Leave --all out.")
    if form.binary and output is None and sys.stdout.isatty():
        raise UsageError(f"--format {options['format']} is nothing for a terminal.", "Name a file with -o.")
    if every and at is not None:
        raise UsageError("--at asks for one report, --all for every one.", "Leave one of them out.")
    if found.truncated:
        click.echo(f"leaktrace: {recording} ends within a report: the trace, or its disk, came to an end. "
                   f"This is up to the last whole one, {found.times[-1]:.0f} s after its start.", err=True)
    if options["debug_folders"]:
        from tracer.late_names import rename

        style = found.facts.settings.get("demangle")
        said = rename(found, options["debug_folders"], Style(style) if style in list(Style) else Style.FULL)
        click.echo(f"leaktrace: {said}", err=True)
    show = None
    if output is None and options["format"] == "text":
        show = laid_out_writer(sys.stdout, options["color"], options["exact_bytes"])
    number = len(found) - 1 if at is None else found.at(at)
    top = options["top"] or form.top
    with ExitStack() as files:
        out = sys.stdout.buffer if output is None else files.enter_context(_create(output))
        for each in range(len(found)) if every else (number,):
            if show is not None:
                show(found.report(each, top, options["sort"]), sys.stdout)
            else:
                form.write(found, each, top, options["sort"], out)
        out.flush()
    if show is None and options["format"] == "text":
        # A trace says them beside its reports, too.
        for loss in found.report(number, 0).losses:
            click.echo(f"leaktrace: {loss.count} {loss.meaning}: {loss.remedy}", err=True)
    return 0


def _create(path: str) -> Any:
    try:
        return open(path, "wb")
    except OSError as problem:
        raise UsageError(f"{path} cannot be written: {problem.strerror}.", "Name another file.") from None
