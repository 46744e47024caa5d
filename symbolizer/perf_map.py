"""Names of code that a runtime made: the lines that Node, Python, Java or .NET write to /tmp/perf-PID.map.

The format is the kernel's tools/perf/Documentation/jit-interface.txt: `START SIZE name`, the numbers in hex.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from symbolizer.opening import open_in_root
from symbolizer.printable import printable

LONGEST_FILE = 256 << 20  # bytes; of a longer file the newest part is read
ANY_LENGTH = 1 << 62
LONGEST_LINE = 4096  # bytes; a longer line is skipped
MOST_NAMES = 2_000_000  # of more lines the newest are kept
_BLOCK = 1 << 20  # bytes parsed at once: the columns of a block fit a processor's cache
_LAST = 2**64 - 1

_DIGITS = np.full(256, 16, np.uint64)  # a character's value as hex digit, 16 if it is none
for _characters in ("0123456789abcdef", "0123456789ABCDEF"):
    _DIGITS[list(_characters.encode())] = range(16)
#: What must follow a text whose lines are parsed: a field that begins in its last line ends within it.
PADDING = b"\n" * 64


def hex_numbers(text: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hex numbers, `0x` before them or not, that begin at these positions of a padded text of uint8.

    Three columns of the shape of `at`: the value, the position after its digits (at most 16 are taken), and whether
    there was a digit at all.
    """
    prefixed = (text[at] == ord("0")) & ((text[at + 1] | 0x20) == ord("x"))
    first = at + 2 * prefixed
    after, value = first.copy(), np.zeros(len(at), np.uint64)
    for _ in range(16):
        digit = _DIGITS[text[after]]
        going_on = digit < 16
        if not going_on.any():
            break
        value = np.where(going_on, value << np.uint64(4) | digit, value)
        after += going_on
    return value, after, after > first


