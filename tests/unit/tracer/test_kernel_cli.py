"""Options of `leaktrace kernel` become its settings, and those that contradict each other are refused before anything runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tracer.cli import kernel, kernel_running, main
from tracer.cli import options as options_
from tracer.cli.exported import NAMES as EXPORTED
from tracer.errors import ExitCode, UsageError
from tracer.kernel_settings import KernelSettings


def parsed(*words: str) -> dict[str, Any]:
    """Return the options of a command line."""
    context = kernel.command.make_context("leaktrace kernel", list(words))
    return {**context.params, "command": context.meta.get("command", ())}


def settings_of(*words: str) -> KernelSettings:
    return kernel.build_settings(parsed(*words))


def test_defaults_are_those_of_settings() -> None:
    """Without any option, a trace is what KernelSettings say by themselves, but that a command is not run as root."""
    assert settings_of() == KernelSettings(as_root=False)


@pytest.mark.parametrize(("words", "expected"), [
    ("2 3", {"interval": 2.0, "count": 3}),
    ("0.5", {"interval": 0.5}),
    ("--percpu", {"slab": False, "pages": False, "percpu": True}),
    ("--slab --vmalloc", {"pages": False, "vmalloc": True}),
    ("--pages --slab", {}),
    ("-p 7 --pid 9 -p 7", {"pids": (7, 9)}),
    ("--cgroup /a --cgroup /b --cgroup /a", {"cgroups": ("/a", "/b")}),
    ("-a -o 500", {"show_allocs": True, "older_ms": 500.0}),
    ("-z 16 -Z 1k", {"min_size": 16, "max_size": 1024}),
    ("-z 16 -Z 16", {"min_size": 16, "max_size": 16}),
    ("-T 3 --sort count", {"top": 3, "sort": "count"}),
    ("-d 30 --format json", {"duration": 30.0, "format": "json"}),
    ("--max-outstanding 5 --max-stacks 6 --depth 7", {"max_outstanding": 5, "max_stacks": 6, "depth": 7}),
    ("--raw-stacks -v --hash-map --cross-check --as-root", {"raw_stacks": True, "verbose": True, "hash_map": True, "cross_check": True,
                                                            "as_root": True}),
    ("--wa-missing-free", {}),
    ("1 2 -- prog -p --help", {"interval": 1.0, "count": 2, "command": ("prog", "-p", "--help")}),
    ("-- a -- b", {"command": ("a", "--", "b")}),
])
def test_options(words: str, expected: dict[str, Any]) -> None:
    """Each option changes its own setting, and what stands behind -- is a command, whatever it looks like."""
    made = settings_of(*words.split())
    assert made == KernelSettings(**{"as_root": False} | expected)
    assert all(type(getattr(made, name)) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(("words", "said"), [
    ("-z 17 -Z 16", "-z 17 is more than -Z 16"), ("-p 7 --cgroup /a", "-p and --cgroup"),
])
def test_contradictions(words: str, said: str) -> None:
    """Options that cannot both be meant are refused as wrong usage, with what to do."""
    with pytest.raises(UsageError, match=said) as caught:
        settings_of(*words.split())
    assert caught.value.exit_code is ExitCode.USAGE and caught.value.remedy


def test_every_option_has_a_place() -> None:
    """Every option of the command is a setting, judges a command, or is dealt with before."""
    names = {parameter.name for parameter in kernel.command.params} - {"help"}
    elsewhere = {*options_.GATING, "error_exitcode", "output", "ebpf", "wa_missing_free", "record", "live", *EXPORTED}
    assert names - elsewhere == {each.name for each in fields(KernelSettings)} - {
        "command", "sampling", "sample_bytes", "sample_rate", "follows"}
    assert elsewhere <= names


# ---- what is started ----


class StartedError(Exception):
    """A trace would have begun."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what would have been started: nothing is."""
    found: list[str] = []

    def show(settings: KernelSettings, *_: object) -> int:
        found.append(f"show {settings.interval}")
        return 0

    def trace_command(options: dict[str, Any], *_: object) -> tuple[None, int]:
        found.append(f"command {options['command']}")
        return None, 41

    monkeypatch.setattr(kernel_running, "show", show)
    monkeypatch.setattr(kernel_running, "trace_command", trace_command)
    return found


def test_without_a_command_reports_are_shown(started: list[str]) -> None:
    """The plain form, with memleak's arguments."""
    assert main(["kernel", "2", "1"]) == 0
    assert started == ["show 2.0"]


def test_with_a_command_it_is_run(started: list[str]) -> None:
    """What stands behind -- is handed on as it is, and its exit code is leaktrace's where there is nothing to judge."""
    assert main(["kernel", "--fail-on", "bytes>1M", "--", "true", "-x"]) == 41
    assert started == ["command ('true', '-x')"]


@pytest.mark.parametrize(("words", "option"), [
    (["--fail-on", "bytes>1"], "--fail-on"), (["--sarif", "f"], "--sarif"), (["--github"], "--github"),
    (["--print-suppressions"], "--print-suppressions"), (["--suppressions", "f"], "--suppressions"),
    (["--output", "f"], "--output"), (["--as-root"], "--as-root"), (["--error-exitcode", "9"], "--error-exitcode"),
])
def test_what_is_about_a_command_needs_one(started: list[str], capsys: pytest.CaptureFixture[str], words: list[str], option: str) -> None:
    """A budget without a command to hold to it is wrong usage, as is its report's file; the sentence names the option."""
    assert main(["kernel", *words]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"leaktrace: {option} is about a command") and not started


@pytest.mark.parametrize("words", [["--"], ["2", "1", "--"]])
def test_no_command_behind_the_mark(started: list[str], capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """-- promises a command."""
    assert main(["kernel", *words]) == ExitCode.USAGE
    assert "no command behind --" in capsys.readouterr().err and not started


@pytest.mark.parametrize("words", [["0"], ["-1"], ["2", "0"], ["2", "1.5"], ["-p", "0"], ["--depth", "128"], ["--depth", "0"],
                                   ["--sort", "name"], ["-z", "x"], ["2", "1", "true"], ["--nonsense"]])
def test_wrong_usage(started: list[str], words: list[str]) -> None:
    """What is no interval, count, size or option is refused."""
    assert main(["kernel", *words]) == ExitCode.USAGE
    assert not started


def test_a_bad_budget_is_found_before_the_command_runs(started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As in `leaktrace run`."""
    assert main(["kernel", "--fail-on", "bytes >> 3", "--", "true"]) == ExitCode.USAGE
    assert not started and "^" in capsys.readouterr().err


def test_the_program_is_printed(started: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--ebpf prints the C for these settings, and ends."""
    monkeypatch.setattr("tracer.attach.kernel_program.program_text", lambda settings: f"C of {settings.depth}")
    assert main(["kernel", "--ebpf", "--depth", "7"]) == 0
    assert capsys.readouterr().out == "C of 7\n" and not started
