"""Every return instruction of a function is found, or none is claimed to be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.unwind_info import UnwindInfo
from tracer.attach.exits import find_exits

Listing = dict[str, list[tuple[int, str]]]
Compiler = Callable[..., Path]
Disassembler = Callable[[Path], Listing]

#: How a call to a function of another file is compiled.
LINKAGES = {"plt": (), "now": ("-Wl,-z,now",), "cet": ("-fcf-protection=full",), "no-plt": ("-fno-plt",)}

several = pytest.mark.parametrize("options", LINKAGES.values(), ids=LINKAGES)


def exits_of(path: Path, name: str) -> tuple[int, ...] | None:
    data = path.read_bytes()
    elf = Elf.parse(data)
    return find_exits(elf, UnwindInfo(data), elf.symbols().defined([name])[name])


def returns_in(listing: Listing, names: Iterable[str]) -> set[int]:
    return {at for name in names for at, words in listing[name] if words.split()[0] in {"ret", "repz", "bnd"}
            and "ret" in words}


def has(listing: Listing, name: str, mnemonic: str) -> bool:
    return any(words.startswith(mnemonic) for _, words in listing[name])


def test_several_returns(compile_shared: Compiler, disassemble: Disassembler) -> None:
    """All return instructions of a function count, and none of its neighbours'."""
    made = compile_shared("""
        long other(long);
        long before(long a) { return other(a) + 3; }
        long many(long a) { if (a > 3) return other(a) + 1; if (a < -3) return other(-a) * 2; return a; }
        long after(long a) { return other(a) + 4; }
    """)
    expected = returns_in(disassemble(made), ["many"])
    assert len(expected) > 1
    assert exits_of(made, "many") == tuple(sorted(expected))


def test_tail_call_to_a_static_function(compile_shared: Compiler, disassemble: Disassembler) -> None:
    """A function that ends with a jump to another one returns where that one does."""
    made = compile_shared("""
        long other(long);
        static __attribute__((noinline, noclone)) long inner(long a) { return other(a) + other(a + 1); }
        long outer(long a) { if (a == 9) return other(a) - 1; return inner(a * 3); }
        long keep(long a) { return inner(a) + 1; }
    """)
    listing = disassemble(made)
    assert has(listing, "outer", "jmp")
    assert exits_of(made, "outer") == tuple(sorted(returns_in(listing, ["outer", "inner"])))


@several
def test_tail_call_through_the_linkage_table(compile_shared: Compiler, disassemble: Disassembler,
                                             options: tuple[str, ...]) -> None:
    """A jump through the procedure linkage table, or its slot, to a function of the same file is followed."""
    made = compile_shared("""
        long other(long);
        long exported(long a) { return other(a) + other(a + 1); }
        long outer(long a) { return exported(a * 3); }
    """, *options)
    listing = disassemble(made)
    assert not returns_in(listing, ["outer"])
    expected = returns_in(listing, ["exported"])
    assert expected and exits_of(made, "outer") == tuple(sorted(expected))


@several
def test_tail_call_to_another_file(compile_shared: Compiler, disassemble: Disassembler, options: tuple[str, ...]) -> None:
    """Where another file's function ends is not known, even if other paths return here."""
    made = compile_shared("""
        long other(long);
        long outer(long a) { if (a == 9) return 7; return other(a * 3); }
    """, *options)
    assert returns_in(disassemble(made), ["outer"])
    assert exits_of(made, "outer") is None


@pytest.mark.parametrize("options", [(), ("-fcf-protection=full", "-Wl,-z,ibtplt")], ids=["plt", "cet"])
def test_tail_call_to_another_file_in_an_executable(tmp_path: Path, compile_shared: Compiler, disassemble: Disassembler,
                                                    options: tuple[str, ...]) -> None:
    """An imported function whose address was taken has one in the executable, its stub's: it is no less unknown."""
    library = compile_shared("long other(long a) { return a; }", name="other")
    source, made = tmp_path / "program.c", tmp_path / "program"
    source.write_text("""
        long other(long);
        __attribute__((noinline)) long (*pointer(void))(long) { return other; }
        long outer(long a) { if (a == 9) return 7; return other(a * 3); }
        int main(void) { return (int)outer(pointer()(1)); }
    """)
    subprocess.run(["gcc", "-O2", "-fno-pic", "-no-pie", "-fno-inline", *options, "-o", made, source, library], check=True)
    assert has(disassemble(made), "outer", "jmp") and returns_in(disassemble(made), ["outer"])
    assert exits_of(made, "outer") is None


@pytest.mark.parametrize("body", ["return f(1);", "if (a > 1) return 2; return f(a);"])
def test_indirect_jump(compile_shared: Compiler, disassemble: Disassembler, body: str) -> None:
    """A jump through a register can lead anywhere."""
    made = compile_shared("long outer(long (*f)(long), long a) { " + body + " }")
    assert has(disassemble(made), "outer", "jmp")
    assert exits_of(made, "outer") is None


