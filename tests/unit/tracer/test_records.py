"""Layouts in Python are those of bpf/records.h, as gcc lays them out."""

from __future__ import annotations

import re
import struct
import subprocess
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

from symbolizer.unwind_rule import RuleKind
from tracer import limits, records
from tracer.collect.unwind_rules import UCONTEXT_BP, UCONTEXT_PC, UCONTEXT_SP

BPF = Path(__file__).parents[3] / "bpf"
RECORDS_H = (BPF / "records.h").read_text()
DEPTHS = (1, 64, 127)

#: struct name, and how Python has it.
ARRAYS = {
    "block_bucket": records.BLOCK_BUCKET,
    "site": records.SITE,
    "rule_bucket": records.RULE_BUCKET,
    "image": records.IMAGE,
    "loss_count": records.LOSS_COUNT,
}
STRUCTS = {
    "event": (records.EVENT_STRUCT, "kind slot tid image ns"),
    "trace_event": (records.TRACE_STRUCT, "address size site"),
    "miss_event": (records.MISS_STRUCT, "site copied missing unread pc sp bp address"),
}
PRELUDE = """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdio.h>
    typedef uint64_t u64; typedef uint32_t u32; typedef uint8_t u8; typedef int64_t s64;
    #define STACK_COPY {copy}
    #define MAX_DEPTH {depth}
"""


def fields(name: str) -> list[str]:
    """Return the names of a struct's fields as they stand in the header."""
    text = RECORDS_H + (BPF / "maps.h").read_text()
    body = re.search(rf"^struct {name} {{$(.*?)^}};$", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL),
                     re.MULTILINE | re.DOTALL)
    assert body, name
    return re.findall(r"(\w+)(?:\[\w+\])?(?: : \d+)?;", body[1])


def measured(folder: Path, depth: int, questions: list[str]) -> list[int]:
    """Return what gcc says the C expressions are."""
    loss_count = re.search(r"^struct loss_count \{.*?^\};$", (BPF / "maps.h").read_text(), re.MULTILINE | re.DOTALL)
    assert loss_count
    prelude = PRELUDE.replace("{copy}", str(limits.STACK_COPY)).replace("{depth}", str(depth))
    lines = "".join(f'    printf("%lu\\n", (unsigned long)({question}));\n' for question in questions)
    (folder / "ask.c").write_text(f"{prelude}\n{RECORDS_H}\n{loss_count[0]}\nint main(void)\n{{\n{lines}    return 0;\n}}\n")
    subprocess.run(["gcc", "-O0", "-o", folder / "ask", folder / "ask.c"], check=True)
    answer = subprocess.run([folder / "ask"], capture_output=True, text=True, check=True)
    return [int(line) for line in answer.stdout.split()]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tmp_path: Path, name: str) -> None:
    """Each field of a dtype lies where gcc puts the field of that name, and the sizes are equal."""
    dtype = ARRAYS[name]
    assert dtype.fields is not None
    assert list(dtype.names or ()) == fields(name)
    questions = [f"offsetof(struct {name}, {field})" for field in dtype.fields]
    assert measured(tmp_path, 64, [*questions, f"sizeof(struct {name})"]) == [
        *(place[1] for place in dtype.fields.values()), dtype.itemsize]


@pytest.mark.parametrize("depth", DEPTHS)
def test_stacks(tmp_path: Path, depth: int) -> None:
    """A stack of any depth has the layout of struct stack."""
    dtype = records.stack_dtype(depth)
    assert dtype.fields is not None
    questions = [f"offsetof(struct stack, {field})" for field in dtype.fields]
    assert measured(tmp_path, depth, [*questions, "sizeof(struct stack)"]) == [
        *(place[1] for place in dtype.fields.values()), dtype.itemsize]
    assert list(dtype.names or ()) == fields("stack")


def test_outstanding(tmp_path: Path) -> None:
    """A block's size, family and flags share 64 bits, the size lowest."""
    (tmp_path / "ask.c").write_text(PRELUDE.replace("{copy}", "1024").replace("{depth}", "4") + RECORDS_H + """
        int main(void)
        {
            struct outstanding block = { 0x1111, 0x123456789abc, 0xfa, 0x01, 0x2222, 0x3333 };
            return fwrite(&block, sizeof(block), 1, stdout) != 1;
        }
    """)
    subprocess.run(["gcc", "-o", tmp_path / "ask", tmp_path / "ask.c"], check=True)
    data = subprocess.run([tmp_path / "ask"], capture_output=True, check=True).stdout
    (block,) = np.frombuffer(data, records.OUTSTANDING)
    assert (block["born_ns"], block["site"], block["weight"]) == (0x1111, 0x2222, 0x3333)
    assert int(block["packed"]) & records.SIZE_MASK == 0x123456789ABC
    assert int(block["packed"]) >> 48 == 0x01FA


