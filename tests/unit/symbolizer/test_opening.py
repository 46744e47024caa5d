import ctypes
import errno
import mmap
import os
import socket
from pathlib import Path

import pytest

from symbolizer import opening
from symbolizer.file_map import COPIED_BYTES
from symbolizer.opening import follow, open_in_root, read_regular


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "inside").write_bytes(b"inside")
    (tmp_path / "outside").write_bytes(b"outside")
    return folder


@pytest.fixture
def without_openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kernel one from before 5.6."""
    monkeypatch.setattr(opening, "_syscall", lambda *_: (-1, errno.ENOSYS))


def test_a_file_is_read_as_its_root_names_it(root: Path) -> None:
    assert read_regular(str(root), "/lib/inside") == b"inside"
    assert read_regular("/", str(root / "lib" / "inside")) == b"inside"


def test_a_descriptor_is_for_reading_and_is_not_inherited(root: Path) -> None:
    file = open_in_root(str(root), "lib/inside")
    try:
        assert os.read(file, 100) == b"inside"
        assert not os.get_inheritable(file)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file, b"x")
    finally:
        os.close(file)


@pytest.mark.parametrize("target", ["../../outside", "/../outside", "{outside}", "/proc/self/root{outside}"])
def test_a_link_out_of_the_root_leads_nowhere(root: Path, target: str) -> None:
    outside = root.parent / "outside"
    (root / "lib" / "link").symlink_to(target.format(outside=outside))
    with pytest.raises(OSError, match=r"\[Errno"):
        read_regular(str(root), "/lib/link")


def test_dots_do_not_lead_out_of_the_root(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(str(root), "/lib/../../outside")
    (root / "outside").write_bytes(b"mine")
    assert read_regular(str(root), "/lib/../../outside") == b"mine"


def test_an_absolute_link_is_followed_within_the_root(root: Path) -> None:
    (root / "lib" / "link").symlink_to("/lib/inside")
    assert read_regular(str(root), "/lib/link") == b"inside"


def test_links_of_proc_to_open_files_are_refused(root: Path) -> None:
    with (root / "lib" / "inside").open() as file, pytest.raises(OSError, match="symbolic links"):
        read_regular("/", f"/proc/self/fd/{file.fileno()}")


def test_the_root_of_another_process_is_a_root() -> None:
    assert read_regular("/proc/self/root", "/etc/passwd") == Path("/etc/passwd").read_bytes()


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket"])
def test_what_is_no_regular_file_is_refused_without_being_opened(root: Path, kind: str) -> None:
    path = root / "special"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    else:
        path, root = Path("/dev/null"), Path("/")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="no regular file"):
        read_regular(str(root), "/special" if kind != "device" else str(path))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_small_files_are_copied_and_large_ones_mapped_up_to_the_limit(root: Path) -> None:
    small, large = root / "small", root / "large"
    small.write_bytes(b"s" * COPIED_BYTES)
    large.write_bytes(b"l" * (COPIED_BYTES + 1))
    assert read_regular(str(root), "/small") == b"s" * COPIED_BYTES
    mapped = read_regular(str(root), "/large")
    assert isinstance(mapped, mmap.mmap)
    assert mapped[:] == b"l" * (COPIED_BYTES + 1)
    with pytest.raises(TypeError):
        mapped[0] = 0
    with pytest.raises(ValueError, match="bytes"):
        read_regular(str(root), "/large", COPIED_BYTES)


def test_an_empty_file_has_no_bytes(root: Path) -> None:
    (root / "empty").write_bytes(b"")
    assert read_regular(str(root), "/empty") == b""


@pytest.mark.parametrize("path", ["", "/lib/inside\0x", "/" + "n" * 300, "/x" * 5000, "/lib/inside/x", "/absent"])
def test_what_is_no_path_raises_and_does_not_open_another_file(root: Path, path: str) -> None:
    with pytest.raises((OSError, ValueError)):
        read_regular(str(root), path)


def test_a_name_that_is_no_utf8_is_opened(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).write_bytes(b"odd")
    assert read_regular(str(root), "/\udcff") == b"odd"


def test_descriptors_do_not_pile_up(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/lib/inside", "/absent", "/lib"):
        for _ in range(5):
            try:
                read_regular(str(root), path)
            except (OSError, ValueError):
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_older_kernel_reads_the_hosts_files_only(root: Path, without_openat2: None) -> None:
    assert read_regular("/", str(root / "lib" / "inside")) == b"inside"
    with pytest.raises(OSError, match="not implemented"):
        read_regular(str(root), "/lib/inside")


def test_a_rename_at_the_same_time_is_no_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(-1, errno.EAGAIN)] * 3)
    real = opening._syscall

    def racing(folder: int, name: bytes, how: ctypes.Structure) -> tuple[int, int]:
        return next(answers, None) or real(folder, name, how)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "_syscall", racing)
    assert read_regular(str(root), "/lib/inside") == b"inside"


def test_a_link_is_followed_to_where_the_file_lies(root: Path) -> None:
    (root / "ids").mkdir()
    (root / "ids" / "one").symlink_to("../lib/second")
    (root / "lib" / "second").symlink_to("/lib/inside")
    assert follow(str(root), "/ids/one") == "/lib/inside"
    assert follow(str(root), "/lib/inside") == "/lib/inside"
    (root / "lib" / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        follow(str(root), "/lib/round")
