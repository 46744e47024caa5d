import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbolizer.choices import Style
from symbolizer.demangle import LONGEST, READABLE, demangle, shorten

STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"
OPERATOR = re.compile(r"\boperator(?:\(\)|\[\]|->\*?|<=>|<<=?|>>=?|<=|>=|<|>)")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
        ("_RNCNvNtNtNtCsjrHSEGnQ3l9_3std3sys3env4unix6getenv0B9_", "std::sys::env::unix::getenv::{closure#0}"),
        ("$s4main3fooyyF", "$s4main3fooyyF"),
        ("_ReadFile", "_ReadFile"),
        ("$start", "$start"),
    ],
)
def test_names_are_as_in_the_source(name: str, shown: str) -> None:
    assert demangle(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("main.cold", "main [.cold]"),
        ("_Z1fi.cold", "f(int) [.cold]"),
        ("_Z1fi.cold.1", "f(int) [.cold.1]"),
        ("_Z1fi.part.0", "f(int) [.part.0]"),
        ("work.lto_priv.0", "work [.lto_priv.0]"),
        ("work.isra.0.constprop.1", "work [.isra.0.constprop.1]"),
        ("_ZN1a1bEv.llvm.1234567890", "a::b()"),
        ("_RNvC1a1b.llvm.77", "a::b"),
        ("runtime.mallocgc", "runtime.mallocgc"),
        (".cold", ".cold"),
    ],
)
def test_clone_suffixes_stand_in_brackets_and_other_dots_stay(name: str, shown: str) -> None:
    assert demangle(name) == demangle(name, Style.SHORT) == shown


@pytest.mark.parametrize(
    ("name", "style", "shown"),
    [
        ("malloc@plt", Style.FULL, "malloc@plt"),
        ("malloc@plt", Style.SHORT, "malloc@plt"),
        ("malloc@plt", Style.NONE, "malloc@plt"),
        ("_Znwm@plt", Style.FULL, "operator new(unsigned long)@plt"),
        ("_Znwm@plt", Style.NONE, "_Znwm@plt"),
        ("read@GLIBC_2.2.5@plt", Style.FULL, "read@plt"),
        ("@plt", Style.FULL, "@plt"),
    ],
)
def test_an_entry_of_a_linkage_table_is_told_from_the_function(name: str, style: Style, shown: str) -> None:
    assert demangle(name, style) == shown


@pytest.mark.parametrize(
    ("name", "shown"), [("_Z1fi.cold", "_Z1fi.cold"), ("_Znwm@@GLIBCXX_3.4", "_Znwm"), ("a\x1bb", r"a\x1bb")]
)
def test_the_linker_name_stays_with_its_clone_suffix(name: str, shown: str) -> None:
    assert demangle(name, Style.NONE) == shown


@pytest.mark.parametrize("name", ["", "@", "_Z", "_ZZZZ", "_R", "_Rx", "_Z\udcff", "_D9", "$s"])
def test_a_name_that_cannot_be_read_comes_back(name: str) -> None:
    for style in Style:
        assert demangle(name, style) == name.replace("\udcff", r"\udcff")


def test_a_failing_library_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    demangle("_RNvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeINtDNtNt")
    demangle("_RINvNtCsgEmfK2I1SDS_4core3ptr13drop_in_placeDG_INtNtNtB4_3ops8function2FnEL_E")
    demangle("_ZN3foo")
    assert capfd.readouterr() == ("", "")


