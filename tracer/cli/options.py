"""Options that all commands which trace have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from symbolizer.choices import GroupBy, Style
from tracer.cli import candidates
from tracer.cli.values import AllocFunction, FreeFunction, PointedAt, Positive, Size
from tracer.errors import ExitCode, UsageError
from tracer.settings import AttachWay, Settings, UnwindWay

Decorator = Callable[[Any], Any]


def together(*decorators: Decorator) -> Decorator:
    """Return one decorator that does what several do, in their order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


sampling = together(
    click.option("-s", "--sample-rate", type=Positive(whole=True, maximum=1_000_000), default=1, metavar="N",
                 help="Look at one allocation in N, by chance, and scale the report up."),
    click.option("--sample-bytes", type=Size(1, 1 << 30), default=0, metavar="BYTES",
                 help="Look at one allocation in about BYTES allocated bytes, and scale up. 512k is a good one."),
)

allocators = together(
    click.option("-z", "--min-size", type=Size(), metavar="BYTES", help="Only allocations of at least this size."),
    click.option("-Z", "--max-size", type=Size(), metavar="BYTES", help="Only allocations of at most this size."),
    click.option("-O", "--obj", "object_path", metavar="OBJECT", shell_complete=candidates.files,
                 help="Trace the allocator in this library or executable, instead of those found."),
    click.option("--symbols-prefix", default="", metavar="PREFIX", help="The allocator's functions begin with this."),
    click.option("--alloc-fn", "alloc_functions", type=AllocFunction(), multiple=True,
                 help="Also trace this function as one that allocates. Arguments count from 0."),
    click.option("--check-frees", is_flag=True,
                 help="Also report blocks that are freed by the wrong function, twice, or that no allocator gave. "
                      "Costs more: each free is followed too."),
    click.option("--free-fn", "free_functions", type=FreeFunction(), multiple=True,
                 help="Also trace this function as one that frees."),
)

judging = together(
    click.option("--reachability", is_flag=True,
                 help="At each report, stop the process for a moment, copy its memory, and say to which blocks nobody "
                      "has a pointer: definitely, indirectly or possibly lost, or reachable. What makes this wrong: "
                      "pointers kept XORed, compressed, in files, devices or other processes are not seen."),
    click.option("--max-image", type=Size(1 << 20), default=1 << 30, metavar="BYTES",
                 help="Copy at most this much memory at once; a larger process is stopped while it is looked at in "
                      "pieces. Default: 1g."),
    click.option("--who-points-at", multiple=True, type=PointedAt(), metavar="SITE|ADDRESS",
                 help="Also name the chain of pointers, from its root, to blocks of this site (by rank or function) or "
                      "to this address (0x...). Implies --reachability. May be given several times."),
)

#: The names of what judges (gating).
GATING = ("budgets", "suppressions", "no_default_suppressions", "print_suppressions", "baseline", "junit", "sarif",
          "github")
gating = together(
    click.option("--fail-on", "budgets", multiple=True, metavar="EXPR",
                 help="Fail if this is true of any site, such as 'bytes>64k' or 'count>100 and growth_bytes_per_s>0', "
                      "or of the sums: 'total_bytes>1M'. May be given several times."),
    click.option("--error-exitcode", type=Positive(whole=True, minimum=1, maximum=255), default=int(ExitCode.LEAKS),
                 show_default=True, metavar="N", help="The exit code of a run over budget."),
    click.option("--suppressions", type=click.Path(), multiple=True, metavar="FILE",
                 help="Accept the leaks of this file, in LeakSanitizer's or valgrind's form."),
    click.option("--no-default-suppressions", is_flag=True,
                 help="Also report what glibc, its loader and libstdc++ keep on purpose."),
    click.option("--print-suppressions", is_flag=True,
                 help="Also print a suppression for each site that is reported."),
    click.option("--baseline", type=click.Path(), metavar="FILE",
                 help="Accept what a report saved with --format json has, unless it grew."),
    click.option("--junit", type=click.Path(), metavar="FILE", help="Also write the judgement as JUnit XML."),
    click.option("--sarif", type=click.Path(), metavar="FILE", help="Also write the judgement as SARIF 2.1.0."),
    click.option("--github", is_flag=True, help="Also write annotations for GitHub Actions to standard output."),
)

