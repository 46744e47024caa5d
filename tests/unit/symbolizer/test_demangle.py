import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.demangle import demangle


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("malloc", "malloc"),
        ("_Znwm", "operator new(unsigned long)"),
        ("_ZN2ns4fullINS_1TEE3runEi", "ns::full<ns::T>::run(int)"),
        ("malloc@@GLIBC_2.2.5", "malloc"),
        ("_ZdlPv@GLIBCXX_3.4", "operator delete(void*)"),
        ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
        ("_RNvNtCsgEmfK2I1SDS_4core3fmt5write", "core::fmt::write"),
    ],
)
def test_names_are_as_in_the_source(name: str, shown: str) -> None:
    assert demangle(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("main.cold", "main [.cold]"),
        ("_Z1fi.cold", "f(int) [.cold]"),
        ("_Z1fi.part.0", "f(int) [.part.0]"),
        ("work.isra.0.constprop.1", "work [.isra.0.constprop.1]"),
        ("_ZN1a1bEv.llvm.1234567890", "a::b()"),
        ("runtime.mallocgc", "runtime.mallocgc"),
        (".cold", ".cold"),
    ],
)
def test_clone_suffixes_stand_in_brackets_and_other_dots_stay(name: str, shown: str) -> None:
    assert demangle(name) == shown


@pytest.mark.parametrize("name", ["", "@", "_Z", "_ZZZZ", "_R", "_Rx", "_Z\udcff"])
def test_a_name_that_cannot_be_read_comes_back(name: str) -> None:
    assert demangle(name) == name.replace("\udcff", r"\udcff")


def test_a_failing_library_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    demangle("_RNvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeINtDNtNt")
    demangle("_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeDG_INtNtNtB4_3ops8function2FnEL_E")
    assert capsys.readouterr().out == ""


def test_control_characters_never_come_out() -> None:
    assert demangle("evil\x1b]0;title\x07") == r"evil\x1b]0;title\x07"


@given(st.sampled_from(["_Z", "_ZN", "_R", "_RNv", ""]), st.text(max_size=40))
def test_any_name_gives_printable_text(prefix: str, text: str) -> None:
    assert "\x1b" not in demangle(prefix + text)
    assert "\n" not in demangle(prefix + text)
