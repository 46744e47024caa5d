"""The file of a recording: whose it is, what becomes of others' files, and what a full disk leaves."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.errors import UsageError
from tracer.store import LARGEST, Chunk, Reader, Writer

#: A user and a group without a name.
USER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def chunks(path: Path) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Return kinds and contents of a file, and whether it is cut."""
    reader = Reader(io.BytesIO(path.read_bytes()), str(path))
    return [(each.kind, reader.unpack(each)) for each in reader], reader.truncated


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Return a folder that belongs to USER, in one that everybody can enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/") and stat.S_IMODE(folder.stat().st_mode) == 0o700:
            folder.chmod(0o711)
    made = tmp_path / "theirs"
    made.mkdir()
    os.chown(made, USER, USER)
    return made


def test_chunks_come_back(tmp_path: Path) -> None:
    """Chunks have their kinds and contents, empty ones too."""
    wanted = [(b"AAAA", b""), (b"BBBB", bytes(100_000)), (b"CCCC", os.urandom(300_000))]
    writer = Writer(str(tmp_path / "r"), None)
    writer.write(*(Chunk(kind, content) for kind, content in wanted))
    assert writer.size == (tmp_path / "r").stat().st_size
    writer.close()
    assert chunks(tmp_path / "r") == (wanted, False)


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """A new file has mode 0600 whatever the umask, and one that is there gets it before anything is written."""
    (tmp_path / "old").write_bytes(b"x" * 10_000)
    (tmp_path / "old").chmod(0o644)
    before = os.umask(0)
    try:
        for name in ("new", "old"):
            Writer(str(tmp_path / name), None).close()
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
            assert chunks(tmp_path / name) == ([], False)
    finally:
        os.umask(before)


@needs_root
def test_the_file_belongs_to_who_called_sudo(theirs: Path) -> None:
    """Root makes it as that user; afterwards this process is root as before, with its groups."""
    was = os.geteuid(), os.getegid(), os.getgroups()
    Writer(str(theirs / "r"), (USER, USER)).close()
    found = (theirs / "r").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, USER, 0o600)
    assert (os.geteuid(), os.getegid(), os.getgroups()) == was


@needs_root
@pytest.mark.parametrize("way", ["symlink", "file", "folder"])
def test_a_user_cannot_have_root_write_elsewhere(theirs: Path, tmp_path: Path, way: str) -> None:
    """A link to a file of root, such a file, and a new one in a folder of root are refused, and stay as they are."""
    secret = tmp_path / "of_root"
    secret.write_text("important")
    secret.chmod(0o600)
    path = {"symlink": theirs / "link", "file": secret, "folder": tmp_path / "new"}[way]
    if way == "symlink":
        path.symlink_to(secret)
    was = os.geteuid(), os.getegid(), os.getgroups()
    with pytest.raises(PermissionError):
        Writer(str(path), (USER, USER))
    assert secret.read_text() == "important" and not (tmp_path / "new").exists()
    assert (os.geteuid(), os.getegid(), os.getgroups()) == was


@needs_root
def test_the_groups_of_the_user_count(tmp_path: Path, theirs: Path) -> None:
    """Where only a second group of the user may write, it may; without that group it may not."""
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 0, USER + 1)
    shared.chmod(0o770)
    with pytest.raises(PermissionError):
        Writer(str(shared / "r"), (USER, USER))
    Writer(str(shared / "r"), (USER, USER), (USER + 1,)).close()
    assert (shared / "r").stat().st_uid == USER


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    """A pipe that nobody reads does not stop the trace, and a device keeps its mode; both are an error at once."""
    os.mkfifo(tmp_path / "pipe")
    mode = os.stat("/dev/null").st_mode
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for path in (str(tmp_path / "pipe"), "/dev/null", "/dev/full"):
        with pytest.raises(OSError, match="not a file"):
            Writer(path, None)
    os.close(reader)
    with pytest.raises(OSError) as raised:
        Writer(str(tmp_path / "pipe"), None)
    assert raised.value.errno == errno.ENXIO
    assert os.stat("/dev/null").st_mode == mode
    with pytest.raises(IsADirectoryError):
        Writer(str(tmp_path), None)


@pytest.fixture
def limit() -> Iterator[int]:
    """Let files of this process have 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_whole(tmp_path: Path, limit: int) -> None:
    """What does not fit is not there at all, nothing says that it is cut, and what is small may follow."""
    writer = Writer(str(tmp_path / "r"), None)
    writer.write(Chunk(b"AAAA", b"first"))
    with pytest.raises(OSError):
        writer.write(Chunk(b"BBBB", b"second"), Chunk(b"CCCC", os.urandom(2 * limit)))
    assert chunks(tmp_path / "r") == ([(b"AAAA", b"first")], False)
    writer.write(Chunk(b"DDDD", b"third"))
    assert chunks(tmp_path / "r") == ([(b"AAAA", b"first"), (b"DDDD", b"third")], False)
    writer.close()


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    """A chunk above the reader's bound is an error of the writer."""
    writer = Writer(str(tmp_path / "r"), None)
    with pytest.raises(OSError, match="larger than can be read"):
        writer.write(Chunk(b"AAAA", bytes(LARGEST + 1)))
    writer.close()


def test_a_kill_leaves_what_was_whole(tmp_path: Path) -> None:
    """A writer that is killed in the middle of its work leaves whole chunks, in their order, and at most one cut one."""
    script = (f"import os\nfrom tracer.store import Chunk, Writer\nw = Writer({str(tmp_path / 'r')!r}, None)\n"
              "print(flush=True)\nn = 0\nwhile True:\n    w.write(Chunk(b'AAAA', n.to_bytes(4, 'big') + os.urandom(99999)))\n"
              "    n += 1\n    n == 20 and print(flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    found, _ = chunks(tmp_path / "r")
    assert [int.from_bytes(content[:4], "big") for _, content in found] == list(range(len(found)))
    assert len(found) >= 20


@pytest.mark.parametrize("version", [b"", b"1.0", b"-1", b"one", b"\xff", b"2"])
def test_other_versions_are_refused(version: bytes) -> None:
    """Whatever is in the place of the version but ours is an error that says it."""
    with pytest.raises(UsageError, match="reads version 1"):
        Reader(io.BytesIO(b"leaktrace recording " + version + b"\n"), "file")
