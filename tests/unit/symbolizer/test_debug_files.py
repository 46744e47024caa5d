import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.debug_files import DebugFile, DebugFiles
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError

Build = Callable[..., Path]
LIBC = Path("/usr/lib/x86_64-linux-gnu/libc.so.6")
MAIN = "#include <stdlib.h>\nstatic __attribute__((noinline)) void *hidden(int n) { return malloc(n); }\nint main(int c, char **v) { (void)v; return hidden(c) == 0; }\n"


def need(what: str, found: object) -> None:
    """Skip the test where something is missing; where CI is set, nobody reads what was skipped, so fail."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {what}")


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def parsed(path: Path) -> Elf:
    return Elf.parse(path.read_bytes())


@pytest.fixture
def split(build: Build, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Return a function that builds a program, and gives it stripped and its debug file beside it."""

    def build_and_split(*options: str, name: str = "program", link: bool = False) -> tuple[Path, Path]:
        program = build(MAIN, "-g", "-O1", *options, name=name)
        debug = tmp_path / f"{name}.debug"
        run("objcopy", "--only-keep-debug", program, debug)
        run("strip", program)
        if link:
            run("objcopy", f"--add-gnu-debuglink={debug}", program)
        return program, debug

    return build_and_split


Split = Callable[..., tuple[Path, Path]]


