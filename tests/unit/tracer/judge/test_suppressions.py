"""Suppression files of LeakSanitizer and valgrind mean here what they mean there."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from tracer.errors import ExitCode, UsageError
from tracer.judge.suppressions import LONGEST_LINE, MOST_LINES, Suppressions, Use, parse, print_suppression

APP = "/srv/app/bin/server"
LIB = "/usr/lib/libparser.so.3"


def stack(*functions: str | None, module: str = APP) -> tuple[Frame, ...]:
    """Return frames, innermost first, of these functions."""
    return tuple(Frame(0x1000 + index, function, 0, module, why=None if function else Why.NO_SYMBOLS)
                 for index, function in enumerate(functions))


def entry(*lines: str) -> str:
    """Return one entry of valgrind's for a leak."""
    return "{\n  name\n  Memcheck:Leak\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def silences(text: str, frames: tuple[Frame, ...]) -> bool:
    return Suppressions(parse(text, "x.supp")).match(frames) is not None


# --- LeakSanitizer


@pytest.mark.parametrize(("pattern", "found"), [
    ("make_node", True), ("^read_all(int)$", True), ("libparser", True), ("/deep/node.c", True), ("^node.c", False),
    ("cache", False), ("<unknown module>", True),
])
def test_leak_sanitizer_looks_at_every_frame(pattern: str, found: bool) -> None:
    """Function, module or source file of any frame, an inlined or nameless one too; clone suffixes are no part of it."""
    frames = (Frame(1, "make_node", 3, LIB, file="/src/deep/node.c", line=3, inlined=True),
              Frame(2, "read_all(int) [.cold]", 3, APP), Frame(3, why=Why.UNMAPPED))
    assert silences(f"leak:{pattern}\n", frames) is found


def test_leak_sanitizer_file() -> None:
    """Comments, blanks around lines and carriage returns are no part of a pattern; names and lines are kept."""
    found = parse("\ufeff# known\r\n\r\n  leak:foo bar \t\r\n\t# more\nleak:^x$", "a.supp")
    assert [(each.name, each.place) for each in found] == [("foo bar", "a.supp:3"), ("^x$", "a.supp:5")]
    assert parse("", "e.supp") == () == parse("# nothing\n\n", "e.supp")


@pytest.mark.parametrize("line", ["race:foo", "vptr:x", "foo", "leak", "leak foo", "Leak:foo", "leak:", "leak:^", "leak:$", "}", "{"])
def test_leak_sanitizer_bad_line(line: str) -> None:
    """The first bad line is named with its file and number, and what is expected; an empty pattern is one."""
    with pytest.raises(UsageError) as raised:
        parse(f"leak:good\n# comment\n{line}\nrace:later\n", "a.supp")
    assert raised.value.exit_code is ExitCode.USAGE
    assert "a.supp:3" in raised.value.message and "leak:" in raised.value.remedy


# --- valgrind


@pytest.mark.parametrize(("lines", "found"), [
    (("fun:malloc", "fun:a", "fun:b", "fun:main"), True),
    (("fun:malloc", "fun:a"), True),
    (("fun:malloc", "fun:b"), False),
    (("fun:malloc", "fun:a", "fun:main"), False),
    (("fun:malloc", "fun:a", "...", "fun:main"), True),
    (("fun:malloc", "...", "fun:a", "...", "fun:b", "...", "fun:main", "..."), True),
    (("...", "fun:b"), True),
    (("...", "fun:main", "fun:b"), False),
    (("...", "fun:malloc", "...", "fun:b"), True),
    (("fun:malloc", "fun:a", "fun:b", "fun:main", "fun:more"), False),
    (("fun:malloc", "fun:a", "fun:b", "fun:main", "...", "fun:more"), False),
    (("fun:malloc", "obj:*/server", "obj:/srv/*"), True),
    (("fun:malloc", "obj:server"), False),
    (("fun:malloc", "fun:?", "fun:*", "fun:m?in"), True),
])
def test_valgrind_stack(lines: tuple[str, ...], found: bool) -> None:
    """An entry is what a stack begins with, frame by frame; `...` is any number of frames, none too."""
    assert silences(entry(*lines), stack("a", "b", "main")) is found


