"""What the tracer's tests compile, what binutils says about it, and stacks as the kernel side writes them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tracer import records
from tracer.records import StackEnd

#: Frames in a made-up stack.
DEPTH = 6


def stack(*addresses: int, image: int = 0, code: int = 0, ended: int = StackEnd.COMPLETE) -> np.ndarray:
    """Return one struct stack."""
    made = np.zeros((), records.stack_dtype(DEPTH))
    made["image"], made["code"], made["ended"], made["depth"] = image, code, ended, len(addresses)
    made["addresses"][: len(addresses)] = addresses
    return made


@pytest.fixture
def compile_shared(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a shared object of a text; its options come after -O2 -fPIC."""

    def compile_text(text: str, *options: str, language: str = "c", name: str = "object") -> Path:
        source, made = tmp_path / f"{name}.{language}", tmp_path / f"{name}.so"
        source.write_text(text)
        arguments = ["gcc", "-O2", "-fPIC", "-shared", *options, "-o", str(made), str(source)]
        answer = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return made

    return compile_text


@pytest.fixture
def disassemble() -> Callable[[Path], dict[str, list[tuple[int, str]]]]:
    """Return a function that gives the (vaddr, instruction) of every function of a file, as objdump sees them."""
    return _disassemble


def _disassemble(path: Path) -> dict[str, list[tuple[int, str]]]:
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True)
    functions: dict[str, list[tuple[int, str]]] = {}
    name = ""
    for line in text.stdout.splitlines():
        if label := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            name = label[1]
            functions[name] = []
        elif code := re.fullmatch(r"\s*([0-9a-f]+):\s+(.+?)\s*", line):
            functions[name].append((int(code[1], 16), code[2]))
    return functions
