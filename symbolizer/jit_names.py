"""The names of one process's JIT code: which /tmp/perf-PID.map is its own and believed, and when it is read again."""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from symbolizer.opening import open_in_root
from symbolizer.perf_map import PerfMap
from symbolizer.printable import printable

LONGEST_FILE = 256 << 20  # bytes; of a longer file the newest part is read
ANY_LENGTH = 1 << 62


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

    def finish(self) -> None:
        """The process has ended: read what it wrote last, and let go of it."""
        self._check()
        self.close()

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
