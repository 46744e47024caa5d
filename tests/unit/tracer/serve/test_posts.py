"""What is posted, as Pyroscope and Parca document it."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.tracer.serve.conftest import BEGAN, report
from tracer.report.pprof_messages import profile_class
from tracer.serve.destination import parse
from tracer.serve.outline import outline
from tracer.serve.posts import Post, post

PYROSCOPE = parse("http://localhost:4040/ingest")
PARCA = parse("http://localhost:7070/api/profiles/writeraw")
START = int(BEGAN.timestamp())


def fields(made: Post) -> dict[str, bytes]:
    """Return the fields of a form that has files, by their names."""
    head = f"Content-Type: {made.kind}\r\n\r\n".encode()
    parts: list[Any] = list(BytesParser(policy=HTTP).parsebytes(head + made.content).iter_parts())
    assert all(part.get_filename() for part in parts)
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}


def profile(content: bytes) -> Any:
    return profile_class().FromString(gzip.decompress(content))


def query(made: Post) -> dict[str, list[str]]:
    return parse_qs(urlsplit(made.target).query)


def test_pyroscope_gets_a_form() -> None:
    """With the profile, and for each of its values whether it is summed up or averaged."""
    made = post(PYROSCOPE, outline(report([(5, 1), (4, 4)])))
    assert made.target.startswith("/ingest?") and made.kind.startswith("multipart/form-data; boundary=")
    assert query(made) == {"name": ["leaktrace.server"], "spyName": ["leaktrace"], "format": ["pprof"],
                           "from": [str(START)], "until": [str(START + 5)]}
    form = fields(made)
    config = json.loads(form["sample_type_config"])
    assert {name: (each["units"], each["aggregation"], each["sampled"]) for name, each in config.items()} == {
        "alloc_objects": ("objects", "sum", False), "alloc_space": ("bytes", "sum", False),
        "inuse_objects": ("objects", "average", False), "inuse_space": ("bytes", "average", False)}
    found = profile(form["profile"])
    assert sorted(tuple(sample.value) for sample in found.sample) == [(4, 40, 0, 0), (5, 50, 4, 40)]


def test_pyroscope_gets_what_came_since() -> None:
    """It adds up allocations: each may be in one post only. The times follow each other."""
    before, after = outline(report([(5, 1)], 5.6)), outline(report([(9, 1)], 10.6))
    made = post(PYROSCOPE, after, before)
    assert (query(made)["from"], query(made)["until"]) == (query(post(PYROSCOPE, before))["until"], [str(START + 10)])
    found = profile(fields(made)["profile"])
    assert [tuple(sample.value) for sample in found.sample] == [(4, 40, 8, 80)]
    assert found.duration_nanos == 5_000_000_000


def test_an_interval_of_no_second_has_one() -> None:
    """Times are whole seconds there, and the end must be later than the beginning."""
    made = post(PYROSCOPE, outline(report([(9, 1)], 5.4)), outline(report([(5, 1)], 5.2)))
    assert (query(made)["from"], query(made)["until"]) == ([str(START + 5)], [str(START + 6)])


def test_the_name_can_be_chosen() -> None:
    """By the URL, which may have more for the server; times and format are ours."""
    made = post(parse("http://x/ingest?name=shop{env%3Dtest}&x=y&format=jfr&from=1"), outline(report([(5, 1)])))
    assert {name: query(made)[name] for name in ("name", "x", "format", "from")} == {
        "name": ["shop{env=test}"], "x": ["y"], "format": ["pprof"], "from": [str(START)]}


@pytest.mark.parametrize(("comm", "name"), [("a b/{x=y}&c", "leaktrace.a_b_x_y_c"), ("", "leaktrace._"), ("ü", "leaktrace._")])
def test_a_process_cannot_choose_its_labels(comm: str, name: str) -> None:
    """Its name comes from the traced program, and braces would be labels."""
    assert query(post(PYROSCOPE, outline(report([(5, 1)], comm=comm))))["name"] == [name]


def test_parca_gets_json() -> None:
    """A series with its labels and a profile of the moment, with allocations since the beginning as Go has them."""
    first, second = outline(report([(5, 1)], 5)), outline(report([(9, 1)], 10))
    made = post(PARCA, second, first)
    assert (made.target, made.kind) == ("/api/profiles/writeraw", "application/json")
    document = json.loads(made.content)
    assert set(document) == {"series", "normalized"} and document["normalized"] is False
    series, = document["series"]
    labels = {each["name"]: each["value"] for each in series["labels"]["labels"]}
    assert labels["__name__"] == "memory" and labels["comm"] == "server" and labels["job"] == "leaktrace"
    found = profile(base64.b64decode(series["samples"][0]["rawProfile"], validate=True))
    assert [tuple(sample.value) for sample in found.sample] == [(9, 90, 8, 80)]
    assert found.time_nanos == (START + 10) * 10**9


def test_a_kernel_has_a_name_too() -> None:
    """A trace of it is of no process."""
    made = replace(report([(5, 1)]), targets=())
    assert query(post(PYROSCOPE, outline(made)))["name"] == ["leaktrace.kernel"]
