"""What keeps two traces from being compared, or makes their difference say something else than it seems to."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.report.diff_model import Difference, Side, Warned

#: Settings that decide which blocks are counted, or which sites are one; with their options.
DECIDING = {
    "min_size": "--min-size", "max_size": "--max-size", "older_ms": "--older", "group_by": "--group-by",
    "raw_stacks": "--raw-stacks", "demangle": "--demangle", "object_path": "-O", "unwind": "--unwind",
    "symbols_prefix": "--symbols-prefix", "alloc_functions": "--alloc-fn", "free_functions": "--free-fn",
    "slab": "tracing slab objects", "pages": "tracing pages", "percpu": "tracing per-CPU memory",
    "vmalloc": "tracing vmalloc",
}
#: Settings that may change figures a little, or stacks that are very deep.
TOUCHING = {"depth": "--depth", "follow_forks": "--follow-forks"}
#: Times that one trace may be longer than the other without a word.
MUCH_LONGER = 1.5


def warnings(made: Difference) -> tuple[Warned, ...]:
    """Return all there is to say, what forbids a judgement first."""
    found = [*_settings(made), *_sampling(made), *_files(made), *_durations(made), *_names(made)]
    return tuple(sorted(found, key=lambda warned: not warned.decides))


def _settings(made: Difference) -> Iterator[Warned]:
    before, after = made.before.settings, made.after.settings
    if before is None or after is None:
        return
    for options, decides in ((DECIDING, True), (TOUCHING, False)):
        for name, option in options.items():
            was, now = before.get(name), after.get(name)
            if (was or None) != (now or None):
                meaning = "they are not comparable" if decides else "sites may differ because of it"
                yield Warned(f"{option} was {_word(was)} before and {_word(now)} after: {meaning}", decides)


def _sampling(made: Difference) -> Iterator[Warned]:
    was, now = made.before.report.sampling, made.after.report.sampling
    if was != now:
        yield Warned(f"figures before are {_estimates(was)}, after {_estimates(now)}: "
                     "small sites may be in one of them by chance")
    small = sum(1 for row in made.rows if not row.significant)
    if small:
        yield Warned(f"{small} {'change is' if small == 1 else 'changes are'} no larger than what sampling does by "
                     "chance, and marked so")


def _files(made: Difference) -> Iterator[Warned]:
    for side, when in ((made.before, "before"), (made.after, "after")):
        if side.truncated:
            yield Warned(f"the recording {when} ends within a report, as a trace that was cut off does: this is "
                         f"{side.report.elapsed_s:.0f} s after its start", decides=True)
        if not side.report.complete:
            yield Warned(f"allocations were lost {when}: {_losses(side)}", decides=True)
        if side.unlisted:
            yield Warned(f"{side.unlisted} live blocks {when} are at sites that {side.source} does not list: they look "
                         f"{'new' if when == 'before' else 'gone'}", decides=True)


def _losses(side: Side) -> str:
    lost = [f"{loss.count} {loss.meaning}" for loss in side.report.losses]
    return "; ".join(lost) or "the trace says that it is not complete"


def _durations(made: Difference) -> Iterator[Warned]:
    # Two moments of one trace are compared for what came between.
    if made.per is not None or made.before.source == made.after.source:
        return
    was, now = made.before.report.elapsed_s, made.after.report.elapsed_s
    if max(was, now) > MUCH_LONGER * min(was, now) and max(was, now) >= 1:
        yield Warned(f"one took {was:.0f} s and the other {now:.0f} s: what leaks, leaks more in a longer time; "
                     "--per second or --per NAME=BEFORE:AFTER puts them on one scale")


def _names(made: Difference) -> Iterator[Warned]:
    if made.total_before.sites and made.total_after.sites and not any(
            row.before.sites and row.after.sites for row in made.rows):
        yield Warned("no site is in both: is it the same program, by the same file name?")
    nameless = sum(1 for row in made.rows if all(frame.function is None for frame in row.finding.frames))
    if nameless:
        yield Warned(f"{nameless} {'site has' if nameless == 1 else 'sites have'} no function name, and can be told "
                     "apart by their files only")


def _estimates(sampling: str | None) -> str:
    return f"estimates from {sampling}" if sampling else "exact"


def _word(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_word(each) for each in value) or "not set"
    if isinstance(value, dict):
        return str(value.get("name", "set"))
    return "not set" if value is None or value is False else "set" if value is True else str(value)
