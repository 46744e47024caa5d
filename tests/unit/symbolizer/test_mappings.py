import mmap
import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from symbolizer.mappings import AddressSpace, ObjectKey, object_key, parse_maps

MAPS = b"""\
555555554000-555555556000 r--p 00000000 fd:01 1234                       /usr/bin/my prog
555555556000-555555558000 r-xp 00002000 fd:01 1234                       /usr/bin/my prog
555555559000-55555557a000 rw-p 00000000 00:00 0                          [heap]
7ffff7a00000-7ffff7a01000 r-xp 00001000 08:02 77                         /tmp/lib\\012x.so (deleted)
7ffff7a01000-7ffff7a02000 rw-s 00000000 00:05 1027                       /dev/zero (deleted)
7ffff7a02000-7ffff7a03000 rwxp 00000000 00:00 0\x20
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_a_line_gives_every_field() -> None:
    text = parse_maps(MAPS)[1]
    assert (text.start, text.end, text.file_offset) == (0x555555556000, 0x555555558000, 0x2000)
    assert (text.readable, text.writable, text.executable, text.private) == (True, False, True, True)
    assert (text.device, text.inode, text.path, text.deleted) == ((0xFD, 1), 1234, "/usr/bin/my prog", False)
    assert text.offset_of(0x555555556010) == 0x2010


def test_a_deleted_file_is_marked_and_its_newline_is_decoded() -> None:
    deleted = parse_maps(MAPS)[3]
    assert (deleted.path, deleted.deleted) == ("/tmp/lib\nx.so", True)


def test_only_the_newline_is_an_escape_because_the_kernel_escapes_nothing_else() -> None:
    (mapping,) = parse_maps(b"1000-2000 r-xp 00000000 08:02 77 /tmp/a\\101\\\\b")
    assert mapping.path == "/tmp/a\\101\\\\b"


def test_bytes_that_are_no_utf8_can_be_given_back_to_the_kernel() -> None:
    (mapping,) = parse_maps(b"1000-2000 r-xp 00000000 08:02 77   /tmp/\xff\xfe.so\n")
    assert os.fsencode(mapping.path) == b"/tmp/\xff\xfe.so"


def test_an_address_is_found_in_its_mapping_and_nowhere_else() -> None:
    space = AddressSpace.of(reversed(parse_maps(MAPS)))
    for mapping in space.mappings:
        assert space.locate(mapping.start) is mapping
        assert space.locate(mapping.end - 1) is mapping
    assert space.locate(0) is None
    assert space.locate(0x555555558000) is None
    assert space.locate(0xFFFFFFFFFF601000) is None
    assert AddressSpace.of(()).locate(1) is None


def test_objects_are_the_files_with_executable_mappings() -> None:
    space = AddressSpace.of(parse_maps(MAPS))
    assert list(space.objects()) == [
        ObjectKey((0xFD, 1), 1234, "/usr/bin/my prog"),
        ObjectKey((8, 2), 77, "/tmp/lib\nx.so"),
    ]
    assert [mapping.executable for mapping in space.objects().values()] == [True, True]


def test_anonymous_memory_has_no_object_but_the_vdso_has() -> None:
    heap, anonymous, vdso, vsyscall = (parse_maps(MAPS)[index] for index in (2, 5, 6, 7))
    assert object_key(heap) is object_key(anonymous) is object_key(vsyscall) is None
    assert object_key(vdso) == ObjectKey((0, 0), 0, "[vdso]")


def test_every_line_of_a_real_process_is_read() -> None:
    text = Path("/proc/self/maps").read_bytes()
    mappings = parse_maps(text)
    assert len(mappings) == text.count(b"\n")
    page = mmap.mmap(-1, 4096)
    space = AddressSpace.of(mappings)
    assert all(space.locate(mapping.start) == mapping for mapping in mappings)
    page.close()


@given(st.binary(max_size=400))
@example(b"2000-1000 r-xp 0 0:0 0")
@example(b"1000-2000 r-xp 00000000 08:02 77 /x\r\n1000-2000 rwxq 0 0:0 0")
def test_garbage_is_skipped(text: bytes) -> None:
    AddressSpace.of(parse_maps(text)).locate(0x1000)


@given(st.integers(0, len(MAPS) - 1), st.integers(0, 255), st.integers(0, 2**64))
def test_a_damaged_line_costs_at_most_itself(position: int, byte: int, address: int) -> None:
    damaged = bytearray(MAPS)
    damaged[position] = byte
    mappings = parse_maps(bytes(damaged))
    assert len(mappings) >= MAPS.count(b"\n") - 2
    AddressSpace.of(mappings).locate(address)
