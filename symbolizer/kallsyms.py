"""Names of the kernel's own code: /proc/kallsyms and /proc/modules, as they are now and as they were."""

import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from symbolizer.demangle import demangle
from symbolizer.frame import Frame, Why
from symbolizer.hex_columns import PADDING, hex_numbers
from symbolizer.printable import printable

KERNEL = "[kernel]"
#: Code covers at most this many bytes where neither the kernel image's nor its module's end is known: nothing says
#: where a BPF program ends, and the last one before a gap must not name what lies behind it.
LONGEST_UNKNOWN = 64 << 10
#: And at most this many everywhere: behind some parts of the kernel image lies a megabyte of padding.
LONGEST = 256 << 10
#: The kernel makes a trampoline in one page (arch/x86/kernel/ftrace.c, kernel/bpf/trampoline.c). A BPF program is
#: rarely longer: what lies further behind its start is rather a newer program.
_PAGE = 4096
_TRAMPOLINES = ("bpf_trampoline_", "bpf_dispatcher_")
_LONGEST_NAME = 1024  # KSYM_NAME_LEN is 512, MODULE_NAME_LEN below 64 (include/linux/kallsyms.h, module.h)
_ALIASES = 64  # how many names of one address are compared
_LAST = 2**64 - 1
_KERNEL_HALF = 2**63  # addresses from here on are the kernel's

# nm(1). Weak functions are W; i (an indirect function) does not occur in kernels. What is no code still says where
# code ends; a and A are left out: they are numbers, not places.
_CODE, _OTHER = b"tTwW", b"dDbBrRgGsSvV"
_KIND = np.zeros(256, np.uint8)
_KIND[list(_CODE)], _KIND[list(_OTHER)] = 1, 2

