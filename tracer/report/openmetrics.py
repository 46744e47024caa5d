"""The report as OpenMetrics 1.0.0 text, for Prometheus and what else scrapes (https://prometheus.io/docs/specs/om/)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from math import isfinite
from typing import TextIO

from symbolizer.frame import Frame
from tracer import VERSION
from tracer.report.flame_tree import name_of, printable
from tracer.report.model import Finding, Report, Target
from tracer.report.wording import known_by, short

#: What to send as the type of the content.
CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: Each is as many series a family at most, whatever is traced; a label value has so many characters.
SITES, PROCESSES, LONGEST = 100, 100, 200

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Family:
    """One metric family; unit: the end of its name too. Values with the same labels are one, their sum."""

    name: str
    kind: str
    meaning: str
    unit: str = ""
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = self.values.get(labels, 0) + value

    def lines(self, stamp: str) -> Iterator[str]:
        """Yield its lines, none if it has no value."""
        if self.values:
            yield f"# TYPE {self.name} {self.kind}"
            if self.unit:
                yield f"# UNIT {self.name} {self.unit}"
            yield f"# HELP {self.name} {self.meaning}"
        end = "_total" if self.kind == "counter" else ""
        for labels, value in self.values.items():
            inner = ",".join([f'{name}="{_escaped(text)}"' for name, text in labels])
            yield f"{self.name}{end}{f'{{{inner}}}' if inner else ''} {_number(value)}{stamp}"


def write(report: Report, out: TextIO, fingerprint: Callable[[tuple[Frame, ...]], str] | None = None,
          stamped: bool = False) -> None:
    """Write one report. fingerprint: names a site by its frames, without it stack_name.

    stamped: each value has the time it was taken at, as promtool wants it to make a database of what is past; what
    scrapes has its own.
    """
    stamp = f" {report.taken.timestamp():.3f}" if stamped else ""
    for families in (_totals(report), _losses(report), _sites(report, fingerprint or stack_name), _processes(report)):
        for family in families:
            out.writelines(f"{line}\n" for line in family.lines(stamp))
    out.write("# EOF\n")
    out.flush()


def stack_name(frames: tuple[Frame, ...]) -> str:
    """Return 16 hex digits that are the same for stacks of the same functions and files, built again or not."""
    parts = [f"{frame.function or ''}\0{(frame.module or '').rpartition('/')[2]}" for frame in frames]
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _totals(report: Report) -> Sequence[_Family]:
    totals = report.totals
    families = (
        (1, _Family("leaktrace_build_info", "gauge", "The version of leaktrace, and what it looks at."),
         (("version", VERSION), ("kernel", report.kernel), ("sampling", report.sampling or ""))),
        (report.elapsed_s, _Family("leaktrace_elapsed_seconds", "gauge", "How long the trace has run.", "seconds")),
        (report.complete, _Family("leaktrace_complete", "gauge", "1 if all allocations were counted, 0 if some lack.")),
        (totals.live_bytes, _Family("leaktrace_live_bytes", "gauge", "Bytes not given back, as asked for.", "bytes")),
        (totals.live_count, _Family("leaktrace_live_blocks", "gauge", "Blocks not given back.")),
        (totals.allocated_bytes, _Family("leaktrace_allocated_bytes", "counter",
                                         "Bytes allocated since the trace began.", "bytes")),
        (totals.allocated_count, _Family("leaktrace_allocations", "counter", "Blocks allocated since it began.")),
        (totals.freed_count, _Family("leaktrace_frees", "counter", "Blocks given back since it began.")),
        (len(report.sites.order) if report.sites is not None else len(report.findings),
         _Family("leaktrace_sites", "gauge", "Call sites that hold anything.")),
    )
    for value, family, *labels in families:
        family.add(value, *labels)
    sources = _Family("leaktrace_source_live_bytes", "gauge", "Bytes not given back, by who gives them out.", "bytes")
    for source in report.sources:
        sources.add(source.bytes, (("source", source.source),))
    return [*(family for _, family, *_ in families), sources]


def _losses(report: Report) -> Sequence[_Family]:
    lost = _Family("leaktrace_losses", "counter", "Events that were lost, by the way they were.")
    hidden = _Family("leaktrace_lost_bytes", "counter", "Bytes of allocations that were lost.", "bytes")
    for loss in report.losses:
        labels = (("reason", loss.name),)
        lost.add(loss.count, labels)
        if loss.bytes:
            hidden.add(loss.bytes, labels)
    return lost, hidden


def _sites(report: Report, fingerprint: Callable[[tuple[Frame, ...]], str]) -> Sequence[_Family]:
    """Return what the first sites hold; those that no label tells apart are one."""
    held = _Family("leaktrace_site_live_bytes", "gauge", f"Bytes not given back, of the first {SITES} sites.", "bytes")
    blocks = _Family("leaktrace_site_live_blocks", "gauge", f"Blocks not given back, of the first {SITES} sites.")
    made = _Family("leaktrace_site_allocated_bytes", "counter", "Bytes allocated since the trace began.", "bytes")
    loss = _Family("leaktrace_site_expected_loss_bytes_per_second", "gauge",
                   "Bytes a second that are lost from now on if nothing changes.", "bytes_per_second")
    for finding in report.findings[:SITES]:
        labels = _site_labels(finding, fingerprint(finding.frames))
        held.add(finding.bytes, labels)
        blocks.add(finding.count, labels)
        made.add(finding.allocated_bytes, labels)
        if finding.expected_loss is not None:
            loss.add(finding.expected_loss, labels)
    return held, blocks, made, loss


def _site_labels(finding: Finding, site: str) -> Labels:
    # Where no frame has a name, this is the innermost.
    known = known_by(finding.frames)
    frame = next((each for each in finding.frames if each.function == known), None)
    return (("site", site), ("function", name_of(frame) if frame else ""), ("module", (frame and frame.module) or ""),
            ("source", finding.source), ("verdict", finding.verdict or ""))


def _processes(report: Report) -> Sequence[_Family]:
    rss = _Family("leaktrace_process_resident_bytes", "gauge", "Resident memory of the process.", "bytes")
    parts = _Family("leaktrace_process_part_bytes", "gauge", "Parts that resident memory is made up of.", "bytes")
    live = _Family("leaktrace_process_live_bytes", "gauge", "Bytes that the process has not given back.", "bytes")
    for head in report.memory[:PROCESSES]:
        labels = (("pid", str(head.pid)), ("comm", head.comm))
        rss.add(head.rss, labels)
        for part in head.parts:
            parts.add(part.bytes, (*labels, ("part", part.name)))
    for target in _holders(report.targets):
        if target.totals is not None:
            live.add(target.totals.live_bytes, (("pid", str(target.pid)), ("comm", target.comm)))
    return rss, parts, live


def _holders(targets: Sequence[Target]) -> Iterator[Target]:
    """Yield the first processes that run."""
    return islice((target for target in targets if not target.ended), PROCESSES)


def _escaped(text: str) -> str:
    return short(printable(text), LONGEST).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    if isfinite(value):
        return repr(value + 0)
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
