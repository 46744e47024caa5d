import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.choices import GroupBy, Style
from symbolizer.demangle import demangle
from symbolizer.frame import Frame, Why
from symbolizer.grouping import LONGEST_CYCLE, drop_allocator_frames, fold_recursion, key

USER = Frame(0x9000, "work", 4, "/usr/bin/x", "ab", "x.c", 7)
STOPPED = Frame(0x9000, why=Why.UNWIND_STOPPED)


def _stack(names: str) -> tuple[Frame, ...]:
    """Return a frame for each word; equal words are the same call at another address."""
    return tuple(
        Frame(0x1000 + place, name, 1, "/usr/bin/x", "ab", "x.c", len(name)) for place, name in enumerate(names.split())
    )


def _shown(frames: tuple[Frame, ...]) -> str:
    return " ".join(f"{frame.function}×{frame.repeats}" if frame.repeats > 1 else str(frame.function) for frame in frames)


@pytest.mark.parametrize(
    "name",
    [
        "malloc",
        "malloc@plt",
        "calloc",
        "posix_memalign",
        "__libc_malloc",
        "__GI___libc_malloc",
        "_int_malloc",
        "_int_malloc [.constprop.0]",
        "sysmalloc",
        "__interceptor_malloc",
        "je_malloc",
        "je_arena_malloc_hard",
        "tc_newarray",
        "tcmalloc::allocate_full_cpp_throw_oom(unsigned long)",
        "void* tcmalloc::dispatch_allocate_full<&tcmalloc::malloc_oom>(unsigned long)",
        "(anonymous namespace)::do_malloc_pages(tcmalloc::ThreadCache*, unsigned long)",
        "mi_malloc",
        "_mi_malloc_generic",
        "mi_heap_malloc_zero_aligned_at",
        "operator new(…)@plt",
        "std::_Vector_base<…>::_M_allocate(unsigned long)",
        "std::__1::allocator<int>::allocate[abi:v160006](unsigned long)",
        "__rust_alloc",
        "__rustc::__rust_alloc",
        "__rdl_realloc",
        "__rg_alloc_zeroed",
        "alloc::alloc::exchange_malloc",
        "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
        "<tikv_jemallocator::Jemalloc as core::alloc::global::GlobalAlloc>::alloc",
        "<alloc::raw_vec::RawVec<u8>>::grow_one",
        "alloc::raw_vec::RawVec<T,A>::reserve::do_reserve_and_handle",
        "__kmalloc_node",
        "kmem_cache_alloc",
        "__alloc_pages",
    ],
)
def test_the_allocator_and_what_only_leads_to_it_go(name: str) -> None:
    assert drop_allocator_frames((Frame(1, name), USER)) == (USER,)


@pytest.mark.parametrize(
    "name",
    [
        "_Znwm",
        "_ZnamRKSt9nothrow_t",
        "_ZnwmSt11align_val_tRKSt9nothrow_t",
        "_ZNSaIiE8allocateEm",
        "_ZNSt15__new_allocatorIiE8allocateEmPKv",
        "_ZN9__gnu_cxx13new_allocatorIiE8allocateEmPKv",
        "_ZNSt16allocator_traitsISaIiEE8allocateERS0_m",
        "_ZNSt12_Vector_baseIiSaIiEE11_M_allocateEm",
        "_ZNSt7__cxx1110_List_baseI1TSaIS1_EE11_M_get_nodeEv",
        "_RNvCshV8Qw_7___rustc12___rust_alloc",
    ],
)
def test_the_style_of_names_makes_no_difference(name: str) -> None:
    for style in Style:
        assert drop_allocator_frames((Frame(1, demangle(name, style)), USER)) == (USER,), demangle(name, style)


