"""tracer.cli.main(): exit codes, and sentences in place of tracebacks."""

from __future__ import annotations

import pytest

import bpf
from tracer.cli import main
from tracer.settings import AttachWay, Settings

#: More than any process id can be (PID_MAX_LIMIT, include/linux/threads.h), so nothing is ever traced here.
NOBODY = "4194305"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of a command line."""
    code = main(list(words))
    captured = capsys.readouterr()
    return int(code), captured.out, captured.err


@pytest.mark.parametrize(("words", "named"), [
    ("-p 0", "0"), ("-p -1", "-1"), ("-p abc", "'abc'"), ("-p 1.5", "'1.5'"), ("-p NOBODY 0", "0"), ("-p NOBODY -- -5", "-5"),
    ("-p NOBODY nan", "nan"), ("-p NOBODY inf", "inf"), ("-p NOBODY soon", "'soon'"), ("-p NOBODY 5 0", "0"), ("-p NOBODY 5 1.5", "'1.5'"),
    ("-p NOBODY -o -1", "-1"), ("-p NOBODY -o x", "'x'"), ("-p NOBODY -s 0", "0"), ("-p NOBODY -s 1000001", "1000001"),
    ("-p NOBODY --sample-bytes 0", "0"), ("-p NOBODY --sample-bytes x", "'x'"), ("-p NOBODY -T 0", "0"), ("-p NOBODY -z x", "'x'"),
    ("-p NOBODY -Z -1", "'-1'"), ("-p NOBODY -d 0", "0"), ("-p NOBODY --max-outstanding 0", "0"), ("-p NOBODY --max-outstanding 268435457",
    "268435457"), ("-p NOBODY --max-stacks 0", "0"), ("-p NOBODY --max-stacks 1048577", "1048577"), ("-p NOBODY --depth 0", "0"),
    ("-p NOBODY --depth 128", "128"), ("-p NOBODY --format xml", "'xml'"), ("-p NOBODY --sort age", "'age'"), ("-p NOBODY --attach x", "'x'"),
    ("-p NOBODY --unwind dwarf", "'dwarf'"), ("-p NOBODY --alloc-fn f", "'f'"), ("-p NOBODY --free-fn f:ptr=9", "'9'"),
    ("-p NOBODY --nonsense", "--nonsense"), ("-p", "-p"), ("-p NOBODY 1 2 3", "3"),
])
def test_bad_values(capsys: pytest.CaptureFixture[str], words: str, named: str) -> None:
    """A value that has no meaning ends in exit code 2, with a sentence on stderr that names it, and nothing on stdout."""
    code, out, err = run(capsys, *words.replace("NOBODY", NOBODY).split())
    assert (code, out) == (2, "")
    sentence = err.strip().splitlines()[-1]
    assert named in sentence and sentence.endswith((".", ")")) and "Traceback" not in err


@pytest.mark.parametrize(("words", "said"), [
    ("-s 2 5", "--sample-rate is for a process"), ("-t -O libc.so 5 10", "--trace, --obj is for a process"),
    ("--percpu -p NOBODY", "--percpu is for the kernel"), ("--wa-missing-free -c true", "--wa-missing-free is for the kernel"),
    ("-p NOBODY -c true", "-p and -c"),
    ("-p NOBODY -z 9 -Z 8", "-z 9 is more"), ("-p NOBODY -s 2 --sample-bytes 9", "two ways to sample"),
])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    """What cannot be meant ends in exit code 2, with one sentence for the thing and one for the remedy."""
    code, out, err = run(capsys, *words.replace("NOBODY", NOBODY).split())
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("leaktrace: ") and said in lines[0] and lines[1].endswith(".")


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Without any word, and when asked, it explains itself on stdout."""
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: leaktrace") and "--pid" in out and "Exit codes" in out


def test_help_does_not_speak_of_what_is_for_developers(capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden options stay hidden."""
    _, out, _ = run(capsys, "--help")
    assert "--bare-traps" not in out and "--hash-map" not in out and "--percpu" not in out


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A first word that names a command is that command."""
    code, out, _ = run(capsys, "demo", "--help")
    assert code == 0 and "small program that leaks" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """It says its version."""
    code, out, _ = run(capsys, "--version")
    assert code == 0 and "leaktrace" in out and any(char.isdigit() for char in out)


def test_ebpf(capsys: pytest.CaptureFixture[str]) -> None:
    """--ebpf prints the C for these options, and traces nothing."""
    code, out, err = run(capsys, "--ebpf", "-s", "10", "--attach", "multi")
    assert (code, err) == (0, "")
    assert out == bpf.source(Settings(sample_rate=10).definitions(AttachWay.MULTI)) + "\n"


def test_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that does not exist ends in exit code 3, with a sentence and a remedy."""
    code, out, err = run(capsys, "-p", NOBODY)
    assert (code, out) == (3, "")
    assert err.splitlines() == [f"leaktrace: There is no process {NOBODY}.",
                                "Look for the right one with: pgrep -a NAME"]
