"""What each tool says of a program, read from what it wrote: bytes, blocks, and the functions that allocated them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ALLOCATORS = re.compile(r"(__interceptor_|__libc_)?(malloc|calloc|realloc|free)$|operator (new|delete)")
LEAKTRACE_CANNOT = (2, 3, 4)
_NUMBER = r"([\d,]+)"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was reported as lost, suppressed leaks left out; functions: one a stack, "?" where it has no name.

    error: the tool could not judge, and why; the figures mean nothing then.
    """

    bytes: int = 0
    blocks: int = 0
    functions: frozenset[str] = frozenset()
    error: str = ""


def valgrind(told: str) -> Reading:
    """Read memcheck's standard error: the sums of all processes, what is still reachable left out."""
    processes: dict[str, list[str]] = {}
    for pid, line in re.findall(r"^==(\d+)== ?(.*)$", told, re.MULTILINE):
        processes.setdefault(pid, []).append(line.strip())
    text = "\n".join("\n".join(lines) for lines in processes.values())
    if not re.search(r"^HEAP SUMMARY:", text, re.MULTILINE):
        return Reading(error=f"no summary: {_complaint(told)}")
    kinds = rf"^(?:definitely|indirectly|possibly) lost: {_NUMBER} bytes in {_NUMBER} blocks"
    lost = re.findall(kinds, text, re.MULTILINE)
    records = re.findall(r" lost in loss record .*\n((?:(?:at|by) 0x.*\n?)*)", text)
    stacks = (re.findall(r"^(?:at|by) 0x[0-9A-F]+: (.*?)(?: \([^()]*\))?$", one, re.MULTILINE) for one in records)
    return _reading(lost, stacks)


def leak_sanitizer(told: str) -> Reading:
    """Read LeakSanitizer's standard error: direct and indirect leaks of all processes."""
    if "LeakSanitizer has encountered a fatal error" in told:
        return Reading(error="LeakSanitizer has encountered a fatal error")
    begin = r"^(?:Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\) allocated from:\n((?: +#.*\n?)*)"
    leaks = re.findall(begin, told, re.MULTILINE)
    stacks = (re.findall(r"^ +#\d+ 0x[0-9a-f]+ (.*)$", stack, re.MULTILINE) for *_, stack in leaks)
    names = ([_sanitizer_name(frame) for frame in stack] for stack in stacks)
    return _reading([(size, blocks) for size, blocks, _ in leaks], names)


def _sanitizer_name(frame: str) -> str:
    """Return the name in `in NAME FILE:LINE` or `in NAME (MODULE+0x1) (BuildId: …)`; "" in ` (MODULE+0x1)`."""
    match = re.match(r"in (.+?)(?: \(BuildId: \w+\))?$", frame)
    return match[1].rpartition(" ")[0] if match else ""


def leaktrace(document: str, told: str, code: int) -> Reading:
    """Read leaktrace's JSON, and its standard error where it could not judge."""
    try:
        report = json.loads(document)
        failed = [site for site in report["sites"] if site["outcome"] == "failed"]
    except (ValueError, KeyError, TypeError):
        return Reading(error=f"exit code {code}: {_complaint(told)}")
    if report["judgement"]["exit_code"] in LEAKTRACE_CANNOT:
        noted = "\n".join(report["notes"])
        return Reading(error=f"exit code {code}: {_complaint(noted or told)}")
    stacks = ([frame["function"] or "" for frame in site["frames"]] for site in failed)
    return _reading([(str(site["bytes"]), str(site["count"])) for site in failed], stacks)


def _reading(lost: Iterable[tuple[str, str]], stacks: Iterable[list[str]]) -> Reading:
    """Return the sums of (bytes, blocks), with the function of each stack of names, innermost first."""
    sums = [(_number(size), _number(blocks)) for size, blocks in lost]
    functions = frozenset(_function(stack) for stack in stacks)
    return Reading(sum(size for size, _ in sums), sum(blocks for _, blocks in sums), functions)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _function(names: Iterable[str]) -> str:
    """Return the innermost function that is no allocator's, without its arguments; "?" if it has no name."""
    own = next((name for name in names if not ALLOCATORS.match(name)), "")
    return own.partition("(")[0].strip() if own.strip("?") else "?"


def _complaint(text: str) -> str:
    """Return the line that says what is wrong, leaktrace's or click's, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("leaktrace: ", "Error: "))]
    return (marked or lines[-1:] or ["it said nothing"])[0][:160]


Reader = Callable[[str, str, int], Reading]
"""From what is in the tool's report file, its standard error and its exit code."""
