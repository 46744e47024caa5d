"""A saved report is read, or refused with a sentence; and what is new or has grown is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.frame import Frame
from tracer.errors import ExitCode, UsageError
from tracer.judge.baseline import Baseline, Change, Growth, new_or_grown, summed
from tracer.judge.fingerprint import fingerprint


def frame(function: str | None = "f", module: str | None = "/bin/app") -> dict[str, Any]:
    return {"address": "0x401000", "function": function, "offset": 1, "module": module, "build_id": None, "file": None,
            "line": 7, "inlined": False, "why": None if function else "no_symbols"}


def site(size: int = 10, count: int = 1, *functions: str | None) -> dict[str, Any]:
    return {"bytes": size, "count": count, "frames": [frame(function) for function in functions or ("f",)]}


def report(*sites: dict[str, Any], **more: Any) -> dict[str, Any]:
    count = sum(each["count"] for each in sites)
    return {"schema": "leaktrace/1", "complete": True, "totals": {"live_count": count}, "sites": list(sites), **more}


def read(document: object) -> Baseline:
    return Baseline.parse(json.dumps(document), "before.json")


F = fingerprint((Frame(1, "f", module="/lib/app"),))
G = fingerprint((Frame(1, "g", module="/lib/app"),))


def test_sites_of_one_fingerprint_are_summed() -> None:
    """Bytes and blocks per fingerprint, which is that of live frames."""
    assert read(report(site(10, 1), site(20, 2), site(5, 1, "g"))).sites == {F: (30, 3), G: (5, 1)}
    nameless = fingerprint((Frame(1, module="/bin/app"),))
    assert read(report(site(1, 1, None))).sites == {nameless: (1, 1)}


def test_the_last_whole_report_counts() -> None:
    """Of one document per line the last; one that was cut off is passed over."""
    first, second = json.dumps(report(site(1))), json.dumps(report(site(2)))
    for text in (f"{first}\n{second}\n", f"{first}\r\n{second}", f"{first}\n{second}\n{first[:-20]}", f"[{first}, {second}]",
                 json.dumps(report(site(2)), indent=2)):
        assert Baseline.parse(text, "x").sites == {F: (2, 1)}


def test_what_the_report_does_not_say() -> None:
    """Whether the measurement was complete, and how many blocks stand at no listed site."""
    found = read(report(site(10, 3), complete=False, totals={"live_count": 10}))
    assert (found.complete, found.unlisted_count, found.source) == (False, 7, "before.json")
    assert read(report(site(10, 3))).unlisted_count == 0


HUGE = "1" * 6000


@pytest.mark.parametrize(("text", "said"), [
    ("", "empty"), (" \n\n", "empty"), ("hello", "JSON"), ("{", "JSON"), ("[" * 100_000, "JSON"), ("NaN", "JSON"),
    ('{"a":' * 100_000, "JSON"), (f'{{"schema": {HUGE}}}', "JSON"), ("null", "JSON"), ("[]", "list"), ("17", "17"), ("{}", "schema"),
    ('{"schema": "leaktrace/2"}', "leaktrace/2"), ('{"schema": 1e999}', "inf"), ('{"schema": {"a": 1}}', "an object"),
    (json.dumps(report(site())).replace('"0x401000"', '"0xzz"'), "address"),
    (json.dumps(report(site())).replace('"0x401000"', HUGE[:4000]), "large number"),
])
def test_what_is_no_report(text: str, said: str) -> None:
    """Another schema, other JSON, no JSON and nothing are wrong usage, with what is wrong and the remedy."""
    with pytest.raises(UsageError) as raised:
        Baseline.parse(text, "before.json")
    assert raised.value.exit_code is ExitCode.USAGE
    assert "before.json" in raised.value.message and said in raised.value.message and "JSON" in raised.value.remedy


@pytest.mark.parametrize("change", [
    {"sites": None}, {"sites": {}}, {"sites": [3]}, {"sites": [{}]}, {"sites": [{**site(), "bytes": True}]},
    {"sites": [{**site(), "bytes": 1.5}]}, {"sites": [{**site(), "count": "1"}]}, {"sites": [{**site(), "bytes": 1 << 64}]},
    {"sites": [{**site(), "frames": {}}]}, {"sites": [{**site(), "frames": ["f"]}]}, {"complete": "yes"}, {"totals": []},
    {"sites": [{**site(), "frames": [{**frame(), "function": 3}]}]}, {"sites": [{**site(), "frames": [{**frame(None), "why": "hm"}]}]},
    {"sites": [{**site(), "frames": [{"address": "0x1"}]}]}, {"totals": {}}, {"schema": None},
])
def test_wrong_types(change: dict[str, Any]) -> None:
    """A value of another type than the schema says is wrong usage, and its place is named."""
    with pytest.raises(UsageError, match=str(next(iter(change)))):
        read({**report(site()), **change})


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bytes", "count", "frames", "function", "address", "x"]), inner, max_size=4))


@given(st.dictionaries(st.sampled_from(["schema", "sites", "totals", "complete"]), JSON))
def test_any_json_is_read_or_refused(change: dict[str, Any]) -> None:
    """No document makes it fail in another way."""
    for document in ({**report(site()), **change}, {**report(site()), "sites": [{**site(), **change}, change.get("sites")]}):
        try:
            read(document)
        except UsageError:
            continue


def test_keys_of_later_versions() -> None:
    """Keys may be added to the schema; a figure below nothing, which lost events make, is nothing."""
    assert read(report({**site(-5, -1), "new": []}, more=1)).sites == {F: (0, 0)}


def test_new_or_grown() -> None:
    """A site that was not there is new; one with more bytes or more blocks has grown, and by how much; most first."""
    baseline = Baseline({"same": (10, 1), "less": (10, 2), "bytes": (10, 1), "blocks": (10, 1), "gone": (5, 5)}, "x", True, 0)
    now = {"same": (10, 1), "less": (9, 2), "bytes": (11, 1), "blocks": (8, 2), "new": (100, 3), "empty": (0, 1), "none": (0, 0)}
    assert new_or_grown(baseline, now) == (
        Growth("new", Change.NEW, 100, 3, 100, 3),
        Growth("bytes", Change.GROWN, 11, 1, 1, 0),
        Growth("empty", Change.NEW, 0, 1, 0, 1),
        Growth("blocks", Change.GROWN, 8, 2, -2, 1),
    )


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)))


@given(ROWS, ROWS)
def test_only_what_gained_is_named(before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]) -> None:
    """A run against itself gains nothing; whatever is named gained bytes or blocks, and all that did is named."""
    baseline, now = Baseline(summed(before), "x", True, 0), summed(after)
    assert new_or_grown(baseline, summed(before)) == ()
    found = {row.fingerprint: row for row in new_or_grown(baseline, now)}
    for name, (size, count) in now.items():
        known = baseline.sites.get(name, (0, 0))
        assert (name in found) is (size > known[0] or count > known[1])