def put(debug: Path, root: Path, path: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(debug, place)


def by_id(elf: Elf, folder: str = "/usr/lib/debug") -> str:
    assert elf.build_id is not None
    return f"{folder}/.build-id/{elf.build_id[:2]}/{elf.build_id[2:]}.debug"


def roots(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "target", tmp_path / "host"
    for root in (first, second):
        root.mkdir()
    return first, second


def path_of(found: DebugFile | None) -> str | None:
    return found.path if found is not None else None


def test_the_debug_file_of_the_real_libc_is_found_by_its_build_id() -> None:
    elf = parsed(LIBC)
    need("libc6-dbg", Path(by_id(elf)).exists())
    found = DebugFiles().companion(elf, str(LIBC))
    assert found is not None
    assert found.path == by_id(elf)
    assert found.elf.has_dwarf
    assert found.elf.build_id == elf.build_id
    vaddr = elf.symbols().defined(["malloc"])["malloc"]
    assert found.elf.symbols().find(vaddr) is not None


def test_a_debug_file_names_what_the_stripped_program_does_not(split: Split, tmp_path: Path) -> None:
    program, debug = split()
    elf = parsed(program)
    put(debug, tmp_path, by_id(elf))
    found = DebugFiles().companion(elf, "/program", [str(tmp_path)])
    assert found is not None
    assert "hidden" not in elf.symbols().defined(["hidden"])
    assert "hidden" in found.elf.symbols().defined(["hidden"])


def test_the_first_root_and_the_first_folder_are_preferred(split: Split, tmp_path: Path) -> None:
    program, debug = split()
    elf, places = parsed(program), roots(tmp_path)
    wanted = [(places[0], "/first"), (places[0], "/second"), (places[1], "/first"), (places[1], "/second")]
    for root, folder in wanted:
        put(Path(shutil.copy(debug, f"{debug}.copy")), root, by_id(elf, folder))
    files = DebugFiles(["/first", "/second"])
    for root, folder in wanted:
        found = files.companion(elf, "/program", [str(place) for place in places])
        assert path_of(found) == by_id(elf, folder)
        (root / by_id(elf, folder).lstrip("/")).write_bytes(b"no ELF file")
    assert files.companion(elf, "/program", [str(place) for place in places]) is None


def test_a_file_with_another_build_id_is_not_taken(split: Split, tmp_path: Path) -> None:
    program, _ = split(name="one")
    _, other = split("-Wl,--build-id=0x0102030405060708", name="two")
    put(other, tmp_path, by_id(parsed(program)))
    assert DebugFiles().companion(parsed(program), "/program", [str(tmp_path)]) is None


def test_a_file_without_symbols_and_dwarf_is_not_taken(split: Split, tmp_path: Path) -> None:
    program, _ = split()
    elf = parsed(program)
    put(program, tmp_path, by_id(elf))
    assert DebugFiles().companion(elf, "/program", [str(tmp_path)]) is None


def test_a_link_out_of_the_targets_tree_is_not_followed(split: Split, tmp_path: Path) -> None:
    program, debug = split()
    elf, (root, _) = parsed(program), roots(tmp_path)
    place = root / by_id(elf).lstrip("/")
    place.parent.mkdir(parents=True)
    place.symlink_to(debug)
    assert DebugFiles().companion(elf, "/program", [str(root)]) is None


@pytest.mark.parametrize("place", ["/opt/bin/program.debug", "/opt/bin/.debug/program.debug", "/debug/opt/bin/program.debug"])
def test_a_debuglink_is_looked_for_where_gdb_looks(split: Split, tmp_path: Path, place: str) -> None:
    program, debug = split("-Wl,--build-id=none", link=True)
    put(debug, tmp_path, place)
    found = DebugFiles(["/debug"]).companion(parsed(program), "/opt/bin/program", [str(tmp_path)])
    assert path_of(found) == place


def test_a_debuglink_is_looked_for_in_the_first_root_only(split: Split, tmp_path: Path) -> None:
    program, debug = split("-Wl,--build-id=none", link=True)
    first, second = roots(tmp_path)
    put(debug, second, "/bin/program.debug")
    assert DebugFiles().companion(parsed(program), "/bin/program", [str(first), str(second)]) is None
    assert DebugFiles().companion(parsed(program), "/bin/program", [str(second), str(first)]) is not None
    assert DebugFiles().companion(parsed(program), "/bin/program", []) is None


def test_a_debug_file_with_another_checksum_is_not_taken(split: Split, tmp_path: Path) -> None:
    program, debug = split("-Wl,--build-id=none", link=True)
    put(debug, tmp_path, "/bin/program.debug")
    with (tmp_path / "bin/program.debug").open("ab") as file:
        file.write(b"x")
    assert DebugFiles().companion(parsed(program), "/bin/program", [str(tmp_path)]) is None


def test_a_debug_file_with_the_right_checksum_and_another_build_id_is_not_taken(split: Split, tmp_path: Path) -> None:
    program, _ = split("-Wl,--build-id=0x0102030405060708", name="one")
    _, other = split("-Wl,--build-id=0x0807060504030201", name="two")
    run("objcopy", f"--add-gnu-debuglink={other}", program)
    put(other, tmp_path, "/bin/two.debug")
    assert DebugFiles().companion(parsed(program), "/bin/one", [str(tmp_path)]) is None


def test_the_checksum_is_that_of_the_whole_file_however_large(split: Split, tmp_path: Path) -> None:
    program, debug = split("-Wl,--build-id=none")
    with debug.open("ab") as file:
        file.truncate((1 << 24) + 12345)
    run("objcopy", f"--add-gnu-debuglink={debug}", program)
    put(debug, tmp_path, "/bin/program.debug")
    found = DebugFiles().companion(parsed(program), "/bin/program", [str(tmp_path)])
    assert found is not None
    assert isinstance(found.data, mmap)


@pytest.mark.parametrize("name", [b"", b"..", b".", b"../secret.debug", b"/bin/secret.debug", b"secret", b"no end"])
def test_a_debuglink_names_a_file_and_no_path(split: Split, tmp_path: Path, name: bytes) -> None:
    """Also with the right checksum; `secret` is the object itself."""
    program, debug = split("-Wl,--build-id=none", name="secret")
    content = debug.read_bytes()
    raw = name + b"\0" + bytes(-(len(name) + 1) % 4) + struct.pack("<I", zlib.crc32(content))
    link = tmp_path / "link"
    link.write_bytes(b"name" if name == b"no end" else raw)
    run("objcopy", f"--add-section=.gnu_debuglink={link}", program)
    elf = parsed(program)
    for place in ("/bin/secret", "/bin/secret.debug", "/secret.debug"):
        put(Path(shutil.copy(debug, f"{debug}.copy")), tmp_path, place)
    assert DebugFiles(["/debug"]).companion(elf, "/bin/secret", [str(tmp_path)]) is None


def test_an_object_without_a_path_has_no_debuglink(split: Split, tmp_path: Path) -> None:
    program, debug = split("-Wl,--build-id=none", link=True)
    put(debug, tmp_path, "/program.debug")
    assert DebugFiles().companion(parsed(program), "[vdso]", [str(tmp_path)]) is None


def test_debug_files_of_eu_strip_are_found(build: Build, tmp_path: Path) -> None:
    need("elfutils", shutil.which("eu-strip"))
    program = build(MAIN, "-g", "-O1", "-Wl,--build-id=none")
    run("eu-strip", "-f", tmp_path / "program.debug", program)
    found = DebugFiles().companion(parsed(program), str(program))
    assert path_of(found) == str(tmp_path / "program.debug")
    assert found is not None
    assert "hidden" in found.elf.symbols().defined(["hidden"])


@pytest.fixture
def shared(build: Build, tmp_path: Path) -> tuple[Path, Path]:
    """Return a program's debug file and the supplement that dwz made of it and another's."""
    need("dwz", shutil.which("dwz"))
    first = build(MAIN, "-g", name="first")
    second = build(MAIN + "int more;", "-g", name="second")
    run("dwz", "-m", tmp_path / "common.debug", "-M", "NAME", first, second)
    return first, tmp_path / "common.debug"


def relinked(program: Path, name: bytes) -> Elf:
    """Return the program with another name in .gnu_debugaltlink."""
    section = parsed(program).section(".gnu_debugaltlink")
    assert section is not None
    content, out = program.with_suffix(".link"), program.with_suffix(".out")
    content.write_bytes(name + b"\0" + bytes(section.data).partition(b"\0")[2])
    run("objcopy", f"--update-section=.gnu_debugaltlink={content}", program, out)
    return parsed(out)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (b"/usr/lib/debug/.dwz/x86_64/p.debug", "/usr/lib/debug/.dwz/x86_64/p.debug"),
        (b"../.dwz/p", "/d/.dwz/p"),
        (b"common", "/d/x/common"),
        (b"/usr/lib/debug/.dwz/x86_64/p.debug", "/elsewhere/.dwz/x86_64/p.debug"),
        (b"../../p", "/elsewhere/.dwz/p"),
        (b"gone", "BY ID"),
    ],
)
def test_a_supplement_is_found_by_its_name_and_by_its_build_id(
    shared: tuple[Path, Path], tmp_path: Path, name: bytes, place: str
) -> None:
    program, common = shared
    original = common.read_bytes()
    supplement_id = Elf.parse(original[:16] + b"\3\0" + original[18:]).build_id
    if place == "BY ID":
        assert supplement_id is not None
        place = f"/elsewhere/.build-id/{supplement_id[:2]}/{supplement_id[2:]}.debug"
    elf = relinked(program, name)
    first, second = roots(tmp_path)
    put(common, second, place)
    (second / "d/x").mkdir(parents=True, exist_ok=True)
    found = DebugFiles(["/elsewhere"]).supplement(elf, "/d/x/file.debug", [str(first), str(second)])
    assert found is not None
    assert os.path.normpath(found.path) == place
    assert found.data == original
    assert found.elf.build_id == supplement_id
    assert found.elf.has_dwarf


