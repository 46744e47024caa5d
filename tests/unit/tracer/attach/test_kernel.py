"""What is known of the kernel without asking it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach.kernel import attach_type, require_tracefs
from tracer.settings import AttachWay


def test_numbers_of_attach_types() -> None:
    """They are those of enum bpf_attach_type (include/uapi/linux/bpf.h); perf events have none."""
    assert attach_type(AttachWay.SESSION) == 57
    assert attach_type(AttachWay.MULTI) == 48
    with pytest.raises(KeyError):
        attach_type(AttachWay.PERF)


def test_the_best_way_comes_first() -> None:
    """Ways are tried in their order: cheapest first."""
    assert list(AttachWay) == [AttachWay.SESSION, AttachWay.MULTI, AttachWay.PERF]


def test_tracefs_is_found_where_it_is(tmp_path: Path) -> None:
    """Of the usual places the first that has events is taken."""
    first, second = tmp_path / "tracing", tmp_path / "debug"
    first.mkdir()
    (second / "events").mkdir(parents=True)
    assert require_tracefs((first, second)) == second
    (first / "events").mkdir()
    assert require_tracefs((first, second)) == first
