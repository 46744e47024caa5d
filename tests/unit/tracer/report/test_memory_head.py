"""The head's lines and its JSON, for a stranger's eye."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tracer.judge.reconcile import Cause, Part
from tracer.report.memory_head import conclusion, document, duration, lines
from tracer.report.memory_model import MemoryHead, MemoryLimit, MemoryPart

MB = 1 << 20
HEAD = MemoryHead(
    4711, "web", 812 * MB, 790 * MB, 801 * MB, 431 * MB, 43_120,
    (MemoryPart("outstanding", 431 * MB, 14 << 10), MemoryPart("before", 120 * MB), MemoryPart("overhead", 2 * MB),
     MemoryPart("free", 200 * MB), MemoryPart("top", 1 * MB), MemoryPart("stacks", 30 * MB), MemoryPart("shared", 0),
     MemoryPart("files", 22 * MB), MemoryPart("anonymous", 6 * MB)),
)


def test_the_head_at_a_glance() -> None:
    """The title, outstanding first, the largest parts by size, and the small ones on one line."""
    assert lines(HEAD) == [
        "Memory of web (pid 4711): 812 MB resident, 790 MB of it anonymous (PSS 801 MB)",
        "     431 MB  outstanding in 43,120 blocks, +14 kB/s",
        "     200 MB  free inside the allocator, between blocks in use",
        "     120 MB  allocated before the trace, and still in use",
        "      30 MB  thread stacks",
        "      22 MB  files: programs, libraries and mapped data",
        "     9.0 MB  other anonymous mappings 6.0 MB, headers and rounding 2.0 MB and others",
    ]


def test_what_is_not_known_is_said() -> None:
    """A list that was not walked to its end, blocks that are absent, swap and an old reading each show."""
    head = replace(HEAD, complete=False, absent=300 * MB, outstanding_bytes=731 * MB, swap=5 * MB, age_s=12.0,
                   hugetlb=2 * MB)
    text = "\n".join(lines(head))
    for words in ("at least, free inside", "or free and not counted", "of 731 MB, the rest of which is not in memory",
                  "5.0 MB more in swap", "as of 12 s ago", "2.0 MB more in reserved huge pages"):
        assert words in text
    assert "before the trace" not in "\n".join(lines(replace(HEAD, since_start=True)))


def test_a_closed_allocator_is_named() -> None:
    """Where an allocator cannot be read, what it may have is one line with its name."""
    head = replace(HEAD, parts=(MemoryPart("outstanding", 431 * MB), MemoryPart("allocator", 300 * MB)),
                   allocator="jemalloc")
    assert "     300 MB  jemalloc's own and free memory, blocks from before the trace, other anonymous mappings" in lines(head)


@pytest.mark.parametrize(("cause", "part", "start"), [
    ("grows by blocks", "outstanding", "Resident memory grows by blocks that are held: 4.2 MB/s."),
    ("grows by free memory", "free", "Resident memory grows by fragmentation: free memory between blocks: 4.2 MB/s. Blocks"),
    ("grows by free memory", "before", "Resident memory grows by what the allocator holds beyond traced blocks"),
    ("grows elsewhere", "stacks", "Resident memory grows, most of it by stacks: 4.2 MB/s."),
    ("fragmented", "free", "The heap is fragmented: 4.2 MB of it"),
])
def test_the_conclusion_is_one_sentence(cause: str, part: str, start: str) -> None:
    """Each cause has its sentence, below the parts."""
    head = replace(HEAD, cause=cause, cause_part=part, cause_amount=4.2 * MB)
    assert lines(head)[-1].strip().startswith(start) and lines(head)[-1].strip() == conclusion(head)


def test_every_cause_and_part_of_the_judge_has_words() -> None:
    """What the judge may say is known here: nothing but steady and undecided is passed over, no part without a label."""
    silent = {cause for cause in Cause if conclusion(replace(HEAD, cause=cause.value, cause_part="free")) is None}
    assert silent == {Cause.STEADY, Cause.UNDECIDED}
    for part in Part:
        line = lines(replace(HEAD, parts=(MemoryPart(part.value, 500 * MB),)))[-1]
        assert not line.endswith(f"  {part.value}"), line


def test_the_limit() -> None:
    """A limit shows with its use, when it is reached, what has happened, and how long tasks waited."""
    limit = MemoryLimit("/app.slice/web", 900 * MB, 1024 * MB, "memory.max", (("oom_kill", 2), ("high", 1_000)), 1.25,
                        4.2 * MB, 12_000.0)
    assert lines(replace(HEAD, limit=limit))[-1] == (
        "  Control group /app.slice/web: 900 MB of 1.0 GB used (88%); reaches its limit in 3 h 20 min at +4.2 MB/s; "
        "killed for want of memory 2×; throttled 1,000×; waited for memory 1.2% of the last 10 s")


def test_no_limit_no_line() -> None:
    """A group without a limit in which nothing has happened has no line."""
    assert lines(replace(HEAD, limit=MemoryLimit("/", 5))) == lines(HEAD)
    assert len(lines(replace(HEAD, limit=MemoryLimit("/", 5, events=(("oom", 1),))))) == len(lines(HEAD)) + 1


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (12_000, "3 h 20 min"),
                                               (90_000, "1 d 1 h"), (1e8, "1,157 days")])
def test_durations(seconds: float, text: str) -> None:
    """The two largest units are enough."""
    assert duration(seconds) == text


def test_json_has_everything() -> None:
    """The document is JSON's own types, with parts by name, growth, the conclusion, and events by name."""
    limit = MemoryLimit("/web", 1, 2, "memory.max", (("oom", 3),))
    made = json.loads(json.dumps(document(replace(HEAD, limit=limit, cause="fragmented", cause_amount=5.0))))
    assert made["parts"][0] == {"name": "outstanding", "bytes": 431 * MB, "growth_bytes_per_s": 14 << 10}
    assert (made["limit"]["events"], made["conclusion"][:8], made["rss"]) == ({"oom": 3}, "The heap", 812 * MB)
    assert document(HEAD)["limit"] is None