def as_valgrind(lines: tuple[str, ...], functions: tuple[str, ...]) -> bool:
    """Whether lines match a prefix of functions, by the recursive definition in valgrind's m_seqmatch.c."""
    if not lines:
        return True
    if lines[0] == "...":
        return as_valgrind(lines[1:], functions) or (bool(functions) and as_valgrind(lines, functions[1:]))
    return bool(functions) and fnmatchcase(functions[0], lines[0][4:]) and as_valgrind(lines[1:], functions[1:])


@given(st.lists(st.sampled_from(["...", "fun:a", "fun:b", "fun:*"]), max_size=6).map(tuple), st.lists(st.sampled_from("ab"), min_size=1, max_size=6).map(tuple))
def test_valgrind_stack_agrees_with_its_definition(lines: tuple[str, ...], functions: tuple[str, ...]) -> None:
    """An entry that begins with the allocator, or with `...`, matches whatever valgrind's own definition says."""
    for first in ("fun:malloc", "..."):
        if any(line != "..." for line in lines):
            assert silences(entry(first, *lines), stack(*functions)) is as_valgrind((first, *lines), ("malloc", *functions))


@pytest.mark.parametrize("first", ["malloc", "calloc", "_Znwm", "_Znam", "_Zn*", "*alloc", "_ZnwmSt11align_val_t", "operator new(unsigned long)", "*"])
def test_the_allocator_is_not_on_the_stack(first: str) -> None:
    """A first line that is the allocator stands for no frame: leaktrace's stacks begin at its caller."""
    assert silences(entry(f"fun:{first}", "fun:a"), stack("a", "b"))
    assert not silences(entry(f"fun:{first}", "fun:b"), stack("a", "b"))


def test_allocators_of_valgrind_and_of_the_stack() -> None:
    """Its object and its own caller count as the allocator; allocators that a raw stack shows are passed over."""
    assert silences(entry("obj:*/vgpreload_memcheck*", "fun:a"), stack("a"))
    assert silences(entry("fun:malloc", "fun:_Znwm", "fun:a"), stack("a"))
    assert silences(entry("fun:_Znwm", "fun:a"), stack("malloc", "operator new(unsigned long)", "a"))
    assert silences(entry("fun:a"), stack("a"))
    assert not silences(entry("fun:a"), stack("b", "a"))


@pytest.mark.parametrize("lines", [("fun:malloc",), ("fun:*alloc",), ("...", "fun:calloc", "..."), ("fun:malloc", "fun:_Znwm")])
def test_an_allocator_alone_silences_nothing(lines: tuple[str, ...]) -> None:
    """An entry that names only the allocator would silence everything, as stacks do not tell which it was."""
    assert not silences(entry(*lines), stack("a", "b"))
    assert silences(entry("fun:*"), stack("a", "b"))


def test_one_star_is_one_frame() -> None:
    """`fun:*` is the allocator or one more frame, never both."""
    assert silences(entry("fun:*", "fun:*", "fun:b"), stack("a", "b"))
    assert not silences(entry("fun:*", "fun:*", "fun:b"), stack("b"))
    assert not silences(entry("fun:malloc", "fun:*", "fun:b"), stack("b"))
    assert not silences(entry("fun:*", "fun:malloc", "fun:b"), stack("b"))


@pytest.mark.parametrize(("pattern", "name", "found"), [
    ("_ZN9QListView4showEv", "QListView::show()", True),
    ("_ZN9QListView4showEv", "QListView::show() [.cold]", True),
    ("_ZN9QListView4showEv", "QListView::show(int)", False),
    ("QListView::show()", "QListView::show() [.cold]", True),
    ("_ZN3Foo3barEv", "_ZN3Foo3barEv", True),
    ("_ZN3Foo*", "Foo::bar(int)", True),
    ("_ZN3Foo*", "Foot::bar(int)", False),
    ("_ZN3Foo*", "g(int, Foo::bar)", False),
    ("_ZN3Foo3bar*", "void Foo::bar<int>(int)", True),
    ("_ZN3Foo3bar*", "Foo::barn(int)", False),
    ("_ZN3Foo3barE*", "Foo::bar(int, long)", True),
    ("_ZN3Foo3barE*", "Foo::bar::inner(int)", False),
    ("_ZN3FooC1E*", "Foo::Foo(int)", True),
    ("_ZN3FooD*", "Foo::bar(int)", False),
    ("_ZN3FooD2*", "Foo::~Foo()", True),
    ("_ZNSt6vectorI*", "std::vector<int, std::allocator<int> >::reserve(unsigned long)", True),
    ("_ZN12_GLOBAL__N_13runE*", "(anonymous namespace)::run(int)", True),
    ("_Z3foo*", "foo(int)", True),
    ("_ZN3Foo5ba*", "Foo::baker()", True),
    ("_ZN3Foo5ba*", "Foo::bar()", False),
    ("_ZN3FooEPK*", "Foo::bar()", False),
    ("malloc_hook@@GLIBC_2.2.5", "malloc_hook", True),
])
def test_mangled_names(pattern: str, name: str, found: bool) -> None:
    """valgrind's files have mangled names and frames demangled ones; what can be read of a wildcard is compared."""
    assert silences(entry("fun:malloc", f"fun:{pattern}"), stack(name)) is found


