"""What the kernel keeps for a process: of made-up folders, and of this process's own epoll."""

from __future__ import annotations

import os
import select
from ctypes import CDLL, byref, c_char, c_uint64, create_string_buffer
from pathlib import Path

import pytest

from tracer.attach.kernel_pointers import MOST_FILES, kernel_pointers

EPOLL = (
    "pos:\t0\nflags:\t02000002\nmnt_id:\t15\n"
    "tfd:        5 events:       19 data:     55d0c0de1230  pos:0 ino:61 sdev:d\n"
    "tfd:       11 events:       1d data: ffffffffffffffff  pos:0 ino:62 sdev:d\n"
)
TIMERS = (
    "ID: 0\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\n"
    "ID: 1\nsignal: 60/0x7fff86e452b0\nnotify: thread/tid.2634\nClockID: 1\n"
)


def made(folder: Path, files: dict[int, tuple[str, str]], timers: str | None = None) -> Path:
    """Return a process's folder; files: by number, what each is and what fdinfo says of it."""
    for name in ("fd", "fdinfo"):
        (folder / name).mkdir()
    for number, (target, text) in files.items():
        (folder / "fd" / str(number)).symlink_to(target)
        (folder / "fdinfo" / str(number)).write_text(text)
    if timers is not None:
        (folder / "timers").write_text(timers)
    return folder


def test_epoll_and_timers(tmp_path: Path) -> None:
    """The data of each file that epoll watches, and what each timer's signal carries; all 64 bits of it."""
    folder = made(tmp_path, {3: ("anon_inode:[eventpoll]", EPOLL)}, TIMERS)
    found = kernel_pointers(folder)
    assert str(found.dtype) == "uint64"
    assert sorted(found.tolist()) == [0x55D0C0DE1230, 0x7FFF86E452A8, 0x7FFF86E452B0, (1 << 64) - 1]


def test_other_files_say_nothing(tmp_path: Path) -> None:
    """What stands in the information on a file that is no epoll is not looked at."""
    assert kernel_pointers(made(tmp_path, {3: ("/home/a/tfd", EPOLL), 4: ("socket:[7]", EPOLL)})).tolist() == []


@pytest.mark.parametrize("text", ["", "tfd: 5 events: 19 data:\n", "data: 12\n", "tfd: 5 data: zz\n", "\0\xff"])
def test_what_is_not_understood(tmp_path: Path, text: str) -> None:
    """Lines of another form hold no pointer, and are no error."""
    assert kernel_pointers(made(tmp_path, {3: ("anon_inode:[eventpoll]", text)}, text)).tolist() == []


def test_what_is_missing(tmp_path: Path) -> None:
    """A process that is gone, and a kernel without timers, or a file that was closed meanwhile, are no error."""
    assert kernel_pointers(tmp_path / "gone").tolist() == []
    folder = made(tmp_path, {3: ("anon_inode:[eventpoll]", EPOLL)})
    (folder / "fdinfo" / "3").unlink()
    assert kernel_pointers(folder).tolist() == []


def test_no_end_of_files(tmp_path: Path) -> None:
    """Of a process with very many files, those with the lowest numbers are looked at."""
    folder = made(tmp_path, {MOST_FILES - 1: ("anon_inode:[eventpoll]", EPOLL), MOST_FILES: ("anon_inode:[eventpoll]", EPOLL.replace("de", "ee"))})
    for number in range(MOST_FILES - 1):
        (folder / "fd" / str(number)).touch()
    assert sorted(kernel_pointers(folder).tolist()) == [0x55D0C0DE1230, (1 << 64) - 1]


def test_a_real_epoll() -> None:
    """The running kernel writes what was given to it where it is looked for."""
    reader, writer = os.pipe()
    data = 0x7A11_C0DE_1230
    try:
        with select.epoll() as epoll:
            # struct epoll_event is packed: 4 bytes of events, 8 of data (sys/epoll.h).
            event = create_string_buffer(select.EPOLLIN.to_bytes(4, "little") + data.to_bytes(8, "little"), 12)
            assert CDLL(None).epoll_ctl(epoll.fileno(), 1, reader, byref(event)) == 0
            assert data in kernel_pointers(Path("/proc/self")).tolist()
        assert data not in kernel_pointers(Path("/proc/self")).tolist()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_real_timer() -> None:
    """A POSIX timer's signal carries a pointer, which is found where the kernel lists timers."""
    if not Path("/proc/self/timers").exists():
        pytest.skip("this kernel does not list timers")
    libc, timer = CDLL(None, use_errno=True), c_uint64()
    # struct sigevent: the value, the signal's number, SIGEV_SIGNAL (signal.h).
    event = (c_char * 64).from_buffer_copy((0x7A11_C0DE_4560).to_bytes(8, "little") + (10).to_bytes(4, "little") + bytes(52))
    assert libc.timer_create(1, byref(event), byref(timer)) == 0
    try:
        assert 0x7A11_C0DE_4560 in kernel_pointers(Path("/proc/self")).tolist()
    finally:
        libc.timer_delete(timer)