def test_a_supplement_lies_relative_to_the_file_and_not_to_the_link_that_led_to_it(
    shared: tuple[Path, Path], tmp_path: Path
) -> None:
    program, common = shared
    elf = relinked(program, b"../../extra/common")
    put(common, tmp_path, "/debug/extra/common")
    put(tmp_path / "first.out", tmp_path, "/debug/usr/bin/first.debug")
    link = tmp_path / by_id(elf, "debug")
    link.parent.mkdir(parents=True)
    link.symlink_to("../../usr/bin/first.debug")
    assert DebugFiles([]).supplement(elf, f"/{by_id(elf, 'debug')}", [str(tmp_path)]) is not None


def test_a_supplement_with_another_build_id_is_not_taken(shared: tuple[Path, Path], tmp_path: Path) -> None:
    program, common = shared
    content = common.read_bytes()
    section = parsed(program).section(".gnu_debugaltlink")
    assert section is not None
    build_id = bytes(section.data).partition(b"\0")[2]
    common.write_bytes(content.replace(build_id, build_id[::-1]))
    assert DebugFiles([str(tmp_path)]).supplement(parsed(program), str(program)) is None
    common.write_bytes(content)
    elf = relinked(program, bytes(common))
    assert DebugFiles([]).supplement(elf, str(program)) is not None