@pytest.mark.parametrize(
    "name",
    [
        "g_malloc",
        "xmalloc",
        "my_malloc",
        "PyMem_Malloc",
        "_PyObject_Malloc",
        "strdup",
        "getline",
        "__libc_start_main",
        "__libc_start_call_main",
        "Arena::operator new(unsigned long)",
        "Pool::allocate(unsigned long)",
        "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >::_M_create(unsigned long&, unsigned long)",
        "void std::vector<T, std::allocator<T> >::_M_realloc_insert<T>(T&&)",
        "std::vector<T, std::allocator<T> >::reserve(unsigned long)",
        "std::allocator<int>::deallocate(int*, unsigned long)",
        "alloc::vec::Vec<T,A>::push",
        "alloc::boxed::Box<T>::new",
        "<alloc::string::String as core::clone::Clone>::clone",
        "mi_open",
        "main",
    ],
)
def test_what_a_reader_looks_for_stays(name: str) -> None:
    frames = (Frame(1, "malloc"), Frame(2, name), USER)
    assert drop_allocator_frames(frames) == frames[1:]


def test_only_the_innermost_frames_go() -> None:
    frames = (Frame(1, "_int_malloc"), Frame(2, "malloc"), USER, Frame(3, "malloc"), Frame(4, "main"))
    assert drop_allocator_frames(frames) == frames[2:]


def test_a_frame_without_a_name_ends_the_allocator() -> None:
    frames = (Frame(1, "malloc"), Frame(2, why=Why.NO_SYMBOLS), Frame(3, "malloc"))
    assert drop_allocator_frames(frames) == frames[1:]


@pytest.mark.parametrize("frames", [(), (Frame(1, "malloc"),), (Frame(1, "malloc"), STOPPED)])
def test_a_stack_of_nothing_else_stays_whole(frames: tuple[Frame, ...]) -> None:
    assert drop_allocator_frames(frames) == frames


@pytest.mark.parametrize(
    "name", ["std::allocator<" + "a<" * 40_000, "void* " * 20_000, "<a> as core::alloc::Alloc" * 160, "std::_X<" + ">::_M_allocate(" * 280]
)
def test_no_name_takes_long_to_compare(name: str) -> None:
    started = time.process_time()
    drop_allocator_frames((Frame(1, name), USER))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("stack", "folded"),
    [
        ("", ""),
        ("a b main", "a b main"),
        ("walk walk walk main", "walk×3 main"),
        ("leaf even odd even odd even odd main", "leaf even odd×3 main"),
        ("even odd even main", "even odd even main"),
        ("even odd even odd even main", "even odd×2 even main"),
        ("a a b a a b main", "a a b×2 main"),
        ("a a b b main", "a×2 b×2 main"),
        ("x a x b main", "x a x b main"),
        ("a b c d e f g h a b c d e f g h", "a b c d e f g h×2"),
        ("a b c d e f g h i a b c d e f g h i", "a b c d e f g h i a b c d e f g h i"),
    ],
)
def test_a_cycle_of_calls_is_shown_once_with_its_number(stack: str, folded: str) -> None:
    assert _shown(fold_recursion(_stack(stack))) == folded


def test_the_innermost_turn_is_the_one_that_stays() -> None:
    assert fold_recursion(_stack("even odd even odd main"))[0].address == 0x1000


@pytest.mark.parametrize("field", ["function", "module", "file", "line", "inlined"])
def test_calls_that_differ_are_no_recursion(field: str) -> None:
    other = replace(USER, **{field: {"line": 8, "inlined": True}.get(field, "other")})  # type: ignore[arg-type]  # as above
    assert fold_recursion((USER, other)) == (USER, other)


def test_recursion_by_function_does_not_look_at_the_line() -> None:
    other = replace(USER, line=8, inlined=True, address=1)
    assert fold_recursion((USER, other), GroupBy.FUNCTION) == (replace(USER, repeats=2),)
    assert fold_recursion((USER, replace(USER, address=1)), GroupBy.ADDRESS) == (USER, replace(USER, address=1))


def test_frames_without_a_name_are_compared_by_address() -> None:
    one, two = (Frame(address, module="/x", why=Why.NO_SYMBOLS) for address in (1, 2))
    assert fold_recursion((one, one, two)) == (replace(one, repeats=2), two)


def test_folding_again_multiplies_nothing_and_loses_nothing() -> None:
    folded = fold_recursion(_stack("walk walk walk main"))
    assert fold_recursion(folded) == folded
    assert fold_recursion((*folded[:1], *folded))[0].repeats >= 6


