"""leaktrace [OPTIONS] [INTERVAL [COUNT]]: trace a running process or a command, and report."""

from __future__ import annotations

from typing import Any

import click

from symbolizer.demangle import Style
from symbolizer.grouping import GroupBy
from tracer import VERSION
from tracer.cli.values import AllocFunction, FreeFunction, Positive, Size
from tracer.errors import UsageError
from tracer.limits import MAX_SLOTS
from tracer.settings import AttachWay, Settings, UnwindWay

#: memleak's options for kernel allocations, which this command does not do.
WHOM = "Name a process with -p, or a command with -c."
KERNEL_ONLY = "traces kernel allocations, which leaktrace does not do yet."


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done, 2 wrong usage, 3 cannot trace.")
@click.argument("interval", type=Positive(whole=False), default=5.0)
@click.argument("count", type=Positive(whole=True), required=False)
@click.option("-p", "--pid", "pids", type=Positive(whole=True), multiple=True, metavar="PID",
              help="Trace this process; may be given several times.")
@click.option("-c", "--command", help="Start and trace this command, from its first instruction.")
@click.option("-t", "--trace", "trace_events", is_flag=True, help="Also print each allocation and free as it happens.")
@click.option("-a", "--show-allocs", is_flag=True, help="Also print the address and size of each outstanding block.")
@click.option("-o", "--older", "older_ms", type=Positive(whole=False, minimum=0), metavar="MS",
              help="Only count blocks older than this many milliseconds. Without it, all are counted.")
@click.option("--combined-only", is_flag=True, help="memleak's cheap mode; leaktrace is always that cheap.")
@click.option("-s", "--sample-rate", type=Positive(whole=True, maximum=1_000_000), default=1, metavar="N",
              help="Look at one allocation in N, by chance, and scale the report up.")
@click.option("--sample-bytes", type=Size(1, 1 << 30), default=0, metavar="BYTES",
              help="Look at one allocation in about BYTES allocated bytes, and scale up. 512k is a good one.")
@click.option("-T", "--top", type=Positive(whole=True), default=10, show_default=True, help="Show this many sites.")
@click.option("-z", "--min-size", type=Size(), metavar="BYTES", help="Only allocations of at least this size.")
@click.option("-Z", "--max-size", type=Size(), metavar="BYTES", help="Only allocations of at most this size.")
@click.option("-O", "--obj", "object_path", metavar="OBJECT",
              help="Trace the allocator in this library or executable, instead of those found.")
@click.option("--symbols-prefix", default="", metavar="PREFIX", help="The allocator's functions begin with this.")
@click.option("--alloc-fn", "alloc_functions", type=AllocFunction(), multiple=True,
              help="Also trace this function as one that allocates. Arguments count from 0.")
@click.option("--free-fn", "free_functions", type=FreeFunction(), multiple=True,
              help="Also trace this function as one that frees.")
@click.option("--sort", type=click.Choice(["size", "count"]), default="size", show_default=True, help="Order of sites.")
@click.option("-d", "--duration", type=Positive(whole=False), metavar="SECONDS", help="End after this time.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document per report and line, schema leaktrace/1.")
@click.option("--max-outstanding", type=Positive(whole=True, maximum=1 << 28), default=1_000_000, show_default=True,
              metavar="N", help="Room for this many live blocks.")
@click.option("--max-stacks", type=Positive(whole=True, maximum=1 << 20), default=32_768, show_default=True,
              metavar="N", help="Room for this many different stacks.")
@click.option("--depth", type=Positive(whole=True, maximum=127), default=64, show_default=True, metavar="FRAMES",
              help="Frames kept of each stack.")
@click.option("--attach", type=click.Choice([way.value for way in AttachWay]),
              help="Attach probes in this way only, instead of the best that works.")
@click.option("--unwind", type=click.Choice([way.value for way in UnwindWay]), default="cfi", show_default=True,
              help="Unwind stacks by call frame information, or by frame pointers only.")
@click.option("--group-by", type=click.Choice([by.value for by in GroupBy]), default=GroupBy.LINE.value,
              show_default=True, help="Stacks are one site if their functions, their functions and lines, or their addresses are the same.")
@click.option("--raw-stacks", is_flag=True,
              help="Leave stacks as they were recorded: with the allocator's own frames, recursion, each one a site.")
@click.option("--demangle", type=click.Choice([style.value for style in Style]), default=Style.FULL.value,
              show_default=True, help="C++ and Rust names: all of them, without long arguments, or as the linker has them.")
@click.option("--debug-dir", "debug_folders", type=click.Path(file_okay=False), multiple=True, metavar="DIR",
              help="Look for debug files here too, as below /usr/lib/debug.")
@click.option("-v", "--verbose", is_flag=True, help="Say where each probe sits and how long reports take.")
@click.option("--ebpf", is_flag=True, help="Print the C program, and end.")
@click.option("--bare-traps", is_flag=True, hidden=True, help="Attach programs that do nothing, to measure the traps.")
@click.option("--hash-map", is_flag=True, hidden=True, help="Keep blocks as on kernels without atomics (before 5.12).")
@click.option("--percpu", is_flag=True, hidden=True)
@click.option("--wa-missing-free", is_flag=True, hidden=True)
@click.version_option(VERSION)
def command(**options: Any) -> None:
    """Name the call sites that hold memory which a running process does not give back.

    Every INTERVAL seconds (default 5), COUNT times (default: until Ctrl-C), print the sites with the most outstanding
    bytes and their stacks. memleak's command lines mean the same here.
    """
    for flag in ("percpu", "wa_missing_free"):
        if options.pop(flag):
            raise UsageError(f"--{flag.replace('_', '-')} {KERNEL_ONLY}", WHOM)
    options.pop("combined_only")
    ebpf = options.pop("ebpf")
    settings = build_settings(options)
    if ebpf:
        import bpf

        click.echo(bpf.source(settings.definitions(settings.attach or AttachWay.SESSION)))
        return
    if not settings.pids and not settings.command:
        raise UsageError(f"Without -p or -c, leaktrace would trace the kernel; it {KERNEL_ONLY}",
                         WHOM)
    from tracer.cli.running import run_trace

    code = run_trace(settings)
    if code:
        raise click.exceptions.Exit(code)


def build_settings(options: dict[str, Any]) -> Settings:
    """Return the settings that command line options mean. Raises UsageError where they contradict each other."""
    attach = options.pop("attach")
    options["attach"] = AttachWay(attach) if attach else None
    options["unwind"] = UnwindWay(options["unwind"])
    options["group_by"] = GroupBy(options["group_by"])
    options["demangle"] = Style(options["demangle"])
    options["pids"] = tuple(dict.fromkeys(options["pids"]))
    settings = Settings(**options)
    least, most = settings.min_size, settings.max_size
    if least is not None and most is not None and least > most:
        raise UsageError(f"-z {least} is more than -Z {most}: no allocation is both that large and that small.",
                         "Swap them.")
    if settings.pids and settings.command:
        raise UsageError("-p and -c cannot be given together.", "Trace the process and the command in two runs.")
    if settings.sample_rate > 1 and settings.sample_bytes:
        raise UsageError("-s and --sample-bytes are two ways to sample.", "Give one of them.")
    if len(settings.pids) > MAX_SLOTS:
        raise UsageError(f"{len(settings.pids)} processes are more than {MAX_SLOTS}.", "Trace fewer at once.")
    return settings

