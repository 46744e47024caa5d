"""Compiled programs are kept between runs (where and how safely: test_cache_folder.py)."""

from __future__ import annotations

from pathlib import Path

from symbolizer.cache_folder import CacheFolder
from tracer.attach.bpf_object import BpfObject, Code, MapSpec
from tracer.attach.object_cache import MOST_BYTES, ObjectCache

PROGRAM = BpfObject((MapSpec("sites", 2, 4, 320, 1024),), {"heap_free": Code(b"\x95" + bytes(7), ())})
KEY = ObjectCache.key("text", "version")


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    """Another run finds the program."""
    ObjectCache(tmp_path).store(KEY, PROGRAM)
    assert ObjectCache(tmp_path).load(KEY) == PROGRAM


def test_another_key(tmp_path: Path) -> None:
    """Other text, or another version, is another program."""
    cache = ObjectCache(tmp_path)
    cache.store(KEY, PROGRAM)
    keys = {ObjectCache.key(*parts) for parts in (("text", "version"), ("text", "2"), ("other", "version"),
                                                  ("textversion",), ("textv", "ersion"))}
    assert len(keys) == 5
    assert cache.load(ObjectCache.key("text", "2")) is None


def test_something_else_by_that_name(tmp_path: Path) -> None:
    """Whole bytes that are no program are compiled anew."""
    for content in (b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"maps": 3}'):
        CacheFolder(tmp_path, MOST_BYTES).store(KEY, content)
        assert ObjectCache(tmp_path).load(KEY) is None
