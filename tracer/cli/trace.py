"""leaktrace [OPTIONS] [INTERVAL [COUNT]]: trace a running process or a command, and report."""

from __future__ import annotations

import shlex
from typing import Any

import click
from click.core import ParameterSource

from tracer import VERSION
from tracer.cli import candidates
from tracer.cli import options as options_
from tracer.cli.exported import NAMES as EXPORTED
from tracer.cli.exported import Exports, exporting
from tracer.cli.options import GATING
from tracer.cli.values import Positive
from tracer.errors import UsageError
from tracer.limits import MAX_SLOTS
from tracer.settings import AttachWay, Settings

#: memleak's options for a trace of the kernel.
KERNEL_ONLY = ("percpu", "wa_missing_free")
#: What a trace of the kernel knows of this command's options.
SHARED = ("interval", "count", "show_allocs", "older_ms", "min_size", "max_size", "top", "sort", "duration", "format",
          "max_outstanding", "max_stacks", "depth", "raw_stacks", "verbose", "ebpf", "hash_map",
          "color", "exact_bytes", "record", "live", *EXPORTED)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done, 2 wrong usage, 3 cannot trace.")
@click.argument("interval", type=Positive(whole=False), default=5.0)
@click.argument("count", type=Positive(whole=True), required=False)
@click.option("-p", "--pid", "pids", type=Positive(whole=True), multiple=True, metavar="PID",
              shell_complete=candidates.pids, help="Trace this process; may be given several times.")
@click.option("-c", "--command", shell_complete=candidates.files,
              help="Start and trace this command, from its first instruction.")
@options_.selecting
@options_.following
@click.option("-t", "--trace", "trace_events", is_flag=True, help="Also print each allocation and free as it happens.")
@click.option("-a", "--show-allocs", is_flag=True, help="Also print the address and size of each outstanding block.")
@click.option("-o", "--older", "older_ms", type=Positive(whole=False, minimum=0), metavar="MS",
              help="Only count blocks older than this many milliseconds. Without it, all are counted.")
@click.option("--combined-only", is_flag=True, help="memleak's cheap mode; leaktrace is always that cheap.")
@options_.sampling
@click.option("-T", "--top", type=Positive(whole=True), default=10, show_default=True, help="Show this many sites.")
@options_.allocators
@click.option("--sort", type=click.Choice(["loss", "size", "count"]), default="loss", show_default=True,
              help="Order of sites: by what they are expected to lose, then by size; or by size or blocks only.")
@options_.judging
@click.option("-d", "--duration", type=Positive(whole=False), metavar="SECONDS", help="End after this time.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document per report and line, schema leaktrace/1.")
@options_.showing
@options_.saving
@options_.living
@exporting
@options_.recording
@click.option("-v", "--verbose", is_flag=True, help="Say where each probe sits and how long reports take.")
@click.option("--ebpf", is_flag=True, help="Print the C program, and end.")
@click.option("--bare-traps", is_flag=True, hidden=True, help="Attach programs that do nothing, to measure the traps.")
@click.option("--hash-map", is_flag=True, hidden=True, help="Keep blocks as on kernels without atomics (before 5.12).")
@click.option("--percpu", is_flag=True, hidden=True)
@click.option("--wa-missing-free", is_flag=True, hidden=True)
@click.version_option(VERSION)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Name the call sites that hold memory which a running process does not give back.

    Every INTERVAL seconds (default 5), COUNT times (default: until Ctrl-C), print the sites with the most outstanding
    bytes and their stacks. memleak's command lines mean the same here.

    Other commands, each with a --help of its own: run (a command, and fail if it leaks), kernel (the kernel's memory),
    report and diff (recordings), doctor (what works here), demo, completion, man.
    """
    options.pop("combined_only")
    if options["live"] and ctx.get_parameter_source("interval") is ParameterSource.DEFAULT:
        options["interval"] = options_.LIVE_INTERVAL
    # The program of a trace of processes can be printed without one.
    if not any(options[name] for name in ("pids", "command", "comms", "cgroups", "containers", "ebpf")):
        return _trace_kernel(options, ctx)
    for flag in KERNEL_ONLY:
        if options.pop(flag):
            raise UsageError(f"--{flag.replace('_', '-')} is for the kernel's allocations, and a process is named.",
                             "Leave one of them out.")
    ebpf, record, live = options.pop("ebpf"), options.pop("record"), options.pop("live")
    exported = {name: options.pop(name) for name in EXPORTED}
    settings = build_settings(options)
    if ebpf:
        import bpf

        click.echo(bpf.source(settings.definitions(settings.attach or AttachWay.SESSION)))
        return 0
    from tracer.cli.running import run_trace

    return run_trace(settings, record, live=live, exports=Exports.begin(exported, live=live))


def _trace_kernel(options: dict[str, Any], ctx: click.Context) -> int:
    """Trace the kernel, as memleak does where no process is named."""
    given = [name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    other = [name for name in given if name not in (*SHARED, *KERNEL_ONLY)]
    if other:
        flags = ", ".join(max(parameter.opts, key=len) for parameter in ctx.command.params if parameter.name in other)
        raise UsageError(f"{flags} is for a process, and none is named; without one, leaktrace traces the kernel.",
                         "Name a process with -p, --comm, --cgroup or --container, or a command with -c.")
    from tracer.cli.kernel import start

    # memleak traces memory per processor instead of the rest.
    percpu = options["percpu"]
    return start({name: options[name] for name in SHARED} | dict.fromkeys(GATING) | {
        "slab": not percpu, "pages": not percpu, "percpu": percpu, "vmalloc": False, "pids": (), "cgroups": (),
        "command": ()})


def build_settings(options: dict[str, Any]) -> Settings:
    """Return the settings that this command's options mean. Raises UsageError where they contradict each other."""
    options["pids"] = tuple(dict.fromkeys(options["pids"]))
    command_line = options.pop("command")
    options["command"] = _words(command_line) if command_line is not None else ()
    settings = options_.build_settings(options)
    if settings.selects and (settings.pids or settings.command):
        raise UsageError("--comm, --cgroup and --container say themselves which processes to trace.",
                         "Leave -p and -c out.")
    if settings.pids and settings.command:
        raise UsageError("-p and -c cannot be given together.", "Trace the process and the command in two runs.")
    if len(settings.pids) > MAX_SLOTS:
        raise UsageError(f"{len(settings.pids)} processes are more than {MAX_SLOTS}.", "Trace fewer at once.")
    return settings


def _words(command_line: str) -> tuple[str, ...]:
    """Split a command as a shell does."""
    try:
        words = tuple(shlex.split(command_line))
    except ValueError as problem:
        raise UsageError(f"The command {command_line!r} cannot be split into words: {problem}.",
                         "Check its quotes.") from None
    if not words:
        raise UsageError("The command of -c is empty.", "Name a program to run.")
    return words
