"""A place in a process that is made up, with two real files in it, gets its words."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.mappings import AddressSpace, Mapping, object_key, parse_maps
from symbolizer.symbolizer import Symbolizer
from symbolizer.unwind_rule import END, UNSUPPORTED, RuleKind, UnwindRule
from tracer.pointer_names import PointerNames

WEB, LIBRARY, UNREADABLE = 0x555500000000, 0x7F1000000000, 0x7F2000000000
STACK, OTHER_STACK, PLAIN = 0x7FFE00000000, 0x7F0000000000, 0x7F3000000000
SIZE = 0x10000
MAIN, WORKER = 4711, 4712
FS = OTHER_STACK + SIZE - 0x1000
TEXT = """
long first[8] = {1}; static long hidden[600]; __thread long session[4] = {1};
void serve(void) {}
static void work(void) {}
long use(int i) { work(); return session[i] + hidden[i]++; }
"""


@dataclass
class Rules:
    """The rule of each address; the others have none."""

    known: dict[int, UnwindRule] = field(default_factory=dict)
    asked: int = 0

    def rule_for(self, mapping: Mapping, address: int, *, interrupted: bool) -> UnwindRule:
        self.asked += 1
        return self.known.get(address, UNSUPPORTED)


class Process:
    """Two files and some memory, with two threads: main in serve() called by use(), the worker on its own stack."""

    def __init__(self, data: bytes) -> None:
        self.elf = Elf.parse(data)
        answer = self.elf.symbols()
        self.functions = answer.defined(["serve", "use", "work"])
        self.memory: dict[int, int] = {}
        self.rules = Rules()
        self.symbolizer = Symbolizer()
        maps = [*self._lines(WEB, 11, "/srv/web"), *self._lines(LIBRARY, 12, "/lib/libfoo.so"),
                f"{UNREADABLE:x}-{UNREADABLE + SIZE:x} r-xp 00000000 08:01 13 /lib/libgone.so",
                f"{STACK:x}-{STACK + SIZE:x} rw-p 00000000 00:00 0 [stack]",
                f"{OTHER_STACK:x}-{OTHER_STACK + SIZE:x} rw-p 00000000 00:00 0",
                f"{PLAIN:x}-{PLAIN + SIZE:x} rw-s 00000000 00:01 14 /memfd:one\x1b[31m (deleted)"]
        self.space = AddressSpace.of(parse_maps("\n".join(maps).encode()))
        for mapping in self.space.mappings:
            key = object_key(mapping)
            if key is not None and mapping.path != "/lib/libgone.so":
                self.symbolizer.add_object(key, mapping.path, lambda: data)
        self.names = PointerNames(self.symbolizer, self.space, self.rules, self.read)

    def _lines(self, bias: int, inode: int, path: str) -> list[str]:
        """Return the mappings of the file as the loader makes them; what .bss needs beyond the file is anonymous."""
        lines = []
        for part in self.elf.segments:
            start, middle = (bias + part.vaddr) & -4096, bias + part.vaddr + part.filesz + 4095 & -4096
            end = bias + part.vaddr + part.memsz + 4095 & -4096
            code = "r-xp" if part.executable else "rw-p"
            lines.append(f"{start:x}-{middle:x} {code} {part.offset & -4096:08x} 08:01 {inode} {path}")
            if end > middle:
                lines.append(f"{middle:x}-{end:x} rw-p 00000000 00:00 0")
        return lines

    def read(self, address: int, size: int) -> bytes:
        return self.memory[address].to_bytes(size, "little") if address in self.memory else b""

    def at(self, function: str, bias: int = WEB) -> int:
        return bias + self.functions[function]

    def two_frames(self, tid: int, sp: int, fs_base: int = 0) -> None:
        """Let a thread be in serve(), 0x20 bytes of stack, called by use(), 0x40 bytes."""
        serve, use = self.at("serve"), self.at("use") + 3
        self.rules.known |= {serve: UnwindRule(RuleKind.CFA_SP, 0x20), use: UnwindRule(RuleKind.CFA_SP, 0x40),
                             self.at("work") + 1: END}
        self.memory |= {sp + 0x18: use, sp + 0x58: self.at("work") + 1}
        self.names.add_thread(tid, sp=sp, bp=0, ip=serve, fs_base=fs_base)

    def words(self, address: int) -> str:
        return self.names.root(address).words()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text above as a shared object."""
    source = tmp_path_factory.mktemp("places") / "places.c"
    source.write_text(TEXT)
    made = source.with_suffix(".so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-O0", str(source), "-o", str(made)], check=True)
    return made


@pytest.fixture
def process(library: Path) -> Process:
    return Process(library.read_bytes())


@pytest.fixture
def variables(library: Path) -> dict[str, int]:
    """What nm says where the variables are."""
    answer = subprocess.run(["nm", str(library)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1]: int(line.split()[0], 16) for line in answer.splitlines() if len(line.split()) == 3}


def test_the_same_variable_in_two_modules(process: Process, variables: dict[str, int]) -> None:
    """Each module has its own, wherever it is loaded."""
    assert process.words(WEB + variables["first"] + 8) == "global first+0x8 [web]"
    assert process.words(LIBRARY + variables["first"]) == "global first [libfoo.so]"