def _is_blank(characters: np.ndarray) -> np.ndarray:
    blank: np.ndarray = (characters == ord(" ")) | (characters == ord("\t"))
    return blank


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a text that name code, in its order: first address, end, and the name's position; shapes (n,)."""

    start: np.ndarray
    end: np.ndarray
    name: np.ndarray

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the good ones of whole lines."""
        text = np.frombuffer(data + PADDING, np.uint8)
        newline = np.flatnonzero(text[: len(data)] == ord("\n"))
        begin = np.concatenate([[0], newline[:-1] + 1]).astype(np.int64)[: len(newline)]
        length = newline - begin
        fits = (length >= len(b"1 1 f")) & (length <= LONGEST_LINE)
        newline, begin = newline[fits], begin[fits]
        start, after_start, has_start = hex_numbers(text, begin)
        size, after_size, has_size = hex_numbers(text, after_start + 1)
        name = after_size + 1
        good = has_start & has_size & _is_blank(text[after_start]) & _is_blank(text[after_size])
        # A field that a bad line lacks was looked for in the next line. A name begins with no blank.
        good &= (name < newline) & ~_is_blank(text[name]) & (text[name] != ord("\r"))
        good &= (size > 0) & (size <= np.uint64(_LAST) - start)
        return cls(start[good], start[good] + size[good], name[good])

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class PerfMap:
    """The code that a file names, as pieces that do not overlap, sorted by address; all columns have shape (n,).

    `start` and `end` are the piece's addresses, `origin` the start that its line gives (lower than `start` where newer
    code took the first part of its room), `name` where in `data` its name begins. `skipped` counts the lines that
    name nothing: bad ones, and the oldest of too many.
    """

    data: bytes = field(repr=False)
    start: np.ndarray
    end: np.ndarray
    origin: np.ndarray
    name: np.ndarray
    skipped: int

    @classmethod
    def parse(cls, data: bytes, most: int = MOST_NAMES) -> Self:
        """Return what the bytes name; a last line without a newline is being written just now and left out.

        Code is freed and its room used again, so a later line wins where two overlap. What is left of the older one
        keeps its name: stacks that were taken before may hold it.
        """
        parts: list[_Lines] = []
        kept, stop = 0, data.rfind(b"\n") + 1
        lines = data.count(b"\n")
        while stop > 0 and kept < most:
            begin = data.find(b"\n", stop - _BLOCK, stop - 1) + 1 if stop > _BLOCK else 0
            if stop > _BLOCK and begin == 0:  # one line fills the block
                stop = data.rfind(b"\n", 0, stop - 1) + 1
                continue
            part = _Lines.parse(data[begin:stop])
            kept += len(part)
            parts.append(_Lines(part.start, part.end, part.name + begin))
            stop = begin
        parts.reverse()
        start, end, name = (
            np.concatenate([np.empty(0, kind), *columns])[-most:]
            for kind, columns in (
                (np.uint64, [part.start for part in parts]),
                (np.uint64, [part.end for part in parts]),
                (np.int64, [part.name for part in parts]),
            )
        )
        piece_start, piece_end, line = _pieces(start, end)
        return cls(data, piece_start, piece_end, start[line], name[line], lines - len(start))

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.start)

    def find(self, address: int) -> tuple[str, int] | None:
        """Return the name of the code at the address, safe to print, and the offset in it in bytes."""
        if not 0 <= address <= _LAST:
            return None
        row = int(np.searchsorted(self.start, np.uint64(address), "right")) - 1
        if row < 0 or address >= self.end[row]:
            return None
        at = int(self.name[row])
        name = self.data[at : self.data.find(b"\n", at)].rstrip(b" \t\r")
        return printable(name.decode("utf-8", "backslashreplace")), address - int(self.origin[row])


def _pieces(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, end and line of the pieces that are seen when each line is painted over those before it."""
    order = np.argsort(start, kind="stable")
    if np.all(end[order[:-1]] <= start[order[1:]]):
        return start[order], end[order], order
    bounds = np.unique(np.concatenate([start, end]))
    newest = _newest(np.searchsorted(bounds, start), np.searchsorted(bounds, end), len(bounds))
    # Neighbours that show the same line are one piece.
    first = np.flatnonzero(np.diff(newest, prepend=-2))
    after = np.append(first[1:], len(newest))
    seen = newest[first] >= 0
    # Nothing covers what lies behind the last bound, so `after` is a bound wherever a line is seen.
    return bounds[first[seen]], bounds[after[seen]], newest[first[seen]]


def _newest(begin: np.ndarray, stop: np.ndarray, cells: int) -> np.ndarray:
    """Return for each cell the last of the ranges [begin, stop) that covers it, -1 if none does; shape (cells,).

    A range is the union of two ranges whose length is a power of two, so a line is noted twice, and each length then
    hands what it knows down to its halves (a sparse table, filled from the top): no loop over lines.
    """
    level = np.frexp((stop - begin).astype(np.float64))[1] - 1
    above = np.full(cells, -1, np.int32)
    for power in range(int(level.max(initial=0)), -1, -1):
        mine = np.flatnonzero(level == power)
        length = 1 << power
        notes = above.copy()
        notes[length:] = np.maximum(notes[length:], above[:-length])  # the level above spans twice the length
        for places in (begin[mine], stop[mine] - length):
            note = np.full(cells, -1, np.int32)
            note[places] = mine  # of equal places numpy keeps the last, which is the newest line
            np.maximum(notes, note, out=notes)
        above = notes
    return above


@dataclass(frozen=True, slots=True)
class JitSymbol:
    """What a runtime's name says: the function, and where its source is if that can be told for certain."""

    function: str
    file: str | None = None
    line: int | None = None


