"""A trace's tables against the kernel's own books: what is compared with what, between which moments, and where there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.test_kernel_sites import SITES, FakeProgram
from tracer.attach.alloc_info import TaggedSite
from tracer.attach.kmemleak import LeakFrame, Unreferenced
from tracer.cli import kernel
from tracer.collect.kernel_records import KERNEL_CHARGED, Source
from tracer.errors import CannotTrace, UsageError
from tracer.kernel_books import Books, find_books, read_jiffies
from tracer.kernel_cross import BookCheck
from tracer.kernel_names import KernelNames, NamedStack
from tracer.report.cross_model import CrossNote, CrossOnly, CrossRow

SERVES_SLAB, SERVES_VMALLOC, NAMELESS = 100, 200, 300
ALL = ("slab", "pages", "percpu", "vmalloc")


class FakeNames:
    """Names a stack by its first address; those from 100 on serve slabs, from 200 on vmalloc, from 300 on nothing has a name."""

    def stack(self, addresses: np.ndarray) -> NamedStack:
        number = int(addresses[0])
        serves = {1: "slab", 2: "vmalloc"}.get(number // 100)
        name = None if number >= NAMELESS else f"f{number % 100}"
        return NamedStack((Frame(number, name), Frame(9999, "outer")), serves, number)


class Account:
    """The kernel's account, to be changed between readings; meanwhile is what happens during one."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, int]] = {}
        self.inaccurate: set[str] = set()
        self.fails = False
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> Sequence[TaggedSite]:
        if self.fails:
            raise CannotTrace("It is off.", "Switch it on.")
        self.meanwhile()
        return [TaggedSite(f"{name}.c", 1, name, None, size, number, name not in self.inaccurate)
                for name, (size, number) in self.held.items()]


class Detector:
    """kmemleak, with blocks to which nothing points."""

    def __init__(self, *blocks: Unreferenced) -> None:
        self.blocks = blocks
        self.scans: list[int] = []

    def __call__(self, scans: int) -> tuple[Unreferenced, ...]:
        self.scans.append(scans)
        return self.blocks


def lost(name: str, address: int = 1, jiffies: int = 50, size: int = 64) -> Unreferenced:
    return Unreferenced(address, size, "made", 1, jiffies, (LeakFrame("__kmalloc_noprof", 1), LeakFrame(name, 1), LeakFrame("outer", 2)))


def check(program: FakeProgram, books: Books, sources: Sequence[str] = ALL) -> BookCheck:
    """Return a comparison that has begun."""
    made = BookCheck(books, program, cast(KernelNames, FakeNames()), sources, processors=4)
    made.begin()
    return made


@pytest.fixture
def program() -> FakeProgram:
    return FakeProgram()


@pytest.fixture
def account() -> Account:
    return Account()


def place(program: FakeProgram, index: int, address: int, sizes: tuple[int, ...], freed: int = 0, **about: Any) -> None:
    program.site(index, sizes, freed, **about)
    program.stacks[index]["addresses"][0] = address


def account_of(made: BookCheck) -> CrossNote:
    (note,) = made.check()
    return note


def test_what_came_between_the_moments_is_compared(program: FakeProgram, account: Account) -> None:
    """What both sides held at the start counts on neither; the rest agrees, place included."""
    place(program, 1, 5, (64,) * 3)
    account.held = {"f5": (640, 10)}
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,) * 8, freed=1)
    account.held = {"f5": (640 + 4 * 64, 14)}
    assert account_of(made).rows == (CrossRow("f5", 256, 4, 256, 4, "agrees", ("f5.c:1",)),)


def test_sites_of_one_function_are_added_up(program: FakeProgram, account: Account) -> None:
    """Stacks whose functions have the same names are one, whatever their cache, flags and return addresses are."""
    made = check(program, Books(account=account))
    place(program, 1, 5, (64, 64))
    place(program, 2, 5, (32,), gfp=7)
    account.held = {"f5": (160, 3)}
    assert account_of(made).rows == (CrossRow("f5", 160, 3, 160, 3, "agrees", ("f5.c:1",)),)


def test_a_difference_is_one(program: FakeProgram, account: Account) -> None:
    """A function of which the kernel has more than the trace differs, and each side's own are listed."""
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,))
    place(program, 2, 6, (128,))
    place(program, 3, NAMELESS, (16,))
    account.held = {"f5": (640, 10), "g": (8, 1)}
    note = account_of(made)
    assert note.rows == (CrossRow("f5", 64, 1, 640, 10, "differs", ("f5.c:1",)),)
    assert note.only_traced == (CrossOnly("f6", 128, 1), CrossOnly(f"{NAMELESS:#x}", 16, 1))
    assert note.only_kernel == (CrossOnly("g", 8, 1),)
    assert "1 differ" in note.summary and not any("freed since" in each for each in note.notes)