def test_switch_table(compile_shared: Compiler, disassemble: Disassembler) -> None:
    """A jump through a table of the function's own is not followed, and so nothing is claimed."""
    cases = "".join(f"case {n}: return other({n * 7 % 5}) + {n * n};" for n in range(9))
    made = compile_shared("long other(long); long outer(long a) { switch (a) { " + cases + " } return 1; }")
    assert any("jmp" in words and "*" in words for _, words in disassemble(made)["outer"])
    assert exits_of(made, "outer") is None


COLD = """
    long other(long);
    __attribute__((cold, noinline)) long rare(long);
    long outer(long a) { if (a < 0) { other(rare(a)); %s } return other(a) + 1; }
"""


@pytest.mark.parametrize("body", ["return rare(a) + other(4);", "a = -a;"], ids=["returns", "jumps-back"])
def test_cold_part(compile_shared: Compiler, disassemble: Disassembler, body: str) -> None:
    """What the compiler moved out of the function's way belongs to it, whether it returns there or comes back."""
    made = compile_shared(COLD % body, "-freorder-blocks-and-partition")
    listing = disassemble(made)
    assert "outer.cold" in listing
    assert exits_of(made, "outer") == tuple(sorted(returns_in(listing, ["outer", "outer.cold"])))


def assembled(body: str) -> str:
    return f".text\n.globl outer\n.type outer, @function\nouter:\n.cfi_startproc\n{body}\n.cfi_endproc\n.size outer, .-outer\n"


def test_jump_into_the_middle(compile_shared: Compiler, disassemble: Disassembler) -> None:
    """Where a jump leads into the middle of another function, all of that one's exits count."""
    made = compile_shared(
        assembled("test %rdi,%rdi\njmp 1f") + "part:\n.cfi_startproc\ntest %rsi,%rsi\nje 2f\nret\n1: nop\n2: ret\n.cfi_endproc",
        language="s")
    expected = returns_in(disassemble(made), ["part"])
    assert len(expected) == 2 and exits_of(made, "outer") == tuple(sorted(expected))


def test_data_between_the_code(compile_shared: Compiler) -> None:
    """Behind bytes that are no instructions nothing is known, so nothing is claimed."""
    sound = compile_shared(assembled("test %rdi,%rdi\nje 1f\nret\n1: nop\nret"), language="s", name="sound")
    broken = compile_shared(assembled("test %rdi,%rdi\nje 1f\nret\n.byte 6,6,6\n1: ret"), language="s", name="broken")
    assert len(exits_of(sound, "outer") or ()) == 2
    assert exits_of(broken, "outer") is None


def test_a_function_that_never_returns(compile_shared: Compiler) -> None:
    """Without any return instruction there is no exit to probe."""
    assert exits_of(compile_shared("void outer(void) { for (;;) __asm__ volatile(\"\"); }"), "outer") is None


def test_functions_that_jump_to_each_other(compile_shared: Compiler, disassemble: Disassembler) -> None:
    """A circle of tail calls is walked once."""
    made = compile_shared("""
        static long odd(long);
        static __attribute__((noinline)) long even(long n) { return n ? odd(n - 1) : 1; }
        static __attribute__((noinline)) long odd(long n) { return n ? even(n - 1) : 0; }
        long outer(long n) { return even(n * 2); }
    """, "-fno-inline", "-fno-ipa-cp")
    listing = disassemble(made)
    names = [name for name in listing if name.partition(".")[0] in {"outer", "even", "odd"}]
    assert exits_of(made, "outer") == tuple(sorted(returns_in(listing, names)))


def test_too_many_parts(compile_shared: Compiler) -> None:
    """A chain of tail calls longer than any allocator's is given up."""
    def chain(length: int) -> str:
        parts = [f"f{n}:\n.cfi_startproc\njmp f{n + 1}\n.cfi_endproc\n" for n in range(length)]
        return assembled("jmp f0") + "".join(parts) + f"f{length}:\n.cfi_startproc\nret\n.cfi_endproc\n"

    assert exits_of(compile_shared(chain(20), language="s", name="short"), "outer") is not None
    assert exits_of(compile_shared(chain(100), language="s", name="long"), "outer") is None


def test_operator_new_of_libstdcxx(disassemble: Disassembler) -> None:
    """The array form jumps to the plain one through the linkage table: both have the same exits."""
    path = Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")
    if not path.exists():
        assert "CI" not in os.environ, "libstdc++6 is not installed"
        pytest.skip("libstdc++6 is not installed")
    plain = exits_of(path, "_Znwm")
    assert plain and exits_of(path, "_Znam") == plain
