import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symbolizer.elf import Elf
from symbolizer.frame import Frame, Why
from symbolizer.mappings import AddressSpace, object_key, parse_maps
from symbolizer.symbolizer import Symbolizer

Build = Callable[..., Path]
Nm = Callable[..., list[Any]]
ADDRESS = 0x7F0000001234


def opened(path: Path) -> tuple[Symbolizer, Elf]:
    symbolizer = Symbolizer()
    symbolizer.add_object("key", str(path), path.read_bytes)
    return symbolizer, Elf.parse(path.read_bytes())


def offset_of(elf: Elf, name: str, plus: int = 0) -> int:
    offset = elf.vaddr_to_file_offset(elf.symbols().defined([name])[name] + plus)
    assert offset is not None
    return offset


def first_return(path: Path, function: str) -> int:
    """Return the offset in the function of the first address that a call returns to."""
    text = subprocess.run(
        ["objdump", "-d", f"--disassemble={function}", str(path)], check=True, capture_output=True, text=True
    )
    lines = [line.split("\t") for line in text.stdout.splitlines() if line.count("\t") >= 2]
    call = next(line for line in lines if line[2].startswith("call"))
    return int(call[0].strip(" :"), 16) + len(call[1].split()) - int(lines[0][0].strip(" :"), 16)


@pytest.mark.parametrize("options", [["-pie", "-fPIE"], ["-no-pie"]])
def test_an_inlined_call_site_has_a_frame_for_each_function(
    build: Build, nested_inlines: str, options: list[str]
) -> None:
    path = build(nested_inlines, "-g", "-O2", *options)
    symbolizer, elf = opened(path)
    plus = first_return(path, "outer")
    frames = symbolizer.resolve("key", offset_of(elf, "outer", plus), ADDRESS, True)
    assert [(frame.function, frame.inlined, frame.offset) for frame in frames] == [
        ("make", True, None),
        ("twice", True, None),
        ("outer", False, plus),
    ]
    assert {(frame.address, frame.module, frame.build_id, frame.why) for frame in frames} == {
        (ADDRESS, str(path), elf.build_id, None)
    }
    assert [frame.line for frame in frames] == [5, 10, 15]
    assert {frame.file for frame in frames} == {str(path.with_suffix(".c"))}


def test_without_dwarf_the_symbol_names_the_function(build: Build, nested_inlines: str) -> None:
    path = build(nested_inlines, "-O2")
    symbolizer, elf = opened(path)
    frames = symbolizer.resolve("key", offset_of(elf, "quiet", 2), ADDRESS, False)
    start = elf.symbols().defined(["quiet"])["quiet"]
    assert frames == (Frame(ADDRESS, "quiet", 2, str(path), elf.build_id, module_offset=start + 2),)


def test_a_return_address_after_a_functions_last_call_belongs_to_that_function(build: Build) -> None:
    path = build(
        "#include <stdlib.h>\n__attribute__((noinline, noreturn)) void last(void) { abort(); }\n"
        "__attribute__((noinline)) void next(void) {}\nint main(void) { next(); last(); }\n",
        "-O1",
        "-fno-reorder-functions",
        "-falign-functions=1",
    )
    symbolizer, elf = opened(path)
    end = first_return(path, "last")
    offset = offset_of(elf, "last", end)
    as_return = symbolizer.resolve("key", offset, ADDRESS, True)
    as_sample = symbolizer.resolve("key", offset, ADDRESS, False)
    assert [(frame.function, frame.offset) for frame in as_return] == [("last", end)]
    assert [(frame.function, frame.offset) for frame in as_sample] == [("next", 0)]


def test_a_static_cpp_function_has_its_scope_and_parameters(build: Build, nm: Nm) -> None:
    path = build(
        'namespace deep { static __attribute__((noinline)) int hidden(int v) { asm volatile(""); return v * 3; } }\n'
        "int main(int c, char **) { return deep::hidden(c); }\n",
        "-g",
        "-O2",
        compiler="g++",
    )
    symbolizer, elf = opened(path)
    (hidden,) = (symbol for symbol in nm(path) if "hidden" in symbol.name)
    offset = elf.vaddr_to_file_offset(hidden.value)
    assert offset is not None
    (frame,) = symbolizer.resolve("key", offset, ADDRESS, False)
    assert (frame.function, frame.offset, frame.line) == ("deep::hidden(int)", 0, 1)