@pytest.mark.parametrize(("before", "standing"), [((640, 10), "older"), ((64, 10), "differs"), ((640, 1), "differs"), ((0, 0), "differs")])
def test_blocks_from_before_explain_a_shortage(program: FakeProgram, account: Account, before: tuple[int, int], standing: str) -> None:
    """The kernel may have less by what the function held at the start, as the trace cannot count frees of that, and no more."""
    account.held = {"f5": before}
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,) * 8)
    account.held = {"f5": (before[0] + 6 * 64, before[1] + 6)}
    note = account_of(made)
    assert [row.standing for row in note.rows] == [standing]
    assert any("trace: 1 of those" in each for each in note.notes) == (standing == "older")


def test_figures_that_are_not_exact_stay_so(program: FakeProgram, account: Account) -> None:
    """What the kernel says of its own figure comes first."""
    account.held, account.inaccurate = {"f5": (640, 10)}, {"f5"}
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,))
    assert [row.standing for row in account_of(made).rows] == ["inaccurate"]


def test_pages_of_slabs_are_left_out(program: FakeProgram, account: Account) -> None:
    """Their objects are compared; pages for vmalloc are its caller's in both, where areas are not traced."""
    made = check(program, Books(account=account), ("slab", "pages"))
    place(program, 1, SERVES_SLAB + 5, (4096,), source=Source.PAGES)
    place(program, 2, SERVES_VMALLOC + 5, (4096,) * 2, source=Source.PAGES)
    place(program, 3, 5, (64,))
    account.held = {"f5": (8256, 3)}
    assert account_of(made).rows == (CrossRow("f5", 8256, 3, 8256, 3, "agrees", ("f5.c:1",)),)


def test_areas_stand_for_their_pages(program: FakeProgram, account: Account) -> None:
    """An area of vmalloc is its pages, of which some pass a tracepoint and most do not."""
    made = check(program, Books(account=account))
    place(program, 1, 5, (8192, 4096), source=Source.VMALLOC)
    place(program, 2, SERVES_VMALLOC + 5, (4096,), source=Source.PAGES)
    place(program, 3, 5, (64,))
    account.held = {"f5": (12288 + 64, 4)}
    assert account_of(made).rows == (CrossRow("f5", 12352, 4, 12352, 4, "agrees", ("f5.c:1",)),)


def test_the_function_that_is_charged_counts(program: FakeProgram, account: Account) -> None:
    """Where the trace knows whom the kernel charges, the stack does not matter: it may be inlined, or a helper's caller."""
    program.charged = np.zeros(SITES, KERNEL_CHARGED)
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,))
    place(program, 2, 5, (32, 32))
    place(program, 3, 5, (16,))
    program.charged["function"][1:4] = b"f5", b"inlined", b""
    account.held = {"f5": (64, 1), "inlined": (64, 2)}
    note = account_of(made)
    rows = note.rows
    assert note.only_traced == (CrossOnly("f5", 16, 1),)
    assert sorted((row.function, row.count, row.standing) for row in rows) == [("f5", 1, "agrees"), ("inlined", 2, "agrees")]


def test_objects_that_nobody_is_charged_for_are_left_out(program: FakeProgram, account: Account) -> None:
    """kmemleak's own, one for each object, would be taken for those of whom they are about."""
    made = check(program, Books(account=account))
    place(program, 1, 5, (64,))
    place(program, 2, 5, (256,), name=b"kmemleak_object")
    account.held = {"f5": (64, 1)}
    assert account_of(made).rows == (CrossRow("f5", 64, 1, 64, 1, "agrees", ("f5.c:1",)),)


def test_memory_per_processor_counts_once(program: FakeProgram, account: Account) -> None:
    """A kernel's account has what one of the four processors has, or all of them and what is kept beside it."""
    for charged in (192, 784):
        made = check(program, Books(account=account))
        place(program, 1, 5, (4 * 96 + 8, 4 * 96 + 8), source=Source.PERCPU, wasted_bytes=16)
        account.held = {"f5": (charged, 2)}
        assert account_of(made).rows == (CrossRow("f5", charged, 2, charged, 2, "agrees", ("f5.c:1",)),)
        program.site(1)
        account.held = {}