# V8 writes `TAG:TIER NAME FILE:LINE:COLUMN` (src/logging/log.cc, CodeEventLogger; older versions without the column).
# The tier says how V8 runs the function at present: interpreted ~, baseline ^, Maglev +, TurboFan *, with ' for
# code that belongs to one context (src/objects/code-kind.cc).
_NODE = re.compile(r"(?:JS|LazyCompile|Function|Eval|Script):(?:[~^+*]'?)?(?P<rest>.*)", re.DOTALL)
_PLACE = re.compile(r"(?P<before>.*?):(?P<line>[0-9]{1,9})(?::[0-9]{1,9})?", re.DOTALL)
# A name may hold blanks (`get size`) and a file too. These begin a file: an absolute path, a URL, Node's own names.
_FILE = re.compile(r" (?=/|[a-z][a-z0-9+.-]*:|evalmachine\.|\[)")
# Lib/test/test_perf_profiler.py and Python/perf_trampoline.c: `py::QUALNAME:FILE`; a qualified name holds no colon.
_PYTHON = re.compile(r"py::(?P<function>[^:]+):(?P<file>.+)", re.DOTALL)


def jit_symbol(name: str) -> JitSymbol:
    """Return function, file and line of a name that `find()` gave.

    Node: the tag and the tier are left out, because the same function is compiled several times and is still one
    place in the source; a function without a name is `<anonymous>`, as in V8's own stack traces. `Builtin:`,
    `BytecodeHandler:`, `RegExp:` and the like stay in the name, as they say that it is none of the program's functions.
    Python: `py::` is left out; the format has no line. Java, .NET and everything else: the name as it is.
    """
    python = _PYTHON.fullmatch(name)
    if python is not None:
        return JitSymbol(python["function"], python["file"])
    node = _NODE.fullmatch(name)
    if node is None:
        return JitSymbol(name)
    place = _PLACE.fullmatch(node["rest"])
    if place is None:
        return JitSymbol(node["rest"].strip() or name)
    function, separator, file = place["before"].partition(" ")
    if " " in file:
        begin = _FILE.search(place["before"])
        if begin is None:
            return JitSymbol(node["rest"].strip())
        function, file = place["before"][: begin.start()], place["before"][begin.end() :]
    if not separator:
        return JitSymbol(node["rest"])
    return JitSymbol(function or "<anonymous>", file or None, int(place["line"]) if file else None)


class _NotBelieved(Exception):
    """The file exists and is not to be believed, or cannot be read; the text is the whole sentence."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What says whose file is believed: the process's number as it sees it, its users, and its start in seconds."""

    pid: int
    users: frozenset[int]
    start_ticks: int

    @classmethod
    def read(cls, folder: int) -> Self:
        """Read it from an open /proc/PID; raises OSError or ValueError once the process is gone."""
        status = dict(line.split(":", 1) for line in _read_text(folder, "status").splitlines() if ":" in line)
        _, effective, _, filesystem = status["Uid"].split()
        # Field 22 of proc_pid_stat(5); the name before it may hold any character.
        ticks = int(_read_text(folder, "stat").rpartition(")")[2].split()[19])
        return cls(int(status["NSpid"].split()[-1]), frozenset({0, int(effective), int(filesystem)}), ticks)


def _read_text(folder: int, name: str) -> str:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with open(file, encoding="utf-8", errors="backslashreplace") as text:
        return text.read()


