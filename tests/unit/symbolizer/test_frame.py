import dataclasses

import pytest

from symbolizer.frame import Frame, Why


def test_reasons_are_the_words_of_the_json_schema() -> None:
    assert [str(why) for why in Why] == [
        "unmapped",
        "no_symbols",
        "not_covered",
        "gone",
        "unreadable",
        "unwind_stopped",
    ]


def test_a_frame_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Frame(1).function = "x"  # type: ignore[misc]