def test_the_part_that_the_compiler_split_off_is_marked_and_the_rest_is_not(build: Build, nm: Nm) -> None:
    path = build(
        "#include <stdexcept>\n#include <cstdlib>\n"
        '__attribute__((noinline)) int risky(int v) { if (v > 9) throw std::runtime_error("x"); return v + rand(); }\n'
        "int main(int c, char **) { return risky(c); }\n",
        "-g",
        "-O2",
        compiler="g++",
    )
    symbolizer, elf = opened(path)
    shown = {}
    for symbol in nm(path):
        if "risky" in symbol.name:
            offset = elf.vaddr_to_file_offset(symbol.value)
            assert offset is not None
            shown[symbol.name] = symbolizer.resolve("key", offset, ADDRESS, False)[-1].function
    assert shown == {"_Z5riskyi": "risky(int)", "_Z5riskyi.cold": "risky(int) [.cold]"}


def test_nothing_mapped_is_a_value_with_a_reason() -> None:
    assert Symbolizer().resolve(None, 0, ADDRESS, True) == (Frame(ADDRESS, why=Why.UNMAPPED),)


def test_an_object_that_was_never_added_is_gone_and_can_still_come(build: Build, nested_inlines: str) -> None:
    path = build(nested_inlines)
    symbolizer, elf = Symbolizer(), Elf.parse(path.read_bytes())
    offset = offset_of(elf, "outer")
    assert symbolizer.resolve("key", offset, ADDRESS, False) == (Frame(ADDRESS, why=Why.GONE),)
    symbolizer.add_object("key", str(path), path.read_bytes)
    assert symbolizer.resolve("key", offset, ADDRESS, False)[0].function == "outer"


def test_a_file_that_cannot_be_opened_says_why() -> None:
    def forbidden() -> bytes:
        raise PermissionError

    symbolizer = Symbolizer()
    symbolizer.add_object("gone", "/gone", lambda: Path("/no/such/file").read_bytes())
    symbolizer.add_object("forbidden", "/forbidden", forbidden)
    symbolizer.add_object("text", "/text", lambda: b"no ELF file")
    for key, why in (("gone", Why.GONE), ("forbidden", Why.UNREADABLE), ("text", Why.UNREADABLE)):
        assert symbolizer.resolve(key, 0, ADDRESS, False) == (Frame(ADDRESS, module=f"/{key}", why=why),)


def test_a_file_without_symbols_and_code_outside_all_symbols_are_told_apart(build: Build, nested_inlines: str) -> None:
    path = build(nested_inlines, "-O2", name="whole")
    symbolizer, elf = opened(path)
    plt = elf.section(".plt")
    assert plt is not None
    assert symbolizer.resolve("key", plt.offset, ADDRESS, False)[0].why is Why.NOT_COVERED
    assert symbolizer.resolve("key", 1 << 40, ADDRESS, True)[0].why is Why.NOT_COVERED
    stripped = path.with_name("stripped")
    subprocess.run(["strip", "-o", str(stripped), str(path)], check=True)
    bare, _ = opened(stripped)
    assert bare.resolve("key", offset_of(elf, "outer"), ADDRESS, False)[0].why is Why.NO_SYMBOLS


def test_names_outlive_the_file(build: Build, nested_inlines: str) -> None:
    path = build(nested_inlines, "-O2")
    elf = Elf.parse(path.read_bytes())

    def opener() -> mmap.mmap:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    symbolizer = Symbolizer()
    symbolizer.add_object("key", str(path), opener)
    path.unlink()
    assert symbolizer.resolve("key", offset_of(elf, "outer"), ADDRESS, False)[0].function == "outer"


def test_paths_are_safe_to_print() -> None:
    symbolizer = Symbolizer()
    symbolizer.add_object("key", "/tmp/\x1b[2J\udcff.so", lambda: b"")
    assert symbolizer.resolve("key", 0, ADDRESS, False)[0].module == r"/tmp/\x1b[2J\udcff.so"


def test_the_vdso_of_this_process_is_named_from_its_bytes_in_memory() -> None:
    space = AddressSpace.of(parse_maps(Path("/proc/self/maps").read_bytes()))
    vdso = next((mapping for mapping in space.mappings if mapping.path == "[vdso]"), None)
    if vdso is None:
        pytest.skip("this kernel maps no vdso")
    with open("/proc/self/mem", "rb") as memory:
        image = os.pread(memory.fileno(), vdso.end - vdso.start, vdso.start)
    symbolizer, key = Symbolizer(), object_key(vdso)
    symbolizer.add_object(key, vdso.path, lambda: image)
    start = Elf.parse(image).symbols().defined(["clock_gettime"])["clock_gettime"]
    (frame,) = symbolizer.resolve(key, vdso.offset_of(vdso.start + start), vdso.start + start, False)
    assert (frame.function, frame.offset, frame.module) == ("clock_gettime", 0, "[vdso]")
