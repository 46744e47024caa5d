"""leaktrace run as a gate: what fails a run, what is accepted, which exit code says so, and what is written about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.live.conftest import PATIENCE, ROOT, RunningTool, functions
from tests.live.test_options import WORDS
from tests.live.test_run import run, run_to_json

Build = Callable[..., Path]
FIRST, SECOND = "first_site", "second_site"


@pytest.fixture(scope="module")
def sites(build: Build) -> Path:
    return build("run_sites.c")


def outcomes(said: str) -> dict[str, str]:
    """Return, of a report for people, each function that a stack begins with, and the line above it."""
    lines = said.splitlines()
    return {lines[number + 1].split()[1].partition("+")[0]: line.strip() for number, line in enumerate(lines)
            if line.endswith("from stack") or " from stack (" in line}


# ---- exit codes


@pytest.mark.parametrize(("command", "code"), [
    (("true",), 0), (("sh", "-c", "exit 5"), 5), (("sh", "-c", "kill -9 $$"), 137), (("sh", "-c", "kill -TERM $$"), 143),
    (("no-such-command-here",), 3), (("/",), 3), (("/no/such/file",), 3),
])  # fmt: skip
def test_the_exit_code_is_the_commands(command: tuple[str, ...], code: int) -> None:
    """0, its own, 128 + the signal; 3, could not trace, for one that does not exist, with its name."""
    answer = run(*command)
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr and (code != 3 or command[0] in answer.stderr)


@pytest.mark.parametrize(("options", "code"), [
    (("--fail-on", "count>2"), 23), (("--fail-on", "count>3"), 5), (("--fail-on", "bytes>=300"), 23),
    (("--fail-on", "bytes>1k", "--fail-on", "total_count>=3"), 23), (("--fail-on", "total_bytes>300"), 5),
    (("--fail-on", "count>2", "--error-exitcode", "77"), 77), (("--fail-on", "count>3", "--error-exitcode", "77"), 5),
])  # fmt: skip
def test_a_budget_decides(build: Build, options: tuple[str, ...], code: int) -> None:
    """Over budget the exit code is 23 or the one asked for, whatever the command's own; within, the command's."""
    answer = run(build("run_ends.c"), "exit", options=options)
    assert answer.returncode == code, answer.stderr
    assert ("FAILED" in answer.stderr) == (code != 5)


def test_losses_are_no_pass() -> None:
    """Where blocks were lost, a run with a budget ends in 4 and says what was lost; one without ends as the command."""
    # More blocks than the smallest table and its overflow have room for.
    many = ("perl", "-e", "my @kept = map { 'x' x 100 } 1 .. 5000; exit 7")
    answer = run(*many, options=("--max-outstanding", "1", "--fail-on", "bytes>1G"))
    assert answer.returncode == 4 and "missing from the report" in answer.stderr
    assert run(*many, options=("--max-outstanding", "1")).returncode == 7


@pytest.mark.parametrize(("option", "text", "said"), [
    ("--suppressions", "leak:good\nnonsense\n", "FILE:2:"),
    ("--suppressions", "{\n  name\n  Memcheck:Leak\n  oops:here\n}\n", "FILE:4:"),
    ("--baseline", '{"schema": "leaktrace/9"}', "'leaktrace/9'"), ("--baseline", "not json", "FILE is not JSON"),
    ("--suppressions", None, "FILE cannot be read"), ("--baseline", None, "FILE cannot be read"),
    ("--output", None, "FILE/below cannot be written"), ("--junit", None, "FILE/below cannot be written"),
    ("--sarif", None, "FILE/below cannot be written"),
])  # fmt: skip
def test_bad_input_starts_nothing(tmp_path: Path, option: str, text: str | None, said: str) -> None:
    """A file that cannot be read, understood or written ends in 2 before the command starts, and is named."""
    path, started = tmp_path / "file", tmp_path / "started"
    if text is not None:
        path.write_text(text)
    value = f"{path}/below" if "below" in said else str(path)
    answer = run("touch", started, options=(option, value))
    assert (answer.returncode, answer.stdout, started.exists()) == (2, "", False)
    assert said.replace("FILE", str(path)) in answer.stderr and "Traceback" not in answer.stderr


def test_a_bad_expression_starts_nothing(tmp_path: Path) -> None:
    """An expression that does not parse is shown with a mark below the place."""
    started = tmp_path / "started"
    answer = run("touch", started, options=("--fail-on", "bytes > 64k and nonsense"))
    _, shown, mark, _ = answer.stderr.splitlines()
    assert (answer.returncode, started.exists()) == (2, False)
    assert shown[mark.index("^"):] == "nonsense"


@pytest.mark.parametrize("expression", ["verdict == lost", "count > 2 and growth_bytes_per_s > 0"])
def test_what_was_not_measured_is_no_pass(build: Build, expression: str) -> None:
    """A budget over a figure that this run has for no site does not end like a run without leaks."""
    assert run(build("run_ends.c"), options=("--fail-on", expression)).returncode in (2, 4)


# ---- suppressions


@pytest.mark.parametrize("text", [
    f"leak:{FIRST}\n", f"{{\n  known\n  Memcheck:Leak\n  match-leak-kinds: all\n  fun:malloc\n  fun:{FIRST}\n  ...\n}}\n",
], ids=["leak_sanitizer", "valgrind"])  # fmt: skip
def test_a_suppression_silences_its_site(sites: Path, tmp_path: Path, text: str) -> None:
    """A file of either tool accepts its site and no other, and what it accepted is counted."""
    path = tmp_path / "known.supp"
    path.write_text(text)
    options = ("--suppressions", str(path), "--fail-on", "bytes>0")
    answer = run(sites, "2", "0", options=options)
    assert answer.returncode == 0, answer.stderr
    assert outcomes(answer.stderr) == {} and "suppressed: 200 bytes in 2 allocations from 1 site" in answer.stderr
    answer = run(sites, "2", "1", options=options)
    assert answer.returncode == 23 and list(outcomes(answer.stderr)) == [SECOND]


def test_unused_suppressions_are_named(sites: Path, tmp_path: Path) -> None:
    """A suppression that silenced nothing is named with its file and line, one that did is not."""
    path = tmp_path / "known.supp"
    path.write_text(f"leak:{FIRST}\n# a comment\nleak:long_gone\n")
    said = run(sites, "2", "1", options=("--suppressions", str(path))).stderr
    (unused,) = [line for line in said.splitlines() if line.startswith("not used: ")]
    assert "long_gone" in unused and f"{path}:3" in unused


def test_what_glibc_keeps_is_accepted(build: Build) -> None:
    """stdout's buffer and a locale's names are no leaks of the program, unless asked for."""
    program = build("run_keeps.c")
    answer = run(program, options=("--fail-on", "bytes>0"))
    assert list(outcomes(answer.stderr)) == ["own_site"] and "not used" not in answer.stderr
    for kept in ("the buffer of a stream", "names and data of locales"):
        assert [line for line in answer.stderr.splitlines() if line.startswith("suppressed: ") and kept in line]
    answer = run(program, options=("--no-default-suppressions", "-T", "1000"))
    assert {"own_site", "_IO_file_doallocate"} < set(outcomes(answer.stderr)) and "suppressed" not in answer.stderr
    assert "setlocale" in answer.stderr


def printed_suppressions(said: str) -> str:
    """Return the suppressions that stand in a report."""
    entries = re.findall(r"^\{\n(?: .*\n)+\}\n", said, re.MULTILINE)
    return "".join(entries)


def test_printed_suppressions_silence_what_they_were_printed_for(sites: Path, tmp_path: Path) -> None:
    """--print-suppressions, pasted into a file, accepts exactly those sites: the next run passes, one more site fails."""
    path = tmp_path / "pasted.supp"
    path.write_text(printed_suppressions(run(sites, "2", "0", options=("--print-suppressions",)).stderr))
    options = ("--suppressions", str(path), "--fail-on", "bytes>0")
    assert run(sites, "2", "0", options=options).returncode == 0
    answer = run(sites, "2", "1", options=options)
    assert answer.returncode == 23 and list(outcomes(answer.stderr)) == [SECOND]


def test_printed_suppressions_of_a_program_without_names(build: Build, tmp_path: Path) -> None:
    """Where a stack has no names, what is printed for it does not accept the program's other sites."""
    stripped, path = build("run_sites.c", "-s", name="stripped"), tmp_path / "pasted.supp"
    path.write_text(printed_suppressions(run(stripped, "2", "0", options=("--print-suppressions",)).stderr))
    answer = run(stripped, "2", "5", options=("--suppressions", str(path), "--fail-on", "bytes>0"))
    assert answer.returncode == 23, answer.stderr