def _unfolded(frames: tuple[Frame, ...], original: str) -> None:
    """Check that a folded stack has the original's calls in the original's order and leaves none out unsaid."""
    assert sum(frame.repeats > 1 for frame in frames) <= len(frames) <= len(original)
    if len(frames) < len(original):
        assert any(frame.repeats > 1 for frame in frames)
    assert set(frames[at].function for at in range(len(frames))) == set(original)


@given(st.text(alphabet="abc", max_size=127))
def test_folding_any_stack_keeps_every_function(original: str) -> None:
    frames = fold_recursion(_stack(" ".join(original)))
    _unfolded(frames, original)
    assert fold_recursion(_stack(" ".join(original))) == frames


@pytest.mark.parametrize("unit", ["a", "ab", "abacabad", "aab", "abcdefghi", "aaaaaaab"])
def test_folding_takes_time_in_proportion_to_the_stack(unit: str) -> None:
    def seconds(frames: int) -> float:
        stack = _stack(" ".join((unit * frames)[:frames]))
        started = time.process_time()
        fold_recursion(stack)
        return time.process_time() - started

    assert seconds(20_000) < 1
    assert min(seconds(127) for _ in range(5)) < 0.005
    assert LONGEST_CYCLE == 8


def test_stacks_of_other_recursion_depth_are_one_site_except_by_address() -> None:
    shallow, deep = (fold_recursion(_stack(f"leaf {'walk ' * depth}main")) for depth in (2, 5))
    once = _stack("leaf walk main")
    assert key(shallow) == key(deep) == key(once)
    assert key(shallow, GroupBy.FUNCTION) == key(deep, GroupBy.FUNCTION)
    same_place = tuple(replace(frame, repeats=1) for frame in shallow)
    assert key(shallow, GroupBy.ADDRESS) != key(same_place, GroupBy.ADDRESS)


@pytest.mark.parametrize(
    ("field", "value", "apart"),
    [
        ("address", 0x9999, {GroupBy.ADDRESS}),
        ("offset", 99, set()),
        ("build_id", "cd", set()),
        ("line", 8, {GroupBy.LINE}),
        ("file", "y.c", {GroupBy.LINE}),
        ("inlined", True, {GroupBy.LINE, GroupBy.ADDRESS}),
        ("function", "other", {GroupBy.FUNCTION, GroupBy.LINE, GroupBy.ADDRESS}),
        ("module", "/other", {GroupBy.FUNCTION, GroupBy.LINE, GroupBy.ADDRESS}),
        ("repeats", 3, {GroupBy.ADDRESS}),
    ],
)
def test_a_site_is_told_from_another_by_what_was_asked_for(field: str, value: object, apart: set[GroupBy]) -> None:
    other = replace(USER, **{field: value})  # type: ignore[arg-type]  # the table's own values
    assert {by for by in GroupBy if key((USER,), by) != key((other,), by)} == apart


@pytest.mark.parametrize("by", GroupBy)
def test_frames_without_a_function_are_told_apart_by_module_and_address(by: GroupBy) -> None:
    frames = [Frame(1, module="/a", why=Why.NO_SYMBOLS), Frame(2, module="/a", why=Why.NO_SYMBOLS), Frame(1, module="/b", why=Why.GONE)]
    assert len({key((frame,), by) for frame in frames}) == 3


def test_where_the_walk_stopped_is_no_second_reason_to_part_sites() -> None:
    stacks = [(replace(USER, address=address), Frame(address, why=Why.UNWIND_STOPPED)) for address in (1, 2)]
    assert key(stacks[0]) == key(stacks[1])
    assert key(stacks[0]) != key(stacks[0][:1])
    assert key(stacks[0], GroupBy.ADDRESS) != key(stacks[1], GroupBy.ADDRESS)


def test_a_key_can_stand_in_a_table() -> None:
    for by in GroupBy:
        assert len({key((USER, STOPPED), by), key((USER, STOPPED), by)}) == 1
