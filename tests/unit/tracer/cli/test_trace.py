"""Options become Settings, and options that contradict each other are refused."""

from __future__ import annotations

from typing import Any

import pytest

from symbolizer.choices import GroupBy, Style
from tracer.cli.trace import build_settings, command
from tracer.errors import ExitCode, UsageError
from tracer.limits import MAX_SLOTS
from tracer.settings import AttachWay, CustomFunction, Settings, UnwindWay

#: Taken away before Settings are built.
NOT_SETTINGS = ("percpu", "wa_missing_free", "combined_only", "ebpf", "record", "live", "listen", "listen_public",
                "push_pprof")


def settings_of(*words: str) -> Settings:
    """Return the settings that a command line means."""
    options: dict[str, Any] = command.make_context("leaktrace", list(words)).params
    return build_settings({name: value for name, value in options.items() if name not in NOT_SETTINGS})


def test_defaults_are_those_of_settings() -> None:
    """A bare -p means what Settings say by themselves: the two do not differ."""
    assert settings_of("-p", "7") == Settings(pids=(7,))


@pytest.mark.parametrize(("words", "expected"), [
    ("-p 7 2 3", {"interval": 2.0, "count": 3}),
    ("-p 7 0.5", {"interval": 0.5}),
    ("-p 7 --pid 9 -p 7", {"pids": (7, 9)}),
    ("-p 7 -t -a", {"trace_events": True, "show_allocs": True}),
    ("-p 7 -o 500", {"older_ms": 500.0}),
    ("-p 7 -o 0", {"older_ms": 0.0}),
    ("-p 7 -s 10", {"sample_rate": 10}),
    ("-p 7 --sample-bytes 512k", {"sample_bytes": 524288}),
    ("-p 7 -T 3 --sort count", {"top": 3, "sort": "count"}),
    ("-p 7 -z 16 -Z 1k", {"min_size": 16, "max_size": 1024}),
    ("-p 7 -z 16 -Z 16", {"min_size": 16, "max_size": 16}),
    ("-p 7 -z 0", {"min_size": 0}),
    ("-p 7 -O c", {"object_path": "c"}),
    ("-p 7 --symbols-prefix je_", {"symbols_prefix": "je_"}),
    ("-p 7 --alloc-fn a:size=0 --free-fn f:ptr=1", {"alloc_functions": (CustomFunction("a", size=0),),
                                                      "free_functions": (CustomFunction("f", pointer=1),)}),
    ("-p 7 -d 30 --format json", {"duration": 30.0, "format": "json"}),
    ("-p 7 --max-outstanding 5 --max-stacks 6 --depth 7", {"max_outstanding": 5, "max_stacks": 6, "depth": 7}),
    ("-p 7 --attach multi --unwind fp", {"attach": AttachWay.MULTI, "unwind": UnwindWay.FP}),
    ("-p 7 --combined-only", {}),
    ("-p 7 -v --bare-traps --hash-map", {"verbose": True, "bare_traps": True, "hash_map": True}),
    ("-p 7 --group-by function --raw-stacks", {"group_by": GroupBy.FUNCTION, "raw_stacks": True}),
    ("-p 7 --demangle short --debug-dir /a --debug-dir /b", {"demangle": Style.SHORT, "debug_folders": ("/a", "/b")}),
    ("-p 7 --follow-forks", {"follow_forks": True}),
    ("-p 7 --reachability", {"reachability": True}),
    ("-p 7 --max-image 64m", {"max_image": 64 << 20}),
    ("-p 7 --who-points-at #3 --who-points-at 0x10", {"reachability": True, "who_points_at": ("3", "0x10")}),
    ("-c true", {"pids": (), "command": ("true",)}),
    ("-c true 'a  b'", {"pids": (), "command": ("true", "a  b")}),
])
def test_options(words: str, expected: dict[str, Any]) -> None:
    """Each option changes its own setting, and nothing else."""
    made = settings_of(*words.split(" ", 1)) if words.startswith("-c") else settings_of(*words.split())
    assert made == Settings(**{"pids": (7,)} | expected)
    assert all(type(getattr(made, name)) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(("words", "said"), [
    ("-p 7 -z 17 -Z 16", "-z 17 is more than -Z 16"),
    ("-p 7 -c true", "-p and -c"),
    ("-c 'true", "cannot be split"),
    ("-p 7 -s 2 --sample-bytes 5", "two ways to sample"),
    (" ".join(f"-p {n}" for n in range(1, MAX_SLOTS + 2)), f"{MAX_SLOTS + 1} processes are more than {MAX_SLOTS}"),
])
def test_contradictions(words: str, said: str) -> None:
    """Options that cannot both be meant are refused as wrong usage, with what to do."""
    with pytest.raises(UsageError, match=said) as caught:
        settings_of(*words.split())
    assert caught.value.exit_code is ExitCode.USAGE and caught.value.remedy


def test_as_many_processes_as_slots() -> None:
    """The limit itself is allowed, and a process that is named twice counts once."""
    words = [word for n in [*range(1, MAX_SLOTS + 1), 1] for word in ("-p", str(n))]
    assert settings_of(*words).pids == tuple(range(1, MAX_SLOTS + 1))


def test_every_option_is_a_setting() -> None:
    """Every option of the command is a field of Settings, or is one that is dealt with before."""
    names = {parameter.name for parameter in command.params} - {"help", "version"}
    assert names - set(NOT_SETTINGS) == set(Settings.__dataclass_fields__) - {"as_root", "keep_ended", "tell_every_exec"}, (
        "as_root and keep_ended are run's, and what the control groups are is found out")
