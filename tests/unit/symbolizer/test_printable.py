import pytest

from symbolizer.printable import printable


@pytest.mark.parametrize("text", ["", "malloc", "operator new(unsigned long)", "ünïcode::名前<T>", "a b"])
def test_harmless_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines", r"two\x0alines"),
        ("\x7f\x9b2J", r"\x7f\x9b2J"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("bad\udcffbyte", r"bad\udcffbyte"),
    ],
)
def test_what_could_disturb_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isprintable()