@pytest.mark.parametrize(("kernel", "standing"), [(10, "agrees"), (14, "agrees"), (6, "agrees"), (15, "differs"), (5, "differs")])
@pytest.mark.parametrize("at_start", [False, True])
def test_what_moved_while_it_was_read(program: FakeProgram, account: Account, kernel: int, standing: str, *, at_start: bool) -> None:
    """Figures may differ by what was allocated or freed during a reading, four blocks here, and not by what was otherwise."""
    def meanwhile() -> None:
        known = tuple([64] * int(program.sites[1]["allocated_count"]))
        place(program, 1, 5, (*known, 64, 64, 64), freed=int(program.sites[1]["freed_count"]) + 1)

    place(program, 1, 5, (64,) * 1000, freed=1000)
    during, idle = meanwhile, account.meanwhile
    account.meanwhile = during if at_start else idle
    made = check(program, Books(account=account))
    account.meanwhile = idle if at_start else during
    allocated, freed = int(program.sites[1]["allocated_count"]), int(program.sites[1]["freed_count"])
    place(program, 1, 5, (64,) * (allocated + 1000 + (8 if at_start else 10)), freed=freed + 1000)
    account.held = {"f5": (64 * kernel, kernel)}
    (row,) = account_of(made).rows
    assert (row.count, row.standing) == (10, standing)


def test_the_figures_are_those_before_the_reading(program: FakeProgram, account: Account) -> None:
    """A site that comes while the account is read holds nothing yet, and is no contradiction to the kernel."""
    account.meanwhile = lambda: place(program, 1, 5, (64,))
    made = check(program, Books(account=account))
    account.meanwhile = lambda: place(program, 2, 6, (64,))
    account.held = {"f5": (0, 0), "f6": (64, 1)}
    assert {row.function: (row.count, row.standing) for row in account_of(made).rows} == {"f5": (1, "agrees"), "f6": (0, "agrees")}


@pytest.mark.parametrize(("sources", "said"), [(ALL, False), (("slab", "pages"), "percpu."), (("vmalloc",), "slab, pages, percpu.")])
def test_what_is_not_traced_is_said(program: FakeProgram, account: Account, sources: tuple[str, ...], said: str | bool) -> None:
    """The kernel's account has all sources; those that the trace has not are named."""
    told = [each for each in account_of(check(program, Books(account=account), sources)).notes if each.startswith("Not traced")]
    assert (told[0].endswith(f": {said}") if said else told == [])


def test_an_account_that_ends_is_no_end_of_the_trace(program: FakeProgram, account: Account) -> None:
    """Switched off meanwhile, it is said why there is no comparison; the detector is still asked."""
    made = check(program, Books(account=account, detector=Detector()))
    account.fails = True
    first, second = made.check()
    assert first == CrossNote("allocinfo", summary="It is off. Switch it on.") and second.book == "kmemleak" and second.rows == ()


def test_lost_blocks_are_looked_for_in_the_trace(program: FakeProgram) -> None:
    """Blocks that kmemleak names are those of the trace's site with that stack; it scans as often as a new block needs."""
    detector = Detector(lost("f5", 1), lost("f5", 2), lost("g", 3))
    made = check(program, Books(detector=detector))
    place(program, 1, 5, (60,) * 3)
    place(program, 2, SERVES_VMALLOC + 6, (4096,), source=Source.PAGES)
    place(program, 3, 7, (32,))
    (note,) = made.check()
    assert note.book == "kmemleak" and detector.scans == [2]
    assert note.rows == (CrossRow("f5", 180, 3, 128, 2, "agrees"),)
    assert note.only_kernel == (CrossOnly("g", 64, 1),) and note.only_traced == (CrossOnly("f7", 32, 1),)


def test_blocks_from_before_the_trace_are_not_compared(program: FakeProgram) -> None:
    """Neither those that were lost before nor those that were allocated before and lost since."""
    detector = Detector(lost("f5", 1), lost("f5", 2, jiffies=49), lost("f5", 3, jiffies=50))
    made = check(program, Books(detector=detector, earlier=(lost("f5", 1),), jiffies=lambda: 50))
    place(program, 1, 5, (64,))
    assert made.check()[0].rows == (CrossRow("f5", 64, 1, 64, 1, "agrees"),)


def test_the_detector_has_areas_as_blocks(program: FakeProgram) -> None:
    """kmemleak names an area, and not each of its pages: two of them are more than the one that the trace has."""
    place(program, 1, 5, (8 * 4096,), source=Source.VMALLOC)
    made = check(program, Books(detector=Detector(lost("f5", 1), lost("f5", 2))))
    assert [(row.count, row.kernel_count, row.standing) for row in account_of(made).rows] == [(1, 2, "differs")]