class JitNames:
    """The names of one process's JIT code, as it writes them; those that were read outlive the process.

    `path` is the file as the process sees it. `why_not` is None, or one sentence that says why the file is not
    (wholly) believed; that there is no such file needs no reason, as most processes have none.
    """

    CHECK_S = 0.1
    #: A file that grows all the time is read again at most for this share of the time.
    PAUSE = 10

    def __init__(self, proc_folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file of the process whose /proc/PID this is, if there is one."""
        self.path = f"/tmp/perf-{printable(proc_folder.name)}.map"
        self.why_not: str | None = None
        self.table = PerfMap.parse(b"")
        self._folder = proc_folder
        self._clock = clock
        self._identity: _Identity | None = None
        self._root: int | None = None
        self._read_state: tuple[int, ...] = ()
        self._check_at = 0.0
        self._check()

    def find(self, address: int) -> tuple[str, int] | None:
        """Return the name as the runtime wrote it, safe to print, and the offset in bytes; None if nothing names it."""
        if self._clock() >= self._check_at:
            self._check()
        return self.table.find(address)

    def _check(self) -> None:
        """Read the file again if it has changed."""
        begun = self._clock()
        try:
            # All is opened below this one folder: it never becomes that of another process with the same number.
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._read(folder)
            finally:
                os.close(folder)
        except _NotBelieved as reason:
            self.why_not = str(reason)
        except (OSError, ValueError, KeyError, IndexError):
            self._read_last()  # The process is gone.
        done = self._clock()
        self._check_at = done + max(self.CHECK_S, self.PAUSE * (done - begun))

    def close(self) -> None:
        """Let go of the process's root; the names that were read stay."""
        self._forget_root()

    def _read_last(self) -> None:
        """Read once more what a runtime wrote while it ended, as Java does, below the root that was held for that."""
        if self._root is None or self._identity is None:
            return
        root, self._root = self._root, None
        try:
            self._read_below(f"/proc/self/fd/{root}", self._identity)
        except _NotBelieved as reason:
            self.why_not = str(reason)
        except (OSError, ValueError):
            pass
        finally:
            os.close(root)

    def _forget_root(self) -> None:
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def _read(self, folder: int) -> None:
        identity = _Identity.read(folder)
        if self._identity is not None and self._identity.start_ticks != identity.start_ticks:
            # Another process has the number, and what it writes has the same path.
            self._forget_root()
            return
        self.path = f"/tmp/perf-{identity.pid}.map"
        try:
            root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        except PermissionError as error:
            raise _NotBelieved(f"{self.path} could not be opened: {error.strerror}.") from None
        self._forget_root()
        self._root, self._identity = root, identity
        self._read_below(f"/proc/self/fd/{root}", identity)

    def _read_below(self, root: str, identity: _Identity) -> None:
        try:
            file = open_in_root(root, self.path, ANY_LENGTH, follow_link=False)
        except FileNotFoundError:
            self.why_not = None
            return
        except ValueError:
            raise _NotBelieved(f"{self.path} is not a regular file, so its names are not believed.") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _NotBelieved(f"{self.path} is a symbolic link, so its names are not believed.") from None
            raise _NotBelieved(f"{self.path} could not be opened: {error.strerror}.") from None
        try:
            status = os.fstat(file)
            reason = _why_not_believed(status, identity, self._started(identity))
            if reason is not None:
                raise _NotBelieved(f"{self.path} {reason}, so its names are not believed.")
            self._parse_if_new(file, status)
        finally:
            os.close(file)

    def _parse_if_new(self, file: int, status: os.stat_result) -> None:
        too_long = status.st_size > LONGEST_FILE
        self.why_not = (
            f"{self.path} is longer than {LONGEST_FILE >> 20} MB, so only its newest names are known."
            if too_long else None
        )
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state == self._read_state:
            return
        with open(file, "rb", closefd=False) as opened:
            opened.seek(max(0, status.st_size - LONGEST_FILE))
            data = opened.read(LONGEST_FILE)
        self._read_state = state
        self.table = PerfMap.parse(data[data.find(b"\n") + 1 :] if too_long else data)

    def _started(self, identity: _Identity) -> float:
        """Return when the process started, in seconds since 1970; 0 where /proc does not say when the machine did."""
        try:
            text = (self._folder.parent / "stat").read_bytes()
        except OSError:
            return 0.0
        boot = re.search(rb"^btime ([0-9]{1,19})$", text, re.MULTILINE)
        return int(boot[1]) + identity.start_ticks / os.sysconf("SC_CLK_TCK") if boot is not None else 0.0


#: btime is in whole seconds, and so are the times of some file systems.
_CLOCK_SLACK_S = 2


def _why_not_believed(status: os.stat_result, identity: _Identity, started: float) -> str | None:
    """Return why the names in a file of this status are not those of the process, as the rest of a sentence."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid not in identity.users:
        return f"belongs to user {status.st_uid}, who is neither the process's user nor root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "is writable by others"
    # Runtimes leave the file behind, and numbers of processes are used again, in containers all the time.
    if status.st_mtime < started - _CLOCK_SLACK_S:
        return "was written before the process started"
    return None
