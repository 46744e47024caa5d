"""Compiled programs are kept between runs, and believed only where nobody else can have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.attach.bpf_object import BpfObject, Code, MapSpec
from tracer.attach.object_cache import MOST_FILES, ObjectCache

PROGRAM = BpfObject((MapSpec("sites", 2, 4, 320, 1024),), {"heap_free": Code(b"\x95" + bytes(7), ())})
KEY = ObjectCache.key("text", "version")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "some" / "cache"


def stored(folder: Path) -> ObjectCache:
    cache = ObjectCache(folder)
    cache.store(KEY, PROGRAM)
    return cache


def test_what_was_stored_is_loaded(folder: Path) -> None:
    """The folder is made when it is needed, for its owner only; another run finds the program."""
    stored(folder)
    assert ObjectCache(folder).load(KEY) == PROGRAM
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / KEY).stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.iterdir()] == [KEY], "something else was left there"


def test_another_key(folder: Path) -> None:
    """Other text, or another version, is another program."""
    cache = stored(folder)
    keys = {ObjectCache.key(*parts) for parts in (("text", "version"), ("text", "2"), ("other", "version"),
                                                  ("textversion",), ("textv", "ersion"))}
    assert len(keys) == 5
    assert cache.load(ObjectCache.key("text", "2")) is None


def test_no_folder(folder: Path) -> None:
    """Without a cache there is nothing in it."""
    assert ObjectCache(folder).load(KEY) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write(folder: Path, mode: int) -> None:
    """What others could have changed would run in the kernel: it is not believed."""
    cache = stored(folder)
    (folder / KEY).chmod(mode)
    assert cache.load(KEY) is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write(folder: Path, mode: int) -> None:
    """In such a folder others can put a file of their own in the place of ours."""
    cache = stored(folder)
    folder.chmod(mode)
    assert cache.load(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_others(folder: Path, which: str) -> None:
    """A file of another user, or in another user's folder, is not ours."""
    cache = stored(folder)
    os.chown(folder / KEY if which == "file" else folder, 12345, 12345)
    assert cache.load(KEY) is None


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"", lambda text: text.replace(b"sites", b"sitez"),
                                    lambda text: b"0" + text[1:] if text[:1] != b"0" else b"1" + text[1:]])
def test_a_damaged_file(folder: Path, damage: object) -> None:
    """A file that is cut off or changed is compiled anew, and the next store mends it."""
    cache = stored(folder)
    assert callable(damage)
    (folder / KEY).write_bytes(damage((folder / KEY).read_bytes()))
    assert cache.load(KEY) is None
    cache.store(KEY, PROGRAM)
    assert cache.load(KEY) == PROGRAM


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Without a place to keep it, a program is just not kept."""
    (tmp_path / "file").write_text("in the way")
    cache = ObjectCache(tmp_path / "file" / "cache")
    cache.store(KEY, PROGRAM)
    assert cache.load(KEY) is None


def test_the_oldest_go(folder: Path) -> None:
    """Only so many are kept, the latest ones."""
    cache = ObjectCache(folder)
    for number in range(MOST_FILES + 3):
        cache.store(f"{number:064}", PROGRAM)
        os.utime(folder / f"{number:064}", (1000 + number, 1000 + number))
    assert sorted(int(path.name) for path in folder.iterdir()) == list(range(3, MOST_FILES + 3))