def test_bss_beyond_the_file(process: Process, variables: dict[str, int]) -> None:
    """The mapping there is anonymous; the segment says that it is the module's."""
    at = LIBRARY + variables["hidden"] + 599 * 8
    mapping = process.space.locate(at)
    assert mapping is not None and not mapping.path
    assert process.words(at) == f"global hidden+{599 * 8:#x} [libfoo.so]"


def test_a_byte_that_no_variable_has(process: Process) -> None:
    """Behind .bss, up to the end of its page, there is only the module and the address in it."""
    end = max(part.vaddr + part.memsz for part in process.elf.segments)
    assert process.words(WEB + end + 8) == f"web+{end + 8:#x}"


def test_a_module_that_could_not_be_read(process: Process) -> None:
    """Its name and the offset in the file are what is left."""
    assert process.words(UNREADABLE + 0x40) == "libgone.so+0x40"


def test_frames_of_a_thread(process: Process) -> None:
    """An address is in the frame that holds it, with its distance from the end of that frame."""
    process.two_frames(MAIN, STACK + 0x8000)
    place = process.names.root(STACK + 0x8008)
    assert place.words() == f"stack of thread {MAIN} in serve()"
    assert getattr(place, "cfa_offset", None) == -0x18
    assert process.words(STACK + 0x8020) == f"stack of thread {MAIN} in use()"
    assert process.words(STACK + 0x8060) == f"stack of thread {MAIN}"
    assert process.words(STACK + 0x7000) == "untracked memory in [stack]"


def test_a_call_that_ends_its_function(process: Process) -> None:
    """A return address may be the next function's first byte: the call's own function is named."""
    work = process.at("work")
    process.rules.known[work] = UnwindRule(RuleKind.CFA_SP, 0x40)
    process.two_frames(MAIN, STACK + 0x8000)
    process.memory[STACK + 0x8018] = work
    assert process.words(STACK + 0x8028) == f"stack of thread {MAIN} in serve()"


def test_a_walk_is_done_once(process: Process) -> None:
    """A thousand pointers on one stack cost one walk."""
    process.two_frames(MAIN, STACK + 0x8000)
    for offset in range(0, 0x60, 8):
        process.words(STACK + 0x8000 + offset)
    assert process.rules.asked == 3


def test_a_threads_own_stack(process: Process) -> None:
    """It is known by the thread pointer in it; without one, only the frames are the thread's."""
    process.two_frames(WORKER, OTHER_STACK + 0x8000, FS)
    assert process.words(OTHER_STACK + 0x8008) == f"stack of thread {WORKER} in serve()"
    assert process.words(OTHER_STACK + 0x9000) == f"stack of thread {WORKER}"
    process.two_frames(WORKER, OTHER_STACK + 0x8000)
    assert process.words(OTHER_STACK + 0x8008) == f"stack of thread {WORKER} in serve()"
    assert process.words(OTHER_STACK + 0x9000).startswith("untracked anonymous memory at 0x")


def test_a_stack_without_registers_is_memory(process: Process) -> None:
    """Threads that were not added have no stack here."""
    assert process.words(STACK + 0x8000) == "untracked memory in [stack]"


def test_thread_local_variables_of_the_program(process: Process) -> None:
    """The program's block ends at the thread pointer; the C library's record of the thread follows it."""
    process.two_frames(WORKER, OTHER_STACK + 0x8000, FS)
    place = process.names.root(FS - 32 + 16)
    assert (place.words(), getattr(place, "tid", None)) == ("thread-local session+0x10", WORKER)
    assert process.words(FS - 32) == "thread-local session"
    assert process.words(FS + 0x310) == f"thread-local memory of thread {WORKER}"


def test_a_register_and_where_its_thread_was(process: Process) -> None:
    """The function is the one at the instruction pointer; a thread that is not known has none."""
    process.two_frames(MAIN, STACK + 0x8000)
    assert process.names.register(MAIN, "rbx").words() == f"register rbx of thread {MAIN} in serve()"
    assert process.names.register(99, "rbx").words() == "register rbx of thread 99"


def test_code_without_a_name(process: Process) -> None:
    """The module and the address in it stand for the function; nothing does where no file is."""
    process.names.add_thread(MAIN, sp=STACK, bp=0, ip=WEB + 0x10)
    assert process.names.register(MAIN, "rax").words() == f"register rax of thread {MAIN} in web+0x10"
    process.names.add_thread(MAIN, sp=STACK, bp=0, ip=OTHER_STACK)
    assert process.names.register(MAIN, "rax").words() == f"register rax of thread {MAIN}"


def test_other_memory(process: Process) -> None:
    """A mapping has its name, made safe to print; an address that is not mapped says so."""
    assert process.words(PLAIN) == r"untracked memory in /memfd:one\x1b[31m"
    assert process.words(OTHER_STACK) == f"untracked anonymous memory at {OTHER_STACK:#x}"
    assert process.words(0x1000) == "address 0x1000, where nothing is mapped"


def test_damaged_registers_harm_nothing(process: Process) -> None:
    """Whatever stands in registers and memory, each address has words."""
    for value in (0, 1, STACK + 8, WEB, 2**63, 2**64 - 1):
        process.memory = dict.fromkeys(range(STACK, STACK + 0x200, 8), value)
        process.names.add_thread(MAIN, sp=STACK + 8, bp=value, ip=value, fs_base=value)
        for address in (0, STACK, STACK + 8, WEB, 2**64 - 1):
            assert process.words(address)
        assert process.names.register(MAIN, "rax").words()