def test_a_file_without_links_has_no_files(build: Build) -> None:
    elf = parsed(build(MAIN, "-Wl,--build-id=none"))
    assert DebugFiles().companion(elf, "/program") is None
    assert DebugFiles().supplement(elf, "/program") is None


class Server:
    """Takes the place of debuginfod, and says what it was asked for."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.asked: list[tuple[str, str | None]] = []

    def debuginfo(self, build_id: str, name: str | None = None) -> str | None:
        self.asked.append((build_id, name))
        return str(self.path) if self.path is not None else None


def test_a_server_is_asked_last_and_its_answer_is_checked(split: Split, tmp_path: Path) -> None:
    program, debug = split()
    elf = parsed(program)
    assert elf.build_id is not None
    server = Server(debug)
    files = DebugFiles(["/debug"], server)
    assert path_of(files.companion(elf, "/bin/program", [str(tmp_path)])) == str(debug)
    assert server.asked == [(elf.build_id, "program")]
    assert DebugFiles(["/debug"], Server(None)).companion(elf, "/bin/program", [str(tmp_path)]) is None
    assert DebugFiles(["/debug"], Server(program)).companion(elf, "/bin/program", [str(tmp_path)]) is None
    put(debug, tmp_path, by_id(elf, "/debug"))
    assert path_of(files.companion(elf, "/bin/program", [str(tmp_path)])) == by_id(elf, "/debug")
    assert len(server.asked) == 1


def test_a_server_is_asked_for_a_supplement_too(shared: tuple[Path, Path], tmp_path: Path) -> None:
    program, common = shared
    put(common, tmp_path, "/cache/common")
    server = Server(tmp_path / "cache/common")
    found = DebugFiles([], server).supplement(relinked(program, b"/gone/common.debug"), str(program))
    assert path_of(found) == str(tmp_path / "cache/common")
    assert [name for _, name in server.asked] == ["common.debug"]


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_means_none_and_never_raises(split: Split, tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "program").exists():
        split("-Wl,--build-id=0x0102030405060708", link=True)
    root = tmp_path / "root"
    program, debug = (bytearray((tmp_path / name).read_bytes()) for name in ("program", "program.debug"))
    for content in (program, debug):
        (headers,) = struct.unpack_from("<Q", content, 40)
        places = st.one_of(st.integers(0, 0x400), st.integers(headers - 300, len(content) - 1))
        for _ in range(data.draw(st.integers(0, 6))):
            content[data.draw(places)] = data.draw(st.integers(0, 255))
    for place in ("usr/lib/debug/.build-id/01/02030405060708.debug", "bin/program.debug"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(debug[: data.draw(st.integers(0, len(debug)))])
    try:
        elf = Elf.parse(bytes(program))
    except ElfError:
        return
    DebugFiles().companion(elf, "/bin/program", [str(root)])
    DebugFiles().supplement(elf, "/bin/program", [str(root)])
