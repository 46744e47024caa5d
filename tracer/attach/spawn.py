"""Starts a command that is held at its first instruction, and again whenever it has mapped code, until it may run.

The dynamic loader maps the allocator after exec, and library constructors run before the program's entry point. So the
command is stopped with ptrace(2) after each mapping of code, which gives the caller time to attach, and let go for
good at the entry point.
"""

from __future__ import annotations

import ctypes as ct
import os
import shutil
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from tracer.attach.user import User
from tracer.errors import CannotTrace

_libc = ct.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ct.c_long, ct.c_long, ct.c_void_p, ct.c_void_p)
_libc.ptrace.restype = ct.c_long

PTRACE_TRACEME = 0
PTRACE_POKEUSER = 6
PTRACE_DETACH, PTRACE_SYSCALL = 17, 24
PTRACE_GETREGS = 12
PTRACE_SETOPTIONS = 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_TRACEEXEC, PTRACE_O_EXITKILL = 1, 16, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
SYS_MMAP = 9
PROT_EXEC = 4
AT_ENTRY = 9
#: offsetof(struct user, u_debugreg) (sys/user.h). Bit 0 of register 7 makes register 0 a breakpoint for execution.
DEBUG_REGISTERS = 848
ENABLE_FIRST = 1
WORD = (1 << 64) - 1
#: What shells add to the number of the signal that ended a command.
SIGNALLED = 128
#: struct user_regs_struct (sys/user.h): 27 words, of which these are read.
REGISTERS = struct.Struct("<27Q")
RDX, ORIG_RAX, RIP = 12, 15, 16


class HeldCommand:
    """A child process before its first instruction; release() lets it run up to its entry point, attaching on the way.

    If leaktrace dies while it holds the child, the kernel kills the child: it has not begun its work yet.
    """

    def __init__(self, words: Sequence[str], user: User | None = None) -> None:
        """Start a command with this process's standard streams, as another user if one is given. Raises CannotTrace."""
        environment = dict(os.environ if user is None else user.environment)
        program = shutil.which(words[0], path=environment.get("PATH", os.defpath))
        if program is None:
            raise CannotTrace(f"There is no command {words[0]!r}.", "Give its path, or one that is in PATH.")
        self.status: int | None = None
        self.held = True
        self.pid = os.fork()
        if self.pid == 0:
            _run(program, words, environment, user)
        self._wait()
        if self.status is not None:
            raise CannotTrace(f"The command {words[0]!r} could not be started.",
                              "Try it without leaktrace; the line above says more.")
        self._ptrace(PTRACE_SETOPTIONS, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

    def release(self, mapped: Callable[[], None], stopped: Callable[[], object]) -> None:
        """Let the command run up to its entry point, and go.

        mapped() is called now and, with the command stopped, each time that it has mapped more code; stopped() at each
        stop, to look at what has been traced so far.
        """
        mapped()
        entry = self._entry_point()
        # In the processor and not in the code, where the kernel might take it for a probe of its own.
        self._ptrace(PTRACE_POKEUSER, DEBUG_REGISTERS, entry)
        self._ptrace(PTRACE_POKEUSER, DEBUG_REGISTERS + 8 * 7, ENABLE_FIRST)
        pending = 0
        while True:
            self._ptrace(PTRACE_SYSCALL, 0, pending)
            stop = self._wait()
            if stop is None:
                return
            stopped()
            pending = 0
            registers = self._registers()
            if stop == SYSCALL_STOP:
                if registers[ORIG_RAX] == SYS_MMAP and registers[RDX] & PROT_EXEC:
                    mapped()
            elif stop == signal.SIGTRAP and registers[RIP] == entry:
                self._ptrace(PTRACE_POKEUSER, DEBUG_REGISTERS + 8 * 7, 0)
                self._ptrace(PTRACE_POKEUSER, DEBUG_REGISTERS, 0)
                mapped()
                self._ptrace(PTRACE_DETACH, 0, 0)
                self.held = False
                return
            else:
                pending = stop

    def wait(self) -> int:
        """Wait for its end; return its exit code as a shell gives it: 128 + N for signal N."""
        if self.status is None:
            self._wait()
        code = os.waitstatus_to_exitcode(self.status or 0)
        return code if code >= 0 else SIGNALLED - code

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End a command that cannot be traced after all."""
        self.held = False
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int | None:
        """Return the signal the child stopped with, None if it ended."""
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSTOPPED(status):
            return os.WSTOPSIG(status)
        self.status = status
        self.held = False
        return None

    def _registers(self) -> tuple[int, ...]:
        buffer = ct.create_string_buffer(REGISTERS.size)
        self._ptrace(PTRACE_GETREGS, 0, ct.addressof(buffer))
        return REGISTERS.unpack(buffer.raw)

    def _entry_point(self) -> int:
        with open(f"/proc/{self.pid}/auxv", "rb") as file:
            words = struct.iter_unpack("<QQ", file.read())
        entry: int = next(value for key, value in words if key == AT_ENTRY)
        return entry

    def _ptrace(self, request: int, address: int, data: int) -> int:
        ct.set_errno(0)
        result: int = _libc.ptrace(request, self.pid, address, data)
        if result == -1 and ct.get_errno():
            raise CannotTrace(f"The command cannot be held: {os.strerror(ct.get_errno())}.",
                              "leaktrace needs CAP_SYS_PTRACE, and no other debugger may trace the command.")
        return result & WORD


def _run(program: str, words: Sequence[str], environment: Mapping[str, str], user: User | None) -> NoReturn:
    """In the child: become the command, stopped by the exec."""
    try:
        if user is not None:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        # Python ignores it; the command must not inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _libc.ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.execve(program, list(words), environment)
    except OSError as problem:
        os.write(2, f"leaktrace: {program}: {problem.strerror}\n".encode())
    os._exit(127)