following = together(
    click.option("--follow-forks", is_flag=True, help="Also trace the processes that it makes, to any depth."),
)

selecting = together(
    click.option("--comm", "comms", multiple=True, metavar="NAME", shell_complete=candidates.comms,
                 help="Trace all processes of this name, those that come later too. May be given several times, as may "
                      "the next two."),
    click.option("--cgroup", "cgroups", multiple=True, metavar="PATH", shell_complete=candidates.files,
                 help="Trace all processes in this control group and those below it."),
    click.option("--container", "containers", multiple=True, metavar="ID",
                 help="Trace all processes in this container, by id or name (docker, podman, containerd, Kubernetes)."),
)

showing = together(
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
                 help="Text at a terminal is laid out and coloured, and plain elsewhere. always: it is elsewhere too; "
                      "never: no colour. NO_COLOR is heeded as well."),
    click.option("--bytes", "exact_bytes", is_flag=True, help="Show exact bytes at a terminal, not kB and MB."),
)

saving = together(
    click.option("--record", type=click.Path(dir_okay=False), metavar="FILE",
                 help="Also record all sites of each report, for `leaktrace report` and `leaktrace diff`."),
)

#: Seconds between reports of --live where INTERVAL is not given.
LIVE_INTERVAL = 1.0
living = together(
    click.option("--live", is_flag=True,
                 help="Show sites on the whole screen, to sort, filter and look into; ? there names the keys. INTERVAL "
                      "is 1 then, or what is given, from 0.25."),
)

recording = together(
    click.option("--max-outstanding", type=Positive(whole=True, maximum=1 << 28), default=1_000_000, show_default=True,
                 metavar="N", help="Room for this many live blocks."),
    click.option("--max-stacks", type=Positive(whole=True, maximum=1 << 20), default=32_768, show_default=True,
                 metavar="N", help="Room for this many different stacks."),
    click.option("--depth", type=Positive(whole=True, maximum=127), default=64, show_default=True, metavar="FRAMES",
                 help="Frames kept of each stack."),
    click.option("--attach", type=click.Choice([way.value for way in AttachWay]),
                 help="Attach probes in this way only, instead of the best that works."),
    click.option("--unwind", type=click.Choice([way.value for way in UnwindWay]), default="cfi", show_default=True,
                 help="Unwind stacks by call frame information, or by frame pointers only."),
    click.option("--group-by", type=click.Choice([by.value for by in GroupBy]), default=GroupBy.LINE.value,
                 show_default=True,
                 help="Stacks are one site if these are the same: functions, functions and lines, or addresses."),
    click.option("--raw-stacks", is_flag=True,
                 help="Leave stacks as recorded: with the allocator's own frames and recursion, each a site."),
    click.option("--demangle", type=click.Choice([style.value for style in Style]), default=Style.FULL.value,
                 show_default=True,
                 help="C++ and Rust names: whole, without long arguments, or as the linker has them."),
    click.option("--debug-dir", "debug_folders", type=click.Path(file_okay=False), multiple=True, metavar="DIR",
                 help="Look for debug files here too, as below /usr/lib/debug."),
)


def build_settings(options: dict[str, Any]) -> Settings:
    """Return the settings that command line options mean. Raises UsageError where they contradict each other."""
    attach = options.pop("attach")
    options["attach"] = AttachWay(attach) if attach else None
    options["unwind"] = UnwindWay(options["unwind"])
    options["group_by"] = GroupBy(options["group_by"])
    options["demangle"] = Style(options["demangle"])
    options["who_points_at"] = tuple(options["who_points_at"])
    options["reachability"] = options["reachability"] or bool(options["who_points_at"])
    settings = Settings(**options)
    least, most = settings.min_size, settings.max_size
    if least is not None and most is not None and least > most:
        raise UsageError(f"-z {least} is more than -Z {most}: no allocation is both that large and that small.",
                        "Swap them.")
    if settings.check_frees and (settings.sampling or least is not None or most is not None):
        raise UsageError("--check-frees must see every block, so it does not go with -s, --sample-bytes, -z or -Z.",
                         "Leave those out.")
    if settings.sample_rate > 1 and settings.sample_bytes:
        raise UsageError("-s and --sample-bytes are two ways to sample.", "Give one of them.")
    return settings