def test_suppressed_sites_are_not_printed_as_suppressions(build: Build) -> None:
    """What is accepted already is not printed again."""
    text = printed_suppressions(run(build("run_keeps.c"), options=("--print-suppressions",)).stderr)
    assert text.count("Memcheck:Leak") == 1 and "fun:own_site" in text


# ---- baseline


@pytest.fixture(scope="module")
def baseline(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The option that names the report of a run with two blocks at the first site."""
    folder = tmp_path_factory.mktemp("baseline")
    run_to_json(folder, sites, "2", "0")
    return "--baseline", str(folder / "report.json")


@pytest.mark.parametrize(("counts", "code", "failed"), [
    (("2", "0"), 0, {}), (("1", "0"), 0, {}), (("2", "1"), 23, {SECOND: "new since the baseline"}),
    (("3", "0"), 23, {FIRST: "grown since the baseline by 100 bytes, 1 block"}),
])  # fmt: skip
def test_a_baseline_accepts_what_it_knows(
    sites: Path, baseline: tuple[str, str], counts: tuple[str, str], code: int, failed: dict[str, str]
) -> None:
    """A run like the saved one passes, also with less; a new site and a grown one fail without any other budget."""
    answer = run(sites, *counts, options=baseline)
    assert answer.returncode == code, answer.stderr
    lines = {name: line for name, line in outcomes(answer.stderr).items() if line.startswith("FAILED")}
    assert lines.keys() == failed.keys() and all(failed[name] in line for name, line in lines.items())
    assert ("in the baseline: " in answer.stderr) == (FIRST not in failed)


def test_a_rebuild_still_matches(build: Build, baseline: tuple[str, str]) -> None:
    """A build of the program with other addresses and other lines has the same sites."""
    moved = build("run_sites.c", "-DMOVED", name="run_sites")
    assert run(moved, "2", "0", options=baseline).returncode == 0
    assert run(moved, "2", "1", options=baseline).returncode == 23


def test_a_budget_may_forgive_what_is_new(sites: Path, baseline: tuple[str, str]) -> None:
    """With a budget of its own, a run fails for new sites over that budget only."""
    assert run(sites, "2", "1", options=(*baseline, "--fail-on", "bytes>1k")).returncode == 0
    assert run(sites, "2", "1", options=(*baseline, "--fail-on", "bytes>=10")).returncode == 23


# ---- what is written


def test_every_output_has_the_site(sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JUnit, SARIF, GitHub's annotations and JSON of one run are well-formed, and have function, file and line."""
    source = Path(__file__).resolve().parents[1] / "programs" / "run_sites.c"
    line = next(number for number, text in enumerate(source.read_text().splitlines(), 1) if "malloc(100)" in text)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(source.parents[2]))
    junit, sarif, out = tmp_path / "junit.xml", tmp_path / "log.sarif", tmp_path / "report.json"
    answer = run(sites, "2", "0", options=("--junit", str(junit), "--sarif", str(sarif), "--github", "--fail-on", "bytes>0",
                                           "--format", "json", "--output", str(out)))
    assert answer.returncode == 23

    (failure,) = ElementTree.parse(junit).getroot().iter("failure")
    assert f"{source}:{line}" in (failure.text or "") and FIRST in (failure.text or "")

    (result,) = json.loads(sarif.read_text())["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("tests/programs/run_sites.c") and place["region"]["startLine"] == line

    assert answer.stdout.startswith(f"::error file=tests/programs/run_sites.c,line={line},title=")
    assert answer.stdout.count("\n") == 1

    report = json.loads(out.read_text())
    (found,) = [site for site in report["sites"] if FIRST in functions(site)]
    assert (report["schema"], found["bytes"], found["frames"][0]["line"]) == ("leaktrace/1", 200, line)
    assert report["last"] and report["complete"]


@pytest.mark.parametrize(("stream", "options"), [("stderr", ()), ("stdout", ("--github",))])
def test_a_reader_that_has_gone_changes_no_judgement(build: Build, stream: str, options: tuple[str, ...]) -> None:
    """`leaktrace run ... | head`: a report that nobody reads to its end has the exit code of one that was read."""
    reader, writer = os.pipe()
    os.close(reader)
    out, err = (writer if name == stream else subprocess.DEVNULL for name in ("stdout", "stderr"))
    code = subprocess.run([*WORDS, "run", *options, "--fail-on", "bytes>0", "--", build("run_ends.c")], cwd=ROOT,
                          stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=PATIENCE, check=False).returncode
    os.close(writer)
    assert code == 23


@pytest.mark.parametrize("option", ["--output", "--junit", "--sarif"])
def test_a_full_disk_is_said(build: Build, option: str) -> None:
    """A report that cannot be written is an error of two sentences, and neither a pass nor the command's exit code."""
    answer = run(build("run_ends.c"), "exit", options=(option, "/dev/full"))
    assert "Traceback" not in answer.stderr and "/dev/full" in answer.stderr and "No space left" in answer.stderr
    assert answer.returncode in (3, 4)


# ---- what needs time


def test_growth_and_age(build: Build, start: Callable[..., RunningTool]) -> None:
    """A site that gained between two looks has growth, one that did not has none; age is that of the oldest block."""
    # -v says when a report was taken: the first is that of a running program, the second that of its end.
    tool = start("-v", "--fail-on", "growth_bytes_per_s>0", "--fail-on", "oldest_s>1", "--fail-on", "oldest_s>1h", "--",
                 build("run_steps.c"), "2")
    tool.out.until(lambda line: line == "ready")
    ready = time.monotonic()
    tool.err.until(lambda line: "report took" in line)
    # A lower bound of the block's age, however slow the machine is.
    time.sleep(max(0.0, ready + 1.1 - time.monotonic()))
    tool.go()
    code, said = tool.wait()
    assert code == 23, said
    failed = [line for line in said.splitlines() if "FAILED" in line]
    assert any("growth_bytes_per_s>0" in line for line in failed) and any("oldest_s>1)" in line or "oldest_s>1;" in line for line in failed)
    assert not any("1h" in line for line in failed)


def test_a_young_block_is_within_an_age(build: Build) -> None:
    """A budget over age passes for a program that ends at once."""
    assert run(build("run_ends.c"), options=("--fail-on", "oldest_s>1h")).returncode == 0


def read_sums(document: dict[str, Any]) -> tuple[int, int]:
    return document["totals"]["live_bytes"], document["totals"]["live_count"]


def test_all_sites_are_judged_and_few_shown(sites: Path, tmp_path: Path) -> None:
    """--top limits what is shown of what passed; JSON and the gate have every site."""
    answer = run(sites, "2", "1", options=("-T", "1", "--fail-on", "bytes==10"))
    assert answer.returncode == 23 and set(outcomes(answer.stderr)) == {FIRST, SECOND}
    assert outcomes(answer.stderr)[SECOND].startswith("FAILED (bytes==10)")
    _, document = run_to_json(tmp_path, sites, "2", "1", options=("-T", "1"))
    assert len(document["sites"]) == 2 and read_sums(document) == (210, 3)
