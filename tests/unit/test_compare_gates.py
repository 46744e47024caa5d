"""scripts/compare_gates: what it reads from each tool's output, what it calls right, and the table that it makes of it."""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks.child import Failure
from benchmarks.gate_output import as_json, as_text, seconds
from benchmarks.gate_programs import PROGRAMS, SOURCES, Program, Truth, truth
from benchmarks.gate_readings import Reading, leak_sanitizer, leaktrace, valgrind
from benchmarks.gate_tools import LEAK_SANITIZER, LEAKTRACE, UNTRACED, VALGRIND, Run, finished, folder_of
from benchmarks.gate_verdicts import Row, Verdict, judge, summary

VALGRIND_CHILD_AND_PARENT = """\
==11== HEAP SUMMARY:
==12== HEAP SUMMARY:
==12==     in use at exit: 1,120 bytes in 4 blocks
==12==
==12== 1,040 (960 direct, 80 indirect) bytes in 1 blocks are definitely lost in loss record 2 of 2
==11==
==12==    at 0x48417B4: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)
==11== All heap blocks were freed -- no leaks are possible
==12==    by 0x109151: make_ring (leaks.c:14)
==12==    by 0x1091A4: main (leaks.c:34)
==12==
==12== 40 bytes in 1 blocks are possibly lost in loss record 1 of 2
==12==    at 0x484320F: operator new[](unsigned long) (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)
==12==    by 0x109469: Connection::Connection(int) (exceptions.cpp:22)
==12==
==12== LEAK SUMMARY:
==12==    definitely lost: 960 bytes in 1 blocks
==12==    indirectly lost: 80 bytes in 2 blocks
==12==      possibly lost: 40 bytes in 1 blocks
==12==    still reachable: 6,400 bytes in 100 blocks
==12==         suppressed: 800 bytes in 8 blocks
"""
VALGRIND_NO_NAME = """\
==7== HEAP SUMMARY:
==7== 50 bytes in 1 blocks are definitely lost in loss record 1 of 1
==7==    at 0x48417B4: malloc (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)
==7==    by 0x4853120: ???
==7==    by 0x109198: main (unloaded.c:16)
==7== LEAK SUMMARY:
==7==    definitely lost: 50 bytes in 1 blocks
"""
SANITIZED = """\

=================================================================
==24399==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 2560 byte(s) in 10 object(s) allocated from:
    #0 0x7f26d9211f65 in operator new[](unsigned long) ../../../../src/libsanitizer/lsan/lsan_interceptors.cpp:250
    #1 0x558372f3c469 in Connection::Connection(int) /home/me/gates/exceptions.cpp:22
    #2 0x558372f3c63b in connect /home/me/gates/exceptions.cpp:35

Indirect leak of 40 byte(s) in 1 object(s) allocated from:
    #0 0x7f26d9211f65 in __interceptor_malloc (/usr/lib/liblsan.so.0+0x13545) (BuildId: 0c5872bc497e)
    #1 0x558372f3c469 in make_ring (/tmp/leaks+0x1146) (BuildId: 0c5872bc497e)

Direct leak of 350 byte(s) in 7 object(s) allocated from:
    #0 0x7ff9f6c13545 in __interceptor_malloc ../../../../src/libsanitizer/lsan/lsan_interceptors.cpp:75
    #1 0x7ff9f71bb120  (<unknown module>)
    #2 0x55bd98564198 in main /home/me/gates/unloaded.c:16

SUMMARY: LeakSanitizer: 2950 byte(s) leaked in 18 allocation(s).
"""
LOST = Truth(500, 5, "lose")
EXACT = Reading(500, 5, frozenset({"lose"}))


def document(code: int, *sites: tuple[int, int, str, str | None]) -> str:
    """Return leaktrace's JSON with sites of (bytes, count, outcome, function)."""
    made = [{"bytes": size, "count": count, "outcome": outcome, "frames": [{"function": function}, {"function": "main"}]}
            for size, count, outcome, function in sites]
    return json.dumps({"sites": made, "notes": [], "judgement": {"exit_code": code}}) + "\n"


