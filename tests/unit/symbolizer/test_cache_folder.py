"""Results are kept between runs, and believed only where nobody else can have written them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from symbolizer.cache_folder import CacheFolder, default_folder

CONTENT = b"some lines" * 100
LIMIT = 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "some" / "cache"


def stored(folder: Path) -> CacheFolder:
    cache = CacheFolder(folder, LIMIT)
    cache.store("name", CONTENT)
    return cache


def test_what_was_stored_is_loaded(folder: Path) -> None:
    """The folder is made when it is needed, for its owner only; another run finds the bytes."""
    stored(folder)
    assert CacheFolder(folder, LIMIT).load("name") == CONTENT
    assert CacheFolder(folder, LIMIT).load("other") is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "name").stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.iterdir()] == ["name"], "something else was left there"


def test_no_folder(folder: Path) -> None:
    """Without a cache there is nothing in it."""
    assert CacheFolder(folder, LIMIT).load("name") is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write(folder: Path, mode: int) -> None:
    """What others could have changed is not believed."""
    cache = stored(folder)
    (folder / "name").chmod(mode)
    assert cache.load("name") is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write(folder: Path, mode: int) -> None:
    """In such a folder others can put a file of their own in the place of ours."""
    cache = stored(folder)
    folder.chmod(mode)
    assert cache.load("name") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_others(folder: Path, which: str) -> None:
    """A file of another user, or in another user's folder, is not ours."""
    cache = stored(folder)
    os.chown(folder / "name" if which == "file" else folder, 12345, 12345)
    assert cache.load("name") is None


def test_a_link_to_a_file_of_ours(folder: Path) -> None:
    """A link is no result, wherever it leads."""
    cache = stored(folder)
    (folder / "link").symlink_to("name")
    os.lchown(folder / "link", os.geteuid(), os.getegid())
    assert cache.load("link") is None


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"", lambda text: text.replace(b"lines", b"lives", 1),
                                    lambda text: bytes([text[0] ^ 1]) + text[1:], lambda text: text + b"!"])
def test_a_damaged_file(folder: Path, damage: object) -> None:
    """A file that is cut off or changed is made anew, and the next store mends it."""
    cache = stored(folder)
    assert callable(damage)
    (folder / "name").write_bytes(damage((folder / "name").read_bytes()))
    assert cache.load("name") is None
    cache.store("name", CONTENT)
    assert cache.load("name") == CONTENT


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Without a place to keep it, a result is just not kept."""
    (tmp_path / "file").write_text("in the way")
    cache = CacheFolder(tmp_path / "file" / "cache", LIMIT)
    cache.store("name", CONTENT)
    assert cache.load("name") is None


def test_the_oldest_go(folder: Path) -> None:
    """The folder stays within its size; what was not used for longest goes, and reading is use."""
    cache = CacheFolder(folder, 3 * 1040)
    for number in range(3):
        cache.store(str(number), CONTENT)
        os.utime(folder / str(number), (1000 + number, 1000 + number))
    assert cache.load("0") == CONTENT
    cache.store("3", CONTENT)
    assert sorted(path.name for path in folder.iterdir()) == ["0", "2", "3"]


def test_what_is_larger_than_the_folder(folder: Path) -> None:
    """A result that would push out all others is not kept."""
    cache = stored(folder)
    cache.store("large", bytes(LIMIT + 1))
    assert cache.load("name") == CONTENT and cache.load("large") is None


def test_what_a_killed_run_left(folder: Path) -> None:
    """A file that was never finished goes after an hour, and one that is being written stays."""
    cache = stored(folder)
    for name, age in ((".new-old", 7200), (".new-young", 60)):
        (folder / name).write_bytes(b"half")
        now = (folder / "name").stat().st_mtime
        os.utime(folder / name, (now - age, now - age))
    cache.store("other", CONTENT)
    assert sorted(path.name for path in folder.iterdir()) == [".new-young", "name", "other"]


def test_two_runs_at_once(folder: Path) -> None:
    """Runs that write the same names at the same time never read half of one, and both go on."""
    program = (
        "import sys; from pathlib import Path; from symbolizer.cache_folder import CacheFolder\n"
        "cache = CacheFolder(Path(sys.argv[1]), 30_000)\n"
        "for turn in range(300):\n"
        "    name = str(turn % 7)\n"
        "    cache.store(name, name.encode() * 5000)\n"
        "    found = cache.load(name)\n"
        "    assert found is None or found == name.encode() * 5000\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program, str(folder)], env={"PYTHONPATH": ":".join(sys.path)})
            for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 30_000


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable names the folder; else root's is the system's, and another user's is below the home."""
    monkeypatch.setenv("LEAKTRACE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("LEAKTRACE_CACHE")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/cache/leaktrace")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/x/.cache")
    assert default_folder() == Path("/home/x/.cache/leaktrace")