def test_a_detector_that_does_not_work_is_said(program: FakeProgram, account: Account) -> None:
    """Beside the account that is compared, it says why the other is not."""
    notes = check(program, Books(account=account, problem="It is switched off.")).check()
    assert [(note.book, note.summary) for note in notes][1] == ("kmemleak", "It is switched off.")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a /proc whose kernel counts."""
    (tmp_path / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "sys" / "vm" / "mem_profiling").write_text("1\n")
    (tmp_path / "allocinfo").write_text("4096 1 fs/made.c:71 func:grow\n")
    return tmp_path


def absent(_path: Path, _scans: int) -> tuple[Unreferenced, ...]:
    raise CannotTrace("The kernel's leak detector is switched off.", "Start the kernel with kmemleak=on.")


def test_the_books_that_are_there_are_taken(proc: Path) -> None:
    """Both, if there are both; the detector is asked once before the trace."""
    detector = Detector(lost("f5"))
    books = find_books(proc, proc / "allocinfo", read=lambda _, scans: detector(scans))
    assert books.account is not None and [tag.function for tag in books.account()] == ["grow"]
    assert books.detector is not None and detector.scans == [1] and books.earlier == (lost("f5"),) and books.problem is None


def test_one_book_is_enough(proc: Path) -> None:
    """The account without kmemleak, kmemleak without the account, and the account where kmemleak is switched off."""
    assert find_books(proc, proc / "none").detector is None
    assert find_books(proc / "none", proc / "allocinfo", read=lambda *_: ()).account is None
    books = find_books(proc, proc / "allocinfo", read=absent)
    assert books.detector is None and books.problem is not None and "switched off" in books.problem


@pytest.mark.parametrize(("switch", "mode", "said", "remedy"), [
    (None, 0o644, "not built in", "Use Linux 6.10 or newer with CONFIG_MEM_ALLOC_PROFILING and run sysctl vm.mem_profiling=1; or"),
    ("0", 0o644, "switched off", "Run sysctl vm.mem_profiling=1; or"),
    ("0", 0o444, "off until the kernel is started anew", "sysctl.vm.mem_profiling=1 on its command line; or"),
])
def test_without_any_book_there_is_no_trace(tmp_path: Path, switch: str | None, mode: int, said: str, remedy: str) -> None:
    """Both books are named with their state, and what has to be done for each."""
    if switch is not None:
        (tmp_path / "sys" / "vm").mkdir(parents=True)
        (tmp_path / "sys" / "vm" / "mem_profiling").write_text(switch)
        (tmp_path / "sys" / "vm" / "mem_profiling").chmod(mode)
    with pytest.raises(CannotTrace) as caught:
        find_books(tmp_path, tmp_path / "kmemleak")
    assert said in caught.value.message and "kmemleak" in caught.value.message and "not there" in caught.value.message
    assert remedy in caught.value.remedy
    assert "CONFIG_DEBUG_KMEMLEAK" in caught.value.remedy and "debugfs mounted" in caught.value.remedy


def test_a_detector_that_is_off_is_named(tmp_path: Path) -> None:
    """Where kmemleak is the only book and does not work, it is said what it said."""
    (tmp_path / "kmemleak").touch()
    with pytest.raises(CannotTrace, match="there but not usable") as caught:
        find_books(tmp_path, tmp_path / "kmemleak", read=absent)
    assert "kmemleak=on" in caught.value.remedy


@pytest.mark.parametrize(("text", "ticks"), [("now at 5 nsecs\n\n  .last_jiffies   : 7\njiffies: 4296424535\n", 4296424535), ("now\n", None), (None, None)])
def test_ticks(tmp_path: Path, text: str | None, ticks: int | None) -> None:
    """The kernel's ticks stand in a line of their own in timer_list; without it they are not known."""
    if text is not None:
        (tmp_path / "timer_list").write_text(text)
    assert read_jiffies(tmp_path) == ticks


@pytest.mark.parametrize("words", ["-p 7", "--cgroup /a", "-z 0", "-Z 4k"])
def test_a_trace_of_a_part_is_not_compared(words: str) -> None:
    """The kernel's books have all allocations, so options that leave out some are refused with it."""
    context = kernel.command.make_context("leaktrace kernel", ["--cross-check", *words.split()])
    with pytest.raises(UsageError, match=f"{words.split()[0]} leaves out some"):
        kernel.build_settings({**context.params, "command": ()})