def test_control_characters_never_come_out() -> None:
    assert demangle("evil\x1b]0;title\x07") == r"evil\x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (f"ns::f({STRING} const&)", "ns::f(std::string const&)"),
        (f"{STRING}::_M_create(unsigned long&, unsigned long)", "std::string::_M_create(unsigned long&, unsigned long)"),
        (f"f({STRING.replace('char,', 'wchar_t,').replace('<char>', '<wchar_t>')})", "f(std::wstring)"),
        ("std::__1::basic_string<char, std::__1::char_traits<char>, std::__1::allocator<char>>::push_back(char)", "std::string::push_back(char)"),
        ("std::__cxx11::to_string[abi:cxx11](int)", "std::to_string(int)"),
        ("ns::small<int>::run(int, char)", "ns::small<int>::run(int, char)"),
        (
            "std::vector<Thing, std::allocator<Thing> >::_M_realloc_insert(Thing const&)",
            "std::vector<…>::_M_realloc_insert(Thing const&)",
        ),
        (
            "llvm::pdb::NativeInlineSiteSymbol::dump(llvm::raw_ostream&, int, llvm::pdb::PdbSymbolIdField) const",
            "llvm::pdb::NativeInlineSiteSymbol::dump(…) const",
        ),
        (
            "(anonymous namespace)::Very::Long::Name::With<Template, Arguments, Of, Many>::run((anonymous namespace)::X)",
            "(anonymous namespace)::Very::Long::Name::With<…>::run(…)",
        ),
        (
            f"bool std::operator< <char, std::char_traits<char>, std::allocator<char> >({STRING} const&, int)",
            "bool std::operator< <…>(std::string const&, int)",
        ),
        (
            "std::basic_ostream<char, std::char_traits<char> >& std::operator<< <std::char_traits<char> >(std::basic_ostream<char, std::char_traits<char> >&, char const*)",
            "std::basic_ostream<…>& std::operator<< <…>(…)",
        ),
        (
            "main::{lambda(std::vector<int, std::allocator<int> > const&, int)#1}::operator()(std::vector<int, std::allocator<int> > const&, int) const",
            "main::{lambda(…)#1}::operator()(…) const",
        ),
        (
            "ns::Foo<(1>>2), (a<b), ((x->y)>3), int, int, int, int, int, int, int>::operator->() const",
            "ns::Foo<…>::operator->() const",
        ),
        (
            "ns::Foo<int, int, int, int, int, int, int, int, int, int>::operator std::vector<int, long>() const",
            "ns::Foo<…>::operator std::vector<…>() const",
        ),
        (
            "void (*ns::factory<std::vector<int, std::allocator<int> >, long long>(int, char))(std::vector<int, std::allocator<int> >, int, int)",
            "void (*ns::factory<…>(int, char))(std::vector<…>, int, int)",
        ),
        (
            "void (*ns::long_factory_name_that_is_long<std::vector<int>, long long>(int, char))(int, short, std::vector<int, std::allocator<int> >)",
            "void (*ns::long_factory_name_that_is_long<…>(…))(…)",
        ),
        (
            "ns::f(decltype(nullptr), void (*)(int, char), int (ns::C::*)(double) const, int (&) [3])::local::operator()()",
            "ns::f(…)::local::operator()()",
        ),
        (
            "decltype (({parm#1}.foo)((std::forward<int>)({parm#2}))) ns::call<Foo, std::vector<int, std::allocator<int> > >(Foo&&, int&&)",
            "decltype (…) ns::call<…>(…)",
        ),
        (
            "<alloc::vec::Vec<alloc::string::String> as core::iter::traits::collect::FromIterator<alloc::string::String>>::from_iter::<core::iter::Map<I, F>>",
            "<alloc::vec::Vec<…> as core::iter::traits::collect::FromIterator<…>>::from_iter::<…>",
        ),
        (
            "core::fmt::num::<impl core::fmt::Display for alloc::vec::Vec<u32, alloc::alloc::Global>>::fmt::{{closure}}",
            "core::fmt::num::<impl core::fmt::Display for alloc::vec::Vec<…>>::fmt::{{closure}}",
        ),
        ("broken::" + "x" * 60 + "<int>>(", "broken::" + "x" * 60 + "<int>>("),
        ("ns::" + "x" * 60 + "<>()", "ns::" + "x" * 60 + "<>()"),
    ],
)
def test_a_short_name_keeps_what_tells_functions_apart(text: str, short: str) -> None:
    assert shorten(text) == short


def test_names_of_other_languages_are_not_shortened() -> None:
    name = "LazyCompile:~(anonymous) /srv/application/node_modules/left/index.js:12:5 and so on"
    assert demangle(name, Style.SHORT) == name


def _innermost(text: str) -> str:
    """Return the last identifier before the last parameter list, found by taking away whole brackets."""
    text = OPERATOR.sub("operator", text.replace("(anonymous namespace)", "anonymous").replace("->", ""))
    while (less := re.sub(r"<[^<>(){}]*>|\([^()<>{}]*\)|\{[^{}<>()]*\}", "", text)) != text:
        text = less
    found = re.search(r"~?\w+", text.rpartition("::")[2])
    return found[0] if found else ""


def _pairs(text: str) -> bool:
    text = OPERATOR.sub("", text).replace("->", "")
    while (less := re.sub(r"<[^<>(){}]*>|\([^(){}]*\)|\{[^{}()]*\}", "", text)) != text:
        text = less
    return not set(text) & set("<>(){}")


