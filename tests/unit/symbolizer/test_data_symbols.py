"""Variables are named by address, thread-local ones by their offset, and sections where there is no symbol."""

import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symbolizer.data_symbols import DataPlace, DataSymbols, TlsSegment, load_biases
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.tls_slots import SlotKind, TlsSlot, tls_slots

Build = Callable[..., Path]
Nm = Callable[..., list[Any]]

VARIABLES = """
struct { long count; void *entries[6]; } registry = {1};
static void *volatile shelf[32];
void *const table[2] = {&registry, (void *)shelf};
extern int outside;
__thread long session = 3;
static __thread volatile long other[5];
__asm__(".pushsection .data; .globl no_size; .type no_size,@object; no_size: .quad 1,2,3; .popsection");
__asm__(".pushsection .data; .globl whole; .type whole,@object; .size whole,32; whole: .quad 1;"
        ".globl part; .type part,@object; .size part,8; part: .quad 2; .quad 3,4; .popsection");
__asm__(".globl _alias; .set _alias,registry");
int use(int i) { other[i] = session; return (long)shelf[i] + outside; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variables above, in a shared object."""
    source = tmp_path_factory.mktemp("variables") / "variables.c"
    source.write_text(VARIABLES)
    made = source.with_suffix(".so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-O1", str(source), "-o", str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def stripped(library: Path) -> Path:
    """The same without .symtab."""
    bare = library.with_suffix(".bare")
    subprocess.run(["strip", str(library), "-o", str(bare)], check=True)
    return bare


def symbols(path: Path, *others: Path) -> DataSymbols:
    return DataSymbols(Elf.parse(path.read_bytes()), [Elf.parse(other.read_bytes()) for other in others])


def named(nm: Nm, path: Path) -> dict[str, Any]:
    return {symbol.name: symbol for symbol in nm(path)}


def test_a_variable_is_found_from_its_first_to_its_last_byte(library: Path, nm: Nm) -> None:
    """Exported, static and constant variables cover as many bytes as nm says, and no more."""
    found, known = symbols(library), named(nm, library)
    for name, size in (("registry", 56), ("shelf", 256), ("table", 16)):
        symbol = known[name]
        assert symbol.size == size
        assert found.at(symbol.value) == DataPlace(name, 0)
        assert found.at(symbol.value + size - 1) == DataPlace(name, size - 1)
        after = found.at(symbol.value + size)
        assert after is None or after.name != name


def test_the_innermost_variable_is_named(library: Path, nm: Nm) -> None:
    """A variable inside another is named where it lies, the other before and after it."""
    found, start = symbols(library), named(nm, library)["whole"].value
    assert [found.at(start + at) for at in (0, 8, 16)] == [
        DataPlace("whole", 0), DataPlace("part", 0), DataPlace("whole", 16)]


def test_a_symbol_without_a_size_names_nothing(library: Path, nm: Nm) -> None:
    """It would claim all that lies behind it, so its section is said instead."""
    found, at = symbols(library), named(nm, library)["no_size"].value
    place = found.at(at)
    assert place is not None and (place.name, place.is_symbol) == (".data", False)


def test_of_two_names_the_one_without_underscore(library: Path, nm: Nm) -> None:
    """Aliases are chosen from as those of functions are."""
    assert named(nm, library)["_alias"].value == named(nm, library)["registry"].value
    assert symbols(library).at(named(nm, library)["_alias"].value) == DataPlace("registry", 0)


def test_functions_are_no_variables(library: Path, nm: Nm) -> None:
    """An address in code gets no name here."""
    assert symbols(library).at(named(nm, library)["use"].value) is None


def test_a_variable_that_is_defined_elsewhere_has_no_address(library: Path) -> None:
    """Undefined symbols have the value 0, where the ELF header lies."""
    assert symbols(library).at(0) is None


def test_a_stripped_file_has_exported_names_and_sections(library: Path, stripped: Path, nm: Nm) -> None:
    """Static variables are gone from .dynsym, and .bss with an offset stands for them."""
    found, known = symbols(stripped), named(nm, library)
    assert found.at(known["registry"].value + 8) == DataPlace("registry", 8)
    place = found.at(known["shelf"].value + 16)
    assert place is not None and (place.name, place.is_symbol) == (".bss", False)
    begins = found.at(known["shelf"].value + 16 - place.offset)
    assert begins is not None and begins.name == ".bss"
    assert place.words() == f".bss+{place.offset:#x}"


def test_a_debug_file_brings_the_static_names_back(library: Path, stripped: Path, nm: Nm) -> None:
    """Where the mapped file was stripped, the other files' symbols count, at the same addresses."""
    debug = library.with_suffix(".debug")
    subprocess.run(["objcopy", "--only-keep-debug", str(library), str(debug)], check=True)
    found, known = symbols(stripped, debug), named(nm, library)
    assert found.at(known["shelf"].value + 8) == DataPlace("shelf", 8)
    assert found.thread_local(known["other"].value) == DataPlace("other", 0)


def test_thread_local_variables_are_named_by_their_offset(library: Path, stripped: Path, nm: Nm) -> None:
    """Their offsets are no addresses: the same number names a thread-local variable or a global one."""
    found, known = symbols(library), named(nm, library)
    assert found.tls is not None and found.tls.size == known["other"].value + 40
    assert found.thread_local(known["session"].value) == DataPlace("session", 0)
    assert found.thread_local(known["other"].value + 39) == DataPlace("other", 39)
    assert found.thread_local(found.tls.size) is None
    assert found.at(known["session"].value) is None
    bare = symbols(stripped)
    assert bare.thread_local(known["session"].value) == DataPlace("session", 0)
    place = bare.thread_local(known["other"].value + 8)
    assert place is not None and (place.name, place.is_symbol) == (".tbss", False)


def test_a_file_without_thread_local_variables_has_no_segment(build: Build) -> None:
    """There is no PT_TLS then."""
    assert symbols(build("int one = 1;", "-shared", "-nostdlib")).tls is None


@pytest.mark.parametrize(("vaddr", "size", "align", "below"), [
    (0x3000, 16, 8, 16),
    (0x3000, 20, 8, 24),
    (0x3000, 4, 64, 64),
    (0x3010, 4, 64, 48),
    (0x3010, 48, 64, 48),
    (0x3010, 49, 64, 112),
    (0x3008, 1, 1, 1),
])
def test_where_a_programs_thread_local_variables_begin(vaddr: int, size: int, align: int, below: int) -> None:
    """The block ends at or before the thread pointer, and its start is congruent to the segment's."""
    segment = TlsSegment(vaddr, size, align)
    assert segment.below_thread_pointer == below >= size
    assert (0x7F0000000000 - below - vaddr) % align == 0


def test_the_linker_agrees_where_a_variable_is(build: Build, nm: Nm) -> None:
    """The offset that the linker writes into the code of a program is the one that is computed."""
    program = build(
        "__thread char first[3] = {1}; __thread long wanted __attribute__((aligned(64)));"
        "__attribute__((naked, used)) void where(void) { __asm__(\"mov %fs:wanted@tpoff, %rax\"); }"
        "void _start(void) {}", "-nostdlib", "-static")
    known, elf = named(nm, program), Elf.parse(program.read_bytes())
    segment, code = symbols(program).tls, elf.vaddr_to_file_offset(named(nm, program)["where"].value)
    assert segment is not None and code is not None and segment.align == 64
    # 64 48 8b 04 25 and a signed 32-bit offset; with IBT an endbr64 comes first.
    at = elf.data.find(b"\x64\x48\x8b\x04\x25", code) + 5
    assert struct.unpack("<i", elf.data[at : at + 4])[0] == known["wanted"].value - segment.below_thread_pointer


def test_words_that_lead_to_a_librarys_variables(library: Path, stripped: Path, build: Build) -> None:
    """By the words that the loader writes: a module's number, or an offset from the thread pointer."""
    by_number = tls_slots(Elf.parse(stripped.read_bytes()))
    assert [slot.kind for slot in by_number] == [SlotKind.MODULE]
    text = "static __thread long pad[2], mine; long *where(void) { pad[0] = 1; return &mine; }"
    path = build(text, "-shared", "-fPIC", "-nostdlib", "-ftls-model=initial-exec", "-O1")
    elf = Elf.parse(path.read_bytes())
    [slot] = tls_slots(elf)
    answer = subprocess.run(["readelf", "-rW", str(path)], check=True, capture_output=True, text=True).stdout
    relocations = [line.split() for line in answer.splitlines() if "R_X86_64_TPOFF64" in line]
    assert slot in [TlsSlot(SlotKind.OFFSET, int(line[0], 16), int(line[3], 16)) for line in relocations]


def test_a_variable_of_another_library_leads_nowhere(build: Build) -> None:
    """Its word would tell where the other library's variables are."""
    text = "extern __thread long theirs; long where(void) { return theirs; }"
    assert tls_slots(Elf.parse(build(text, "-shared", "-fPIC", "-nostdlib").read_bytes())) == ()


def test_where_a_library_is_loaded(library: Path) -> None:
    """Its code's mapping tells, once for each time that it is loaded; a mapping of other bytes does not."""
    elf = Elf.parse(library.read_bytes())
    code = next(part for part in elf.segments if part.executable)
    offset, page = code.offset & -4096, code.vaddr & -4096
    assert load_biases(elf, [(0x7F0000000000 + page, offset), (0x7E0000000000 + page, offset)]) == (
        0x7E0000000000, 0x7F0000000000)
    assert load_biases(elf, [(0x7F0000000000, offset + 0x10000)]) == ()


def test_a_file_that_was_cut_is_not_read(library: Path, nm: Nm) -> None:
    """Bytes beyond the end of a mapped file would end leaktrace."""
    at = named(nm, library)["registry"].value
    found = DataSymbols(Elf.parse(library.read_bytes()), is_whole=lambda: False)
    assert found.at(at) is None
    assert found.thread_local(0) is None


def test_damage_raises_nothing(library: Path) -> None:
    """Files with bytes changed anywhere in their headers and tables give names, sections or None."""
    whole, chance, parsed = library.read_bytes(), random.Random(5), 0
    headers = int.from_bytes(whole[40:48], "little")
    for _ in range(400):
        data = bytearray(whole[: chance.choice((len(whole), len(whole), chance.randrange(64, len(whole))))])
        for _ in range(8):
            low, high = chance.choice(((16, 0x400), (headers, len(whole)), (16, len(whole))))
            data[min(chance.randrange(low, high), len(data) - 1)] = chance.choice((0, 1, 255, chance.randrange(256)))
        try:
            elf = Elf.parse(bytes(data))
        except ElfError:
            continue
        parsed += 1
        found = DataSymbols(elf, [elf])
        for at in (0, 8, 0x4000, 0x4010, 2**63, 2**64 - 1):
            found.at(at)
            found.thread_local(at)
        tls_slots(elf)
        if found.tls is not None:
            assert found.tls.below_thread_pointer >= 0
        load_biases(elf, [(0x7F0000000000, 0x1000)])
    assert parsed > 50