def test_script_starts() -> None:
    """The script finds its modules, and says what it takes."""
    done = subprocess.run([sys.executable, SCRIPTS / "compare_gates", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--only NAME" in done.stdout


def test_valgrind_is_read_by_process() -> None:
    """Lines of two processes that come mixed are told apart; direct, indirect and possible losses count, others do not."""
    assert valgrind(VALGRIND_CHILD_AND_PARENT) == Reading(1080, 4, frozenset({"make_ring", "Connection::Connection"}))


def test_valgrind_says_when_it_has_no_name() -> None:
    """An allocation by code without a name is not put on its caller."""
    assert valgrind(VALGRIND_NO_NAME) == Reading(50, 1, frozenset({"?"}))


def test_valgrind_without_leaks_and_without_a_summary() -> None:
    """No summary is an error with what was said, not a clean result."""
    assert valgrind("==11== HEAP SUMMARY:\n==11== All heap blocks were freed -- no leaks are possible\n") == Reading()
    assert valgrind("valgrind: ./x: No such file\n").error == "no summary: valgrind: ./x: No such file"


def test_leak_sanitizer_is_read() -> None:
    """Names with blanks, places as file or as module, and frames without a name are all read; the sums are of all leaks."""
    assert leak_sanitizer(SANITIZED) == Reading(2950, 18, frozenset({"Connection::Connection", "make_ring", "?"}))


def test_leak_sanitizer_that_failed_is_an_error() -> None:
    """Silence means no leak; its own failure does not."""
    assert leak_sanitizer("") == Reading()
    assert leak_sanitizer("==1==LeakSanitizer has encountered a fatal error.\n").error


def test_leaktrace_is_read() -> None:
    """Only sites that failed count: what was suppressed is no report of a leak."""
    text = document(23, (40, 1, "failed", "make_ring(int)"), (7, 1, "failed", None), (800, 8, "suppressed", "known"))
    assert leaktrace(text, "", 23) == Reading(47, 2, frozenset({"make_ring", "?"}))


@pytest.mark.parametrize(("text", "told", "code", "error"), [
    ("", "Usage: leaktrace run\n\nError: No such option '--follow-forks'.\n", 2, "exit code 2: Error: No such option '--follow-forks'."),
    ("", "leaktrace: No permission.\nRun it as root.\n", 3, "exit code 3: leaktrace: No permission."),
    (document(4), "NOT CERTAIN: child processes were not traced\n", 4, "exit code 4: NOT CERTAIN: child processes were not traced"),
    ("{", "", 1, "exit code 1: it said nothing"),
])
def test_leaktrace_that_could_not_judge_is_an_error(text: str, told: str, code: int, error: str) -> None:
    """A refusal, a failure to trace and a judgement that is not certain are no results."""
    assert leaktrace(text, told, code) == Reading(error=error)


@pytest.mark.parametrize(("reading", "code", "verdict"), [
    (EXACT, 23, Verdict.RIGHT),
    (EXACT, -signal.SIGSEGV, Verdict.RIGHT),
    (EXACT, 0, Verdict.EXIT_CODE),
    (Reading(), 23, Verdict.MISSED),
    (Reading(499, 5, frozenset({"lose"})), 23, Verdict.INEXACT),
    (Reading(500, 4, frozenset({"lose"})), 23, Verdict.INEXACT),
    (Reading(500, 5, frozenset({"?"})), 23, Verdict.INEXACT),
    (Reading(500, 5, frozenset({"lose", "main"})), 23, Verdict.INEXACT),
    (Reading(error="no"), 23, Verdict.ERROR),
])
def test_a_leak_must_be_reported_exactly(reading: Reading, code: int, verdict: Verdict) -> None:
    """Bytes, blocks and function are what they are, and the exit code tells of the leak."""
    assert judge(LOST, Run(1.0, code, reading), 0) is verdict


@pytest.mark.parametrize(("reading", "code", "verdict"), [
    (Reading(), 0, Verdict.RIGHT),
    (Reading(), 23, Verdict.EXIT_CODE),
    (EXACT, 23, Verdict.FALSE_ALARM),
    (Reading(error="no"), 0, Verdict.ERROR),
])
def test_where_nothing_is_lost_nothing_may_be_reported(reading: Reading, code: int, verdict: Verdict) -> None:
    """A program without leaks ends with its own exit code and without a report."""
    assert judge(Truth(), Run(1.0, code, reading), 0) is verdict


def row(*runs: Run, failures: dict[str, str] | None = None) -> Row:
    return Row(Program("leaves", "leaves.c"), LOST, (Run(0.002, 0, Reading()),), {"leaktrace": runs}, failures or {})


def test_rounds_that_differ_are_all_told() -> None:
    """One answer in all rounds stands once; others stand with how often they came, and the tool was not right."""
    right, missed = Run(1.0, 23, EXACT), Run(3.0, 0, Reading())
    assert summary(row(right, right), "leaktrace") == "right" and row(right, right).is_right("leaktrace")
    assert summary(row(right, missed, right), "leaktrace") == "right (2 of 3); missed (1 of 3)"
    assert not row(right, missed, right).is_right("leaktrace")


def test_a_tool_that_did_not_end_is_an_error() -> None:
    """Why there is no run stands in the table, and counts as not right."""
    made = row(failures={"leaktrace": "not done after 300 s"})
    assert summary(made, "leaktrace") == "error: not done after 300 s" and not made.is_right("leaktrace")
    assert "error: not done after 300 s |" in as_text([made], ["leaktrace"])


def test_table() -> None:
    """A row has the truth, the plain program's time, and the tool's answer with its median time; the last row the sums."""
    wrong = Reading(64, 1, frozenset({"?"}))
    assert as_text([row(Run(1.0, 23, EXACT), Run(2.0, 23, EXACT), Run(9.0, 23, EXACT)), row(Run(12.34, 23, wrong)),
                    row(Run(0.5, 2, Reading(error="a | b")))], ["leaktrace"]) == """\
| program | lost at its end | plain | leaktrace |
| --- | --- | --- | --- |
| `leaves` | 500 bytes in 5 blocks at `lose` | 0.0020 s | right, 2.0 s |
| `leaves` | 500 bytes in 5 blocks at `lose` | 0.0020 s | inexact: 64 bytes in 1 block at no name, 12 s |
| `leaves` | 500 bytes in 5 blocks at `lose` | 0.0020 s | error: a \\| b |
| right |  |  | **1 of 3** |"""


def test_json_can_be_written() -> None:
    """Everything that was measured is JSON's own types, with each run's verdict."""
    made = json.loads(json.dumps(as_json([row(Run(1.0, 23, EXACT))])))
    assert made[0]["tools"]["leaktrace"] == [
        {"seconds": 1.0, "code": 23, "verdict": "right", "bytes": 500, "blocks": 5, "functions": ["lose"], "error": ""}]


def test_seconds_have_two_digits() -> None:
    """Milliseconds and minutes can both be read."""
    assert [seconds(one) for one in (0.00123, 0.0123, 0.123, 0.999, 1.23, 12.3, 123.4, None)] == [
        "0.0012 s", "0.012 s", "0.12 s", "1.0 s", "1.2 s", "12 s", "123 s", ""]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_says_its_answer(program: Program) -> None:
    """The first comment of each source has an answer, and the function that it names is there."""
    source = (SOURCES / program.source).read_text()
    function = truth(source).function
    made = source + "".join((SOURCES / f"{word}.c").read_text() for word in ("leaks", "unloaded_library"))
    assert not function or f"{function.rpartition('::')[2]}(" in made
    assert source.startswith(f"/*\n * {program.name}")


def test_a_source_without_an_answer_is_a_failure() -> None:
    """A program whose truth nobody wrote down cannot be judged."""
    with pytest.raises(Failure):
        truth("/* x: does something. */")


def test_command_lines_are_a_users() -> None:
    """Options that a program needs are there for it and for no other."""
    folder, values = Path("/b"), {"leaktrace": "leaktrace", "report": "r.json"}
    named = {program.name: program for program in PROGRAMS}
    assert " ".join(LEAKTRACE.command(named["forks"], folder, values)) == (
        "leaktrace run --reachability --fail-on verdict==lost --format json --output r.json --follow-forks -- /b/forks")
    assert VALGRIND.command(named["leaks"], folder, values) == [
        "valgrind", "--leak-check=full", "--error-exitcode=23", "/b/leaks"]
    assert "--trace-children=yes" in VALGRIND.command(named["execs"], folder, values)
    assert LEAK_SANITIZER.command(named["execs"], folder, values) == ["/b/execs", "/b/leaks"]
    assert LEAK_SANITIZER.environment(named["suppressed"]) and not LEAK_SANITIZER.environment(named["leaks"])
    assert folder_of(LEAKTRACE, folder) == folder_of(UNTRACED, folder) != folder_of(LEAK_SANITIZER, folder)


def test_a_run_has_its_time_code_and_words() -> None:
    """What a program wrote to standard error and how it ended is kept, also if a signal ended it."""
    took, code, told = finished(["sh", "-c", "echo out; echo error >&2; kill -SEGV $$"], {})
    assert 0 < took < 10 and code == -signal.SIGSEGV and told == "error\n"


def test_a_run_that_hangs_is_ended() -> None:
    """With the time over, the program and what it started are killed, and that is a failure."""
    with pytest.raises(Failure, match="not done after"):
        finished(["sh", "-c", "sleep 100 & sleep 100"], {}, timeout_s=0.2)


def test_a_program_that_is_not_there_is_a_failure() -> None:
    """A tool that cannot be started is told as one sentence."""
    with pytest.raises(Failure, match="No such file"):
        finished(["/nowhere/tool"], {})