def test_source_lines() -> None:
    """src: compares the file's base name or path, and the line where one is given."""
    frames = (Frame(1, "a", 0, APP, file="/src/node.c", line=7),)
    assert all(silences(entry(line), frames) for line in ("src:node.c", "src:node.c:7", "src:/src/*.c:7"))
    assert not any(silences(entry(line), frames) for line in ("src:node.c:8", "src:ode.c", "src:*/other.c"))
    assert not silences(entry("src:*"), stack("a"))


def test_folded_recursion() -> None:
    """valgrind shows each call of a function that calls itself; a folded frame stands for several lines."""
    folded = (Frame(1, "walk", repeats=3), Frame(2, "main"))
    assert silences(entry("fun:malloc", "fun:walk", "fun:walk", "fun:walk", "fun:main"), folded)
    assert not silences(entry("fun:malloc", "fun:walk", "fun:walk", "fun:main"), stack("walk", "main"))


def test_nameless_frames() -> None:
    """valgrind's ??? is a frame without a name, or without a file."""
    assert silences(entry("fun:malloc", "fun:???", "fun:main"), stack(None, "main"))
    assert silences(entry("obj:???"), (Frame(1, why=Why.UNMAPPED),))
    assert not silences(entry("obj:???"), stack(None))


def test_other_errors_are_skipped() -> None:
    """Entries for other tools and other errors are valid, never match, are counted and are not unused."""
    text = ("{\n a\n Memcheck:Cond\n fun:a\n}\n{\n b\n Memcheck:Param\n write(buf)\n fun:a\n}\n{\n c\n Helgrind:Race\n anything\n}\n"
            "{\n d\n Helgrind,Memcheck:Leak\n match-leak-kinds: none\n fun:a\n}\n")
    found = Suppressions(parse(text, "v.supp"))
    assert found.match(stack("a")) is None
    assert (found.skipped, found.unused) == (4, ())


@pytest.mark.parametrize("kinds", ["all", "definite", "reachable,possible"])
def test_kinds_of_leaks(kinds: str) -> None:
    """Whichever kinds an entry is for, it matches: a block counts because it is live, whatever points to it."""
    assert silences(entry(f"match-leak-kinds: {kinds}", "fun:malloc", "fun:a"), stack("a"))


@pytest.mark.parametrize(("text", "line", "expected"), [
    (entry("fun:a") + "fun:b\n", 6, "{"),
    ("{\n}\n", 2, "name"),
    ("{\n a\n Memcheck\n fun:a\n}", 3, "Memcheck:Leak"),
    ("{\n a\n Memcheck:leak\n fun:a\n}", 3, "Memcheck:Leak"),
    (entry("fun:a", "sun:b"), 5, "fun:NAME"),
    (entry("fun:a", "match-leak-kinds: all"), 5, "fun:NAME"),
    (entry("match-leak-kinds: lost", "fun:a"), 4, "definite"),
    (entry("src:a.c:x"), 4, "line number"),
    (entry("...", "..."), 6, "not `...`"),
    (entry(), 4, "not `...`"),
    (entry("fun:a").rstrip("}\n"), 4, "}"),
    ("{\n a\n Other:Thing\n fun:a\n", 5, "}"),
    (entry(*["fun:a"] * (MOST_LINES + 1)), MOST_LINES + 4, str(MOST_LINES)),
    ("leak:" + "x" * LONGEST_LINE, 1, str(LONGEST_LINE)),
    ("{ name\n", 1, "{ on a line"),
])
def test_valgrind_bad_line(text: str, line: int, expected: str) -> None:
    """The first bad line is named with its file and number, and what is expected there."""
    with pytest.raises(UsageError) as raised:
        parse(text, "v.supp")
    assert f"v.supp:{line}:" in raised.value.message and expected in raised.value.remedy


