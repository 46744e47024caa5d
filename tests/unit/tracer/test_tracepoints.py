"""What tracefs says of an event, and what is said where it says nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tracer.attach import tracepoints
from tracer.attach.tracepoints import Field
from tracer.errors import CannotTrace

FORMAT = """name: made
ID: 77
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:const void * ptr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:16;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:1;
\tfield:unsigned long old;\toffset:40;\tsize:8;

print fmt: "field:int fake;\toffset:1;\tsize:2;\tsigned:0; ptr=%p", REC->ptr
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    event = tmp_path / "tracing" / "events" / "kmem" / "made"
    event.mkdir(parents=True)
    (event / "format").write_text(FORMAT)
    (event / "id").write_text("77\n")
    return tmp_path / "tracing"


def test_fields_have_place_size_and_sign(root: Path) -> None:
    """Each field is found with its offset, size and sign, by its bare name, whether it is an array or an old kernel's."""
    assert tracepoints.fields("kmem", "made", root) == {
        "common_type": Field(0, 2, False),
        "common_pid": Field(4, 4, True),
        "ptr": Field(8, 8, False),
        "comm": Field(16, 16, False),
        "name": Field(32, 4, True),
        "old": Field(40, 8, False),
    }


def test_what_is_printed_is_no_field(root: Path) -> None:
    """Text of the print format that looks like a field is none."""
    assert "fake" not in tracepoints.fields("kmem", "made", root)
    assert tracepoints.print_format(FORMAT).startswith('"field:int fake;')


def test_an_event_has_a_number(root: Path) -> None:
    """The number is the one in the event's id file."""
    assert tracepoints.event_id("kmem", "made", root) == 77


def test_existence_is_told(root: Path) -> None:
    """An event exists if it is described, and only then."""
    assert tracepoints.exists("kmem", "made", root)
    assert not tracepoints.exists("kmem", "other", root)
    assert not tracepoints.exists("other", "made", root)


@pytest.mark.parametrize(("category", "option"), [("kmem", "CONFIG_EVENT_TRACING"), ("syscalls", "CONFIG_FTRACE_SYSCALLS")])
def test_a_missing_event_is_named_with_its_option(root: Path, category: str, option: str) -> None:
    """The error names the event, and the kernel option that brings it."""
    for question in (tracepoints.fields, tracepoints.event_id):
        with pytest.raises(CannotTrace) as raised:
            question(category, "absent", root)
        assert f"{category}:absent" in raised.value.message
        assert option in raised.value.remedy


@pytest.mark.parametrize(("file", "text"), [("id", "many"), ("id", ""), ("format", ""), ("format", "name: made\x00\nfield:")])
def test_garbage_is_an_error_that_names_the_event(root: Path, file: str, text: str) -> None:
    """A file that holds no number or no field ends in an error that names the event."""
    (root / "events" / "kmem" / "made" / file).write_text(text)
    with pytest.raises(CannotTrace, match="kmem:made"):
        (tracepoints.event_id if file == "id" else tracepoints.fields)("kmem", "made", root)


def test_the_first_place_with_events_is_taken(root: Path, tmp_path: Path) -> None:
    """A place without events, as an empty mount point is, does not hide the one that has them."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tracepoints.find_tracefs([empty, root]) == root
    assert tracepoints.find_tracefs([empty, tmp_path / "absent"]) is None


def test_tracefs_is_mounted_only_where_it_is_missing(root: Path, tmp_path: Path) -> None:
    """Nothing is mounted over a tracefs that is there; without one, it is mounted at the first place."""
    mounted: list[Path] = []

    def mount(where: Path) -> None:
        mounted.append(where)
        (where / "events").mkdir(parents=True)

    assert tracepoints.tracefs([tmp_path / "absent", root], mount) == root
    assert mounted == []
    assert tracepoints.tracefs([tmp_path / "absent", tmp_path / "too"], mount) == tmp_path / "absent"
    assert mounted == [tmp_path / "absent"]


def test_a_mount_that_fails_names_the_command(tmp_path: Path) -> None:
    """Who may not mount is told why not, and which command mounts it."""
    def refuse(where: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(CannotTrace) as raised:
        tracepoints.tracefs([tmp_path / "t"], refuse)
    assert "Operation not permitted" in raised.value.message
    assert f"mount -t tracefs tracefs {tmp_path / 't'}" in raised.value.remedy


def test_a_mount_without_events_is_an_error(tmp_path: Path) -> None:
    """A tracefs of a kernel without events is not taken for one with them."""
    with pytest.raises(CannotTrace, match="no events"):
        tracepoints.tracefs([tmp_path], lambda where: None)