# The linker script's labels (include/asm-generic/vmlinux.lds.h). Each covers [start, end).
_LABEL = re.compile(r"_(?:text|[se](?:init)?text|_\w+_text_(?:start|end))")
_IMAGE = ((b"_stext", b"_etext"), (b"_sinittext", b"_einittext"))
# `NAME SIZE REFERENCES USERS STATE ADDRESS`, kernel/module/procfs.c.
_MODULE = re.compile(rb"^(\S{1,256}) ([0-9]{1,19}) \S+ \S+ \S+ 0x([0-9a-fA-F]{1,16})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KernelSymbol:
    """One function of the kernel, and the offset in it in bytes.

    `module` is None for the kernel image, else a name such as `nf_tables`, `bpf` or `__builtin__ftrace`. Both texts
    are safe to print. `is_certain` is false far behind the start of code whose end nothing says.
    """

    name: str
    offset: int
    module: str | None
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Region:
    """A range of addresses, [start, end), that belongs to the kernel image or a module; in `Frame.module`'s style."""

    start: int
    end: int
    module: str


@dataclass(frozen=True, eq=False)
class KernelTable:
    """The code symbols of one reading, sorted by address; columns of shape (n,).

    `name` is where in `data` a name begins, `is_local` whether it is static. `stops` are the other addresses
    at which code ends, sorted, shape (m,). `module_part` is where in `data` the lines begin that are not the kernel
    image's. `hidden` says that the kernel wrote zeros for its addresses.
    """

    data: bytes = field(repr=False)
    start: np.ndarray
    name: np.ndarray
    is_local: np.ndarray
    stops: np.ndarray
    regions: tuple[Region, ...]
    module_part: int
    hidden: bool

    @classmethod
    def parse(cls, data: bytes, modules: bytes = b"") -> Self:
        """Return the symbols in the bytes of /proc/kallsyms, and the ends of modules in those of /proc/modules.

        Lines that are none, and a last one without newline, are skipped.
        """
        text = np.frombuffer(data + PADDING, np.uint8)
        newline = np.flatnonzero(text[: len(data)] == ord("\n"))
        begin = np.concatenate([[0], newline[:-1] + 1]).astype(np.int64)[: len(newline)]
        fits = newline - begin >= len(b"0 T f")
        newline, begin = newline[fits], begin[fits]
        address, after, good = hex_numbers(text, begin)
        name = after + 3
        good &= (text[after] == ord(" ")) & (text[after + 2] == ord(" ")) & (name < newline) & (text[name] > ord(" "))
        newline, begin, address, name = newline[good], begin[good], address[good], name[good]
        kind = np.where(address > 0, _KIND[text[name - 2]], 0)
        in_module = text[newline - 1] == ord("]")
        image = _image(data, address, name)
        regions = [*image, *_modules(modules)]
        code = np.flatnonzero(kind == 1)
        code = code[np.argsort(address[code], kind="stable")]
        # A module's end is no stop: it lies within another module where the size counts data elsewhere.
        bounds = [region.start for region in regions] + [region.end for region in image]
        return cls(
            data,
            address[code],
            name[code],
            text[name[code] - 2] >= ord("a"),
            np.unique(np.concatenate([address[kind == 2], np.array(bounds, np.uint64)])),
            tuple(sorted(regions, key=lambda region: region.start)),
            int(begin[in_module].min(initial=len(data))),
            len(address) > 0 and not address.any(),
        )

    def __len__(self) -> int:
        """Return the number of symbols."""
        return len(self.start)

    def find(self, address: int) -> KernelSymbol | None:
        """Return the function at the address, None where nothing that is known covers it.

        A symbol reaches to the next one, or to where its section, module or the image ends. Of several names at one
        address one that is no linker's label, a global one, one without underscore or dot before it, and a short one
        are preferred.
        """
        if not 0 <= address <= _LAST:
            return None
        after = int(np.searchsorted(self.start, np.uint64(address), "right"))
        if after == 0:
            return None
        start = self.start[after - 1]
        offset = address - int(start)
        stop = int(np.searchsorted(self.stops, start, "right"))
        if stop < len(self.stops) and self.stops[stop] <= address:
            return None
        first = max(int(np.searchsorted(self.start, start, "left")), after - _ALIASES)
        row = min(range(first, after), key=lambda row: _preference(self._name(row)[0], bool(self.is_local[row])))
        name, module = self._name(row)
        # _etext and _einittext are symbols themselves, at the first address that is no longer code.
        mine = [region for region in self.regions if region.module == _bracketed(module)]
        if mine and not any(region.start <= address < region.end for region in mine):
            return None
        if offset >= (LONGEST if mine else _longest(name, module)):
            return None
        # Rust's names are unreadable as they are; of C, kernel people write `f.isra.0` as it is.
        shown = demangle(name) if name.startswith("_R") else printable(name)
        return KernelSymbol(shown, offset, module, is_certain=bool(mine) or offset < _PAGE)

    def _name(self, row: int) -> tuple[str, str | None]:
        """Return a row's name as the kernel writes it, and its module's, safe to print."""
        at = int(self.name[row])
        line = self.data[at : min(self.data.find(b"\n", at), at + _LONGEST_NAME)]
        name, _, module = line.partition(b"\t")
        return name.decode("utf-8", "backslashreplace"), _text(module.strip(b"[]")) or None

    def region(self, address: int) -> Region | None:
        """Return the kernel image or the module that holds the address, if its bounds are known."""
        index = bisect_right(self.regions, address, key=lambda region: region.start) - 1
        return self.regions[index] if index >= 0 and address < self.regions[index].end else None

    def module_lines(self) -> set[bytes]:
        """Return the lines that are not the kernel image's, as they were read."""
        return set(self.data[self.module_part :].splitlines(keepends=True))


def _preference(name: str, is_local: bool) -> tuple[bool, bool, bool, int, str]:
    """Return what orders names of one address, the one to show first."""
    return _LABEL.fullmatch(name) is not None, is_local, name.startswith(("_", ".")), len(name), name


def _longest(name: str, module: str | None) -> int:
    """Return the most bytes that code has whose end nothing says."""
    is_trampoline = module is not None and (module.startswith("__builtin__") or name.startswith(_TRAMPOLINES))
    return _PAGE if is_trampoline else LONGEST_UNKNOWN


def _text(raw: bytes) -> str:
    return printable(raw.decode("utf-8", "backslashreplace"))


def _bracketed(module: str | None) -> str:
    return KERNEL if module is None else f"[{module}]"


def _image(data: bytes, address: np.ndarray, name: np.ndarray) -> list[Region]:
    """Return the ranges of the kernel image's code, found by the linker's labels."""
    found: dict[bytes, int] = {}
    for label in {label for pair in _IMAGE for label in pair}:
        at = data.find(b" " + label + b"\n") + 1
        row = int(np.searchsorted(name, at)) if at else len(name)
        if row < len(name) and name[row] == at:
            found[label] = int(address[row])
    return [
        Region(found[start], found[end], KERNEL)
        for start, end in _IMAGE
        if start in found and found[start] < found.get(end, 0)
    ]


def _modules(text: bytes) -> list[Region]:
    """Return where the modules' code begins and, at most, ends: since Linux 6.4 the size counts data elsewhere, too."""
    found = []
    for name, size, address in _MODULE.findall(text):
        start = int(address, 16)
        if start and int(size):
            found.append(Region(start, min(start + int(size), _LAST), _bracketed(_text(name))))
    return found


@dataclass(frozen=True, slots=True)
class _Change:
    """Between two readings: the symbols that went away, and where new ones begin."""

    gone: KernelTable
    arrived: frozenset[int]


class Kallsyms:
    """The kernel's names as of now; those of modules and BPF programs that went away since the start stay known.

    `hidden` says that the kernel shows this user no addresses; `why_not` is then, and where nothing can be read, one
    sentence that names the reason and the remedy, else None.
    """

    AGAIN_S = 1.0
    #: Reading takes at most one part in this many of the time.
    PAUSE = 5
    #: How many changes are kept, with the names that each of them took away.
    CHANGES = 32

    def __init__(self, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> None:
        """Read the names; `clock` is in seconds."""
        self.why_not: str | None = None
        self.table = KernelTable.parse(b"")
        self._changes: tuple[_Change, ...] = ()  # the newest first
        self._proc = proc
        self._clock = clock
        self._again_at = 0.0
        self._read()

    @classmethod
    def read(cls, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic) -> Self:
        """Read /proc/kallsyms and /proc/modules now."""
        return cls(proc, clock)

    @property
    def hidden(self) -> bool:
        """Return whether the kernel wrote zeros for its addresses."""
        return self.table.hidden

    def find(self, address: int) -> KernelSymbol | None:
        """Return the kernel function at the address; what is not found for certain is looked for in a new reading.

        There is at most one new reading a second, and none for an address of user space or of the kernel image, which
        does not change.
        """
        found = self._find(address)
        if (found is None or not found.is_certain) and self._may_be_new(address) and self._clock() >= self._again_at:
            self._read()
            found = self._find(address)
        return found

    def frame(self, address: int, is_return_address: bool = False) -> Frame:
        """Return the function as a frame; its module is `[kernel]`, or the module's name as in `[nf_tables]`.

        A return address is looked up by the call before it, which may be its function's last instruction; the offset
        is that of the address itself.
        """
        symbol = self.find(address - is_return_address)
        if symbol is not None:
            return Frame(address, symbol.name, symbol.offset + is_return_address, _bracketed(symbol.module))
        if address < _KERNEL_HALF:
            return Frame(address, why=Why.UNMAPPED)
        if not len(self.table):
            return Frame(address, module=KERNEL, why=Why.NO_SYMBOLS)
        region = self.table.region(address - is_return_address)
        if region is None:
            return Frame(address, why=Why.UNMAPPED)
        return Frame(address, module=region.module, why=Why.NOT_COVERED)

    def _find(self, address: int) -> KernelSymbol | None:
        found = self.table.find(address)
        for change in self._changes:
            if found is not None and address - found.offset in change.arrived:
                break  # It came after all that went away from here on.
            gone = change.gone.find(address)
            # Where nothing says how long code is, it ended where code began that was there at the same time.
            if gone is not None and (found is None or gone.offset < found.offset):
                found = gone
        return found

    def _may_be_new(self, address: int) -> bool:
        region = self.table.region(address)
        return _KERNEL_HALF <= address <= _LAST and (region is None or region.module != KERNEL)

    def _read(self) -> None:
        begun = self._clock()
        path = self._proc / "kallsyms"
        try:
            table = KernelTable.parse(path.read_bytes(), self._modules())
        except OSError as error:
            # What was known stays known.
            self.why_not = f"{path} could not be read ({error.strerror}): run leaktrace as root, with /proc mounted."
        else:
            self._keep_gone(self.table, table)
            self.table = table
            self.why_not = None
            if self.hidden:
                self.why_not = (
                    "The kernel hides its addresses (kernel.kptr_restrict): run leaktrace as root, and if that is not "
                    "enough, run sysctl kernel.kptr_restrict=1 first."
                )
            elif not len(table):
                self.why_not = f"{path} lists no functions: the kernel was built without CONFIG_KALLSYMS."
        done = self._clock()
        self._again_at = done + max(self.AGAIN_S, self.PAUSE * (done - begun))

    def _modules(self) -> bytes:
        try:
            return (self._proc / "modules").read_bytes()
        except OSError:  # a kernel without modules has no such file
            return b""

    def _keep_gone(self, before: KernelTable, now: KernelTable) -> None:
        """Keep the names of modules and programs that are no longer there: stacks may hold them."""
        if not len(before):
            return
        old, new = before.module_lines(), now.module_lines()
        ends = b"".join(
            b"%s %d 0 - - 0x%x\n" % (region.module[1:-1].encode(), region.end - region.start, region.start)
            for region in before.regions
            if region.module != KERNEL
        )
        gone = KernelTable.parse(b"".join(old - new), ends)
        arrived = frozenset(KernelTable.parse(b"".join(new - old)).start.tolist())
        if len(gone):
            self._changes = (_Change(gone, arrived), *self._changes)[: self.CHANGES]
        elif self._changes:
            newest, *older = self._changes
            self._changes = (_Change(newest.gone, newest.arrived | arrived), *older)