@given(st.text(max_size=300) | st.lists(st.sampled_from(["{", "}", "a", "Memcheck:Leak", "...", "fun:*", "src:x:1", "leak:x", "match-leak-kinds: all"])).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way."""
    try:
        Suppressions(parse(text, "any")).match(stack("a"))
    except UsageError as error:
        assert "any:" in error.message


def test_matching_takes_no_exponential_time() -> None:
    """Neither many `...` nor many `*` cost more than lines times frames."""
    deep = stack(*["a" * 200] * 500)
    begun = time.process_time()
    assert not silences(entry(*["...", "fun:a*"] * 249, "fun:b"), deep)
    assert not silences(f"leak:{'a*' * 40}b$\n", deep)
    assert not silences(entry(f"fun:{'*a?' * 40}b"), deep)
    assert time.process_time() - begun < 5


# --- what a run does with them


def test_the_first_match_is_counted() -> None:
    """Each site goes to the first entry that matches; sites, blocks and bytes are summed; the rest is unused."""
    entries = [*parse("leak:^a$\nleak:^b$\nleak:never", "one.supp"), *parse(entry("fun:b"), "two.supp")]
    suppressions = Suppressions(entries)
    for frames, blocks, size in ((stack("a", "b"), 2, 20), (stack("b"), 3, 30), (stack("a"), 1, 5)):
        found = suppressions.match(frames)
        assert found is not None
        suppressions.record(found, blocks, size)
    assert {each.place: use for each, use in suppressions.used.items()} == {
        "one.supp:1": Use(2, 3, 25), "one.supp:2": Use(1, 3, 30)}
    assert [each.place for each in suppressions.unused] == ["one.supp:3", "two.supp:2"]


# --- printing

NAMES = st.text(max_size=12) | st.text("*?{}#: \n\t.ab<>()", max_size=8) | st.sampled_from(
    ["f(char*)", "...", "malloc", "operator new(unsigned long)", "_ZN3FooEv", "}", "???", "", "x" * 5000])
FRAMES = st.lists(st.builds(
    Frame, st.integers(0, 9), function=st.none() | NAMES, module=st.none() | NAMES, inlined=st.booleans(), repeats=st.integers(1, 3),
), max_size=8).map(tuple)


@given(FRAMES, st.text(max_size=20))
def test_a_printed_suppression_silences_its_site(frames: tuple[Frame, ...], name: str) -> None:
    """Whatever is in the names, pasting what was printed silences the site, below others in one file too."""
    text = print_suppression(frames, name)
    found = parse(text + text, "printed")
    assert Suppressions(found).match(frames) is found[0]
    assert Suppressions(found[1:]).match(frames) is found[1]


PLAIN = st.lists(st.sampled_from(["a", "b", "main", "f(int)"]), min_size=1, max_size=6).map(tuple)


@given(PLAIN, PLAIN)
def test_a_printed_suppression_silences_no_other_site(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Another stack is not silenced, unless it is the same and goes on."""
    assert silences(print_suppression(stack(*one), "x"), stack(*other)) is (other[: len(one)] == one)


@pytest.mark.parametrize(("one", "other"), [("f(char*)", "f(char, int)"), ("f(char*)", "f(char**)"), ("g?", "g"), ("malloc", "a")])
def test_wildcards_in_names_stay_narrow(one: str, other: str) -> None:
    """A name's own `*` does not become any text, and an allocator on top does not become anything."""
    assert not silences(print_suppression(stack(one), "x"), stack(other))


def test_the_printed_form() -> None:
    """The form is valgrind's, and `fun:*` is the allocator."""
    frames = (*stack("f(char*)"), *stack(None, module=LIB), Frame(9, why=Why.UNWIND_STOPPED))
    assert print_suppression(frames, "site 1") == (
        "{\n   site 1\n   Memcheck:Leak\n   fun:*\n   fun:f(char?)\n   obj:/usr/lib/libparser.so.3\n   obj:???\n}\n")
