"""leaktrace kernel [OPTIONS] [INTERVAL [COUNT]] [-- COMMAND]: trace the kernel's own allocations."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click
from click.core import ParameterSource

from tracer.cli import candidates
from tracer.cli import options as options_
from tracer.cli.exported import NAMES as EXPORTED
from tracer.cli.exported import Exports, exporting
from tracer.cli.values import Positive, Size
from tracer.errors import ExitCode, UsageError
from tracer.kernel_settings import KernelSettings

#: What stands between leaktrace's own words and a command.
BEGINS_COMMAND = "--"


class _WithCommand(click.Command):
    """Takes what stands behind -- as a command, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if BEGINS_COMMAND in args:
            at = args.index(BEGINS_COMMAND)
            ctx.meta["command"] = tuple(args[at + 1 :])
            args = args[:at]
            if not ctx.meta["command"]:
                raise UsageError("There is no command behind --.", "Name one, or leave -- out.")
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), f"[{BEGINS_COMMAND} COMMAND]"]


sources = options_.together(
    click.option("--slab", is_flag=True, help="Trace slab objects: kmalloc, kmem_cache_alloc."),
    click.option("--pages", is_flag=True, help="Trace pages. Without any of these four: slab and pages."),
    click.option("--percpu", is_flag=True, help="Trace memory per processor."),
    click.option("--vmalloc", is_flag=True,
                 help="Trace vmalloc; where no program can be attached to its functions, vmap and ioremap too."),
)


@click.command(
    cls=_WithCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 wrong usage, 3 cannot trace. With a command: its own (128 + N for signal N); 23 over "
           "a budget of --fail-on; 4 where a budget was given and the measurement is not complete.")
@click.argument("interval", type=Positive(whole=False), default=5.0)
@click.argument("count", type=Positive(whole=True), required=False)
@sources
@click.option("-p", "--pid", "pids", type=Positive(whole=True), multiple=True, metavar="PID",
              shell_complete=candidates.pids,
              help="Only allocations made on behalf of this process; may be given several times.")
@click.option("--cgroup", "cgroups", multiple=True, metavar="PATH",
              help="Only allocations made on behalf of this control group (version 2) and those below it.")
@click.option("--wa-missing-free", is_flag=True,
              help="memleak's workaround for frees that were not seen; leaktrace always does it, and counts them.")
@click.option("-a", "--show-allocs", is_flag=True, help="Also print the address and size of each outstanding block.")
@click.option("-o", "--older", "older_ms", type=Positive(whole=False, minimum=0), metavar="MS",
              help="Only count blocks older than this many milliseconds. Without it, all are counted.")
@click.option("-z", "--min-size", type=Size(), metavar="BYTES", help="Only allocations of at least this size.")
@click.option("-Z", "--max-size", type=Size(), metavar="BYTES", help="Only allocations of at most this size.")
@click.option("-T", "--top", type=Positive(whole=True), default=10, show_default=True, help="Show this many sites.")
@click.option("--sort", type=click.Choice(["loss", "size", "count"]), default="loss", show_default=True,
              help="Order of sites: by what they are expected to lose, then by size; or by size or blocks only.")
@click.option("-d", "--duration", type=Positive(whole=False), metavar="SECONDS", help="End after this time.")
@click.option("--cross-check", is_flag=True,
              help="Also compare with the kernel's own books: memory allocation profiling, or kmemleak.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document per report and line, schema leaktrace/1.")
@options_.showing
@options_.saving
@options_.living
@exporting
@options_.gating
@click.option("--output", type=click.Path(), metavar="FILE",
              help="With a command: write the report here and not to standard error.")
@click.option("--as-root", is_flag=True, help="Under sudo, run the command as root and not as who called sudo.")
@click.option("--max-outstanding", type=Positive(whole=True, maximum=1 << 28), default=1_000_000, show_default=True,
              metavar="N", help="Room for this many live blocks.")