@pytest.mark.parametrize("name", STRUCTS)
def test_events(tmp_path: Path, name: str) -> None:
    """What is unpacked of an event lies where gcc puts it, behind the common head."""
    layout, names = STRUCTS[name]
    head = 0 if name == "event" else records.EVENT_STRUCT.size
    sizes = [struct.calcsize(f"<{kind}") for kind in layout.format.lstrip("<")]
    places = [head + sum(sizes[:index]) for index in range(len(sizes) + 1)]
    questions = [f"offsetof(struct {name}, {field})" for field in names.split()]
    end = "offsetof(struct miss_event, data)" if name == "miss_event" else f"sizeof(struct {name})"
    assert measured(tmp_path, 64, [*questions, end]) == places
    expected = [*([] if name == "event" else ["head"]), *names.split(), *(["data"] if name == "miss_event" else [])]
    assert fields(name) == expected


@pytest.mark.parametrize(("enum", "prefix", "python", "file"), [
    ("stack_end", "ENDED_", records.StackEnd, "records.h"),
    ("event_kind", "EVENT_", records.EventKind, "records.h"),
    ("probe_action", "ACTION_", records.Action, "probe.h"),
    ("misuse_kind", "MISUSE_", records.MisuseKind, "records.h"),
    ("rule_kind", "RULE_", RuleKind, "unwind.h"),
])
def test_enumerations(enum: str, prefix: str, python: type[IntEnum], file: str) -> None:
    """The same names stand for the same numbers on both sides."""
    text = re.sub(r"/\*.*?\*/", "", (BPF / file).read_text(), flags=re.DOTALL)
    body = re.search(rf"enum {enum} \{{(.*?)\}}", text, re.DOTALL)
    assert body
    numbers: dict[str, int] = {}
    last = -1
    for word in filter(None, (part.strip() for part in body[1].split(","))):
        name, _, value = word.partition("=")
        last = int(value) if value else last + 1
        numbers[name.strip().removeprefix(prefix)] = last
    assert numbers == {member.name: member.value for member in python}


@pytest.mark.parametrize(("name", "value"), [
    ("LIFETIME_BUCKETS", records.LIFETIME_BUCKETS), ("LIFETIME_SHIFT", records.LIFETIME_SHIFT),
    ("RULES_PER_BUCKET", records.RULES_PER_BUCKET), ("COPY_PIECE", records.COPY_PIECE),
    ("BLOCKS_PER_BUCKET", limits.BLOCKS_PER_BUCKET),
])
def test_constants(name: str, value: int) -> None:
    """Numbers that both sides know are the same."""
    assert re.search(rf"^#define {name} {value}$", RECORDS_H, re.MULTILINE)


def test_marks() -> None:
    """The mark of an interrupted frame lies above the address and the image's number."""
    assert "#define INTERRUPTED (1ULL << 63)\n" in RECORDS_H
    assert records.INTERRUPTED == 1 << 63
    assert not records.INTERRUPTED & (records.IMAGE_MASK << records.ADDRESS_BITS | records.ADDRESS_MASK)
    assert not records.IMAGE_MASK << records.ADDRESS_BITS & records.ADDRESS_MASK
    assert records.FIRST_KEY == 2


def test_registers_in_a_signal_frame(tmp_path: Path) -> None:
    """Python reads a ucontext where the C library's header has rbp, rsp and rip."""
    names = ("RBP", "RSP", "RIP")
    (tmp_path / "ask.c").write_text(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <stdio.h>\n#include <ucontext.h>\nint main(void) {"
        + "".join(f'printf("%zu\\n", offsetof(ucontext_t, uc_mcontext.gregs[REG_{name}]));' for name in names) + "}")
    subprocess.run(["gcc", "-o", tmp_path / "ask", tmp_path / "ask.c"], check=True)
    answer = subprocess.run([tmp_path / "ask"], capture_output=True, text=True, check=True)
    assert [int(line) for line in answer.stdout.split()] == [UCONTEXT_BP, UCONTEXT_SP, UCONTEXT_PC]


def test_limits_fit_each_other() -> None:
    """Slots keep the images of processes apart in the 15 bits they have; a copy is whole pieces, at most 32."""
    assert limits.MAX_SLOTS <= records.IMAGE_MASK + 1 and (records.IMAGE_MASK + 1) % limits.MAX_SLOTS == 0
    assert limits.STACK_COPY % records.COPY_PIECE == 0 and limits.STACK_COPY // records.COPY_PIECE <= 32