@pytest.fixture(scope="module")
def library_names() -> list[str]:
    """Return the C++ names that libstdc++ exports; every program in C++ has it mapped."""
    maps = "import ctypes; ctypes.CDLL('libstdc++.so.6'); print(open('/proc/self/maps').read())"
    text = subprocess.run([sys.executable, "-c", maps], check=True, capture_output=True, text=True).stdout
    path = next(line.split()[-1] for line in text.splitlines() if "libstdc++" in line)
    assert Path(path).exists()
    out = subprocess.run(["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    return sorted({line.split()[-1].partition("@")[0] for line in out.splitlines() if " _Z" in line})


def test_every_short_name_of_a_real_library_is_whole_and_names_the_same_function(library_names: list[str]) -> None:
    assert len(library_names) > 2000
    unread = 0
    for name in library_names:
        full, short = demangle(name), demangle(name, Style.SHORT)
        unread += full == name
        assert 0 < len(short) <= len(full)
        assert _pairs(short), (full, short)
        assert shorten(short) == short
        identifier = _innermost(_without_abi(full))
        assert re.search(rf"(?<!\w){re.escape(identifier)}(?!\w)", short), (full, short, identifier)
    assert unread < 5


def _without_abi(full: str) -> str:
    """Return the full name with the spellings of strings that a short name always has."""
    return re.sub(r"\[abi:\w+\]", "", full).replace(STRING, "std::string")


def test_a_short_name_of_a_real_library_is_mostly_readable(library_names: list[str]) -> None:
    long = sum(len(demangle(name, Style.SHORT)) > READABLE for name in library_names)
    assert long < sum(len(demangle(name)) > READABLE for name in library_names) / 3


def _growing_cpp(levels: int) -> str:
    """Return a name of which each part has the part before it twice: t<t<t<int, int>, t<int, int>>, …>."""
    return "_Z1f1tIiiE" + "".join(f"S_I{f'S{digit}_' * 2}E" for digit in DIGITS[:levels])


def _growing_rust(levels: int) -> str:
    """Return the same in Rust's words: tuples that have the tuple before them twice, by its place in the name."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    name, before = "INvC1a1bTllE", 8
    for _ in range(levels):
        number = before - 1
        word = (digits[number // 62] if number >= 62 else "") + digits[number % 62]
        name, before = f"{name}TB{word}_B{word}_E", len(name)
    return f"_R{name}E"


@pytest.mark.parametrize("name", ["_Z1fIDndcDTsrsZDTDTdcDnS1_", "_Z1fIXsr1aDEEvv", "_Z1fDTsrv1D", "_Z1cIXsrcpD", "_Z1fDOsrsrD"])
def test_an_invalid_name_on_which_libstdcpp_never_ends_comes_back(name: str) -> None:
    assert demangle(name) == name


@pytest.mark.parametrize("make", [_growing_cpp, _growing_rust])
def test_a_name_that_grows_without_end_takes_no_time(make: Callable[[int], str]) -> None:
    assert demangle(make(2)) != make(2)
    started = time.monotonic()
    for levels in range(3, 36):
        for style in Style:
            assert 0 < len(demangle(make(levels), style)) <= LONGEST
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "name",
    [
        "_ZN" + "1a" * 500_000 + "E",
        "_ZN" + "1a" * 32_000 + "E",
        "_Z1f" + "P" * 60_000 + "i",
        "_Z1f" + "I1aI" * 15_000,
        "_Z1f" + "PF" * 16_000 + "v" + "E" * 16_000,
        "_Z1f" + "1aI" * 16_000 + "v" + "E" * 16_000,
        "_Z1f" + "S_" * 30_000,
        "_R" + "INvC1a1b" * 3_000 + "E" * 3_000,
        "_D3foo3barF" + "PF" * 20_000,
        "$s4main3foo" + "Say" * 15_000,
    ],
    ids=range(10),
)
def test_deep_and_huge_names_end_soon_in_any_thread(name: str) -> None:
    shown: list[str] = []
    thread = threading.Thread(target=lambda: shown.extend(demangle(name, style) for style in Style))
    started = time.monotonic()
    thread.start()
    thread.join(10)
    assert len(shown) == 3
    assert time.monotonic() - started < 2
    assert all(0 < len(text) <= LONGEST for text in shown)
    assert len(name) <= LONGEST or all(text.endswith("…") for text in shown)


@given(st.sampled_from(["_Z", "_ZN", "_R", "_RNv", "$s", "_D3", ""]), st.text(max_size=40), st.sampled_from(Style))
def test_any_name_gives_printable_text(prefix: str, text: str, style: Style) -> None:
    shown = demangle(prefix + text, style)
    assert "\x1b" not in shown
    assert "\n" not in shown


CPP_WORDS = ["S_", "S0_", "S1_", "T_", "T0_", "cv", "cvT_", "I", "E", "N", "1a", "1f", "i", "P", "K", "F", "v", "J", "Dp", "DT", "sr", "St", "Ss", "UlvE_", "Ut_", "L_Z", "X", "Z", "Li5E", "A5_", "B5cxx11", "C1"]
RUST_WORDS = ["B_", "B2_", "B5_", "I", "E", "N", "v", "C", "1a", "M", "X", "T", "F", "K", "R", "D", "L_", "p", "G_", "s_", "A", "S", "j", "Kj1_", "Y", "NtC1a1b"]


@settings(deadline=2000, max_examples=300)
@given(
    st.one_of(
        st.lists(st.sampled_from(CPP_WORDS), max_size=60).map(lambda words: "_Z1f" + "".join(words)),
        st.lists(st.sampled_from(RUST_WORDS), max_size=60).map(lambda words: "_RINv" + "".join(words)),
    )
)
def test_a_name_of_random_words_neither_hangs_nor_ends_the_process(name: str) -> None:
    full, short = demangle(name), demangle(name, Style.SHORT)
    assert 0 < len(short) <= len(full)


@given(st.text(alphabet="<>(){}[]*&-: aoperator,", min_size=1, max_size=200))
def test_any_text_can_be_shortened_again_without_a_change(text: str) -> None:
    short = shorten(text)
    assert 0 < len(short) <= len(text)
    assert shorten(short) == short
