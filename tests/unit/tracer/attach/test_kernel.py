"""What is known of the kernel without asking it."""

from __future__ import annotations

import pytest

from tracer.attach.kernel import attach_type
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
