"""What the kernel says of a site in one line, and what each source holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from json import loads

import pytest

from tracer.report import json, text
from tracer.report.kernel_lines import describe, head
from tracer.report.model import Finding, Holder, KernelNote, Report, SourceTotal

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
NOTE = KernelNote(cache="kmalloc-cg-1k", gfp=("GFP_KERNEL", "__GFP_ZERO"), requested_bytes=4096, order=None, node=0, serves=None,
                  processes=(Holder(7, "server", 4096, 4),), unseen_frees=0)
#: Of 4096 bytes.
A, B, C, D = Holder(1, "a", 2048, 2), Holder(2, "b", 1024, 1), Holder(3, None, 512, 1), Holder(4, "d", 512, 1)


@pytest.mark.parametrize(("source", "changes", "line"), [
    ("slab", {}, "slab kmalloc-cg-1k, GFP_KERNEL|__GFP_ZERO, node 0, for server (7)"),
    ("slab", {"cache": None, "gfp": ()}, "slab of unknown name, node 0, for server (7)"),
    ("slab", {"requested_bytes": 3072, "gfp": ()}, "slab kmalloc-cg-1k, 3072 bytes asked for (25% wasted), node 0, for server (7)"),
    ("pages", {"order": 0, "gfp": (), "cache": None}, "pages of order 0, node 0, for server (7)"),
    ("pages", {"order": 3, "gfp": (), "serves": "slab", "node": 1}, "pages of order 3 for slab, node 1, for server (7)"),
    ("percpu", {"gfp": (), "cache": None}, "percpu, node 0, for server (7)"),
    ("vmalloc", {"gfp": ("GFP_KERNEL",), "processes": ()}, "vmalloc, GFP_KERNEL, node 0"),
    ("slab", {"gfp": (), "unseen_frees": 12, "processes": ()}, "slab kmalloc-cg-1k, node 0, 12 frees were not seen"),
    ("slab", {"gfp": (), "processes": (A, B)}, "slab kmalloc-cg-1k, node 0, for a (1) 50%, b (2) 25%"),
    ("slab", {"gfp": (), "processes": (A, B, C)}, "slab kmalloc-cg-1k, node 0, for a (1) 50%, b (2) 25%, ended (3) 12%"),
    ("slab", {"gfp": (), "processes": (A, B, C, D)}, "slab kmalloc-cg-1k, node 0, for a (1) 50%, b (2) 25%, ended (3) 12%, …"),
])  # fmt: skip
def test_a_site(finding: MakeFinding, source: str, changes: dict[str, object], line: str) -> None:
    """Its cache or order, flags, what was asked for where that is less, the node, for whom, and what is not certain."""
    assert describe(finding(source=source, kernel=replace(NOTE, **changes))) == line  # type: ignore[arg-type]


def test_a_site_that_holds_nothing(finding: MakeFinding) -> None:
    """With nothing held there is no share of it."""
    empty = finding(source="slab", bytes=0, count=0, kernel=replace(NOTE, requested_bytes=0, processes=()))
    assert describe(empty) == "slab kmalloc-cg-1k, GFP_KERNEL|__GFP_ZERO, node 0"


def test_other_sites_have_no_such_line(finding: MakeFinding) -> None:
    """Nothing is said of a site that is not the kernel's."""
    assert describe(finding()) is None


def test_sources(report: MakeReport) -> None:
    """Each source has a line, aligned; of pages, how much the other sources took."""
    made = report(sources=(SourceTotal("pages", 5 << 20, 1280, 1 << 20), SourceTotal("slab", 2048, 1)))
    assert list(head(made)) == ["pages    5.0 MB in 1,280 blocks, 1.0 MB of it for slabs and vmalloc", "slab     2.0 kB in 1 block"]
    assert list(head(report())) == []


def test_in_a_whole_report(report: MakeReport, finding: MakeFinding) -> None:
    """For people both stand in the text, and for machines every field of them."""
    made = report(finding(source="slab", kernel=NOTE), targets=(), sources=(SourceTotal("slab", 4096, 4),))
    out = StringIO()
    text.write(made, out)
    lines = out.getvalue().splitlines()
    assert any(line.strip().endswith("for server (7)") for line in lines) and any(line.startswith("slab     4.0 kB") for line in lines)
    out = StringIO()
    json.write(made, out)
    document = loads(out.getvalue())
    assert document["sources"] == [{"source": "slab", "bytes": 4096, "count": 4, "serving": 0}]
    (site,) = document["sites"]
    assert site["source"] == "slab" and site["kernel"] == {
        "cache": "kmalloc-cg-1k", "gfp": ["GFP_KERNEL", "__GFP_ZERO"], "requested_bytes": 4096, "order": None, "node": 0, "serves": None,
        "processes": [{"pid": 7, "comm": "server", "bytes": 4096, "count": 4}], "unseen_frees": 0}


def test_reports_of_processes_have_neither(report: MakeReport) -> None:
    """Their documents stay as they are."""
    out = StringIO()
    json.write(report(), out)
    document = loads(out.getvalue())
    assert "sources" not in document and "kernel" not in document["sites"][0]