@click.option("--max-stacks", type=Positive(whole=True, maximum=1 << 20), default=32_768, show_default=True,
              metavar="N", help="Room for this many different stacks.")
@click.option("--depth", type=Positive(whole=True, maximum=127), default=64, show_default=True, metavar="FRAMES",
              help="Frames kept of each stack.")
@click.option("--raw-stacks", is_flag=True, help="Leave stacks as recorded, with the allocators' own frames.")
@click.option("-v", "--verbose", is_flag=True, help="Say where programs are attached and how much memory they take.")
@click.option("--ebpf", is_flag=True, help="Print the C program, and end.")
@click.option("--hash-map", is_flag=True, hidden=True, help="Keep blocks as on kernels without atomics (before 5.12).")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Name the call sites in the kernel that hold memory which is not given back.

    Every INTERVAL seconds (default 5), COUNT times (default: until Ctrl-C), print the sites with the most outstanding
    bytes and their stacks. With a COMMAND behind --, trace the kernel while it runs, and judge what is left in the end.
    """
    options["command"] = ctx.meta.get("command", ())
    if options["live"] and ctx.get_parameter_source("interval") is ParameterSource.DEFAULT:
        options["interval"] = options_.LIVE_INTERVAL
    return start(options)


def start(options: dict[str, Any]) -> int:
    """Trace as the options of `leaktrace kernel` say; return the exit code. Raises LeaktraceError."""
    ebpf = options.pop("ebpf")
    settings = build_settings(options)
    if ebpf:
        from tracer.attach.kernel_program import program_text

        click.echo(program_text(settings))
        return 0
    exports = Exports.begin({name: options[name] for name in EXPORTED}, live=options["live"],
                            command=bool(settings.command))
    if options["live"]:
        from tracer.cli.live import kernel_live

        return kernel_live(settings, options["record"])
    if settings.command:
        from tracer.cli.gated import run
        from tracer.cli.kernel_running import trace_command

        return run(options, trace_command)
    asked = _about_a_command(options)
    if asked:
        raise UsageError(f"{', '.join(asked)} {'is' if len(asked) == 1 else 'are'} about a command, and there is none.",
                         "Name one behind --.")
    from tracer.cli.kernel_running import show

    return show(settings, options["record"], exports)


def _about_a_command(options: dict[str, Any]) -> list[str]:
    """Return the options that were given and say something of a command; some callers have none of them."""
    asked = ["--fail-on" if name == "budgets" else f"--{name.replace('_', '-')}"
             for name in (*options_.GATING, "output", "as_root") if options.get(name)]
    return [*asked, "--error-exitcode"] if options.get("error_exitcode", ExitCode.LEAKS) != ExitCode.LEAKS else asked


def build_settings(options: dict[str, Any]) -> KernelSettings:
    """Return the settings that options mean. Raises UsageError where they contradict each other."""
    chosen = {each.name: options[each.name] for each in fields(KernelSettings) if each.name in options}
    if not any(chosen[name] for name in ("slab", "pages", "percpu", "vmalloc")):
        chosen |= {"slab": True, "pages": True}
    for name in ("pids", "cgroups"):
        chosen[name] = tuple(dict.fromkeys(chosen[name]))
    settings = KernelSettings(**chosen)
    if settings.pids and settings.cgroups:
        raise UsageError("-p and --cgroup are two ways to say whose allocations are meant.", "Give one of them.")
    limits = {"-p": settings.pids or None, "--cgroup": settings.cgroups or None,
              "-z": settings.min_size, "-Z": settings.max_size}
    part = [word for word, given in limits.items() if given is not None]
    if settings.cross_check and part:
        raise UsageError(f"--cross-check compares all of the kernel's memory, and {part[0]} leaves out some.",
                         "Leave out one of them.")
    least, most = settings.min_size, settings.max_size
    if least is not None and most is not None and least > most:
        raise UsageError(f"-z {least} is more than -Z {most}: no allocation is both that large and that small.",
                         "Swap them.")
    return settings
