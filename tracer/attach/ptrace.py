"""ptrace(2) by PTRACE_SEIZE: hold a thread without a signal, look at it, let it go on."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import signal
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

_libc = ct.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ct.c_long, ct.c_long, ct.c_void_p, ct.c_void_p)
_libc.ptrace.restype = ct.c_long

#: Requests (sys/ptrace.h).
CONT, DETACH, SYSCALL = 7, 17, 24
SETOPTIONS, GETEVENTMSG = 0x4200, 0x4201
GETREGSET = 0x4204
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
GET_SYSCALL_INFO = 0x420E
#: For waits (linux/wait.h): also for threads, and for children that send no SIGCHLD.
WALL = 0x40000000
#: With Option.SYSGOOD, what a stop at a system call looks like.
SYSCALL_STOP = signal.SIGTRAP | 0x80
#: Stops of a whole process, which are its own affair.
STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
#: struct ptrace_syscall_info (linux/ptrace.h): op, arch, instruction and stack pointer; at entry the number and six
#: arguments, at exit the result.
_SYSCALL_INFO = struct.Struct("<B3xIQQ7Q")
_ENTRY, _EXIT = 1, 2
#: Sets of registers (linux/elf.h) and their sizes: struct user_regs_struct, and the fxsave area (sys/user.h).
NT_PRSTATUS, NT_PRFPREG = 1, 2
_GENERAL = struct.Struct("<27Q")
#: The sixteen xmm registers stand behind the 8087's.
_FXSAVE_SIZE, _XMM = 512, struct.Struct("<160x32Q")
#: linux/audit.h
ARCH_X86_64 = 0xC000003E
SYS_KCMP, KCMP_VM = 312, 1


class Option(IntFlag):
    """What a seized thread stops for."""

    SYSGOOD = 1
    FORK = 2
    VFORK = 4
    CLONE = 8
    EXEC = 16
    EXIT = 64
    EXITKILL = 1 << 20
    """Not a stop: the thread is killed if leaktrace dies."""


class Event(IntEnum):
    """Why a thread stopped, if it was not a signal or a system call."""

    NONE = 0
    FORK = 1
    VFORK = 2
    CLONE = 3
    EXEC = 4
    VFORK_DONE = 5
    EXIT = 6
    SECCOMP = 7
    STOP = 128


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of a thread: the signal, and the event that made it."""

    tid: int
    signal: int
    event: Event


@dataclass(frozen=True, slots=True)
class SyscallInfo:
    """A stop at a system call. number: at its entry, -1 at its exit; third: the third argument, at its entry."""

    arch: int
    ip: int
    number: int
    third: int


def request(kind: int, tid: int, data: int = 0, address: int = 0) -> int:
    """Make one request. Raises ProcessLookupError if the thread is gone or runs, OSError otherwise."""
    ct.set_errno(0)
    result: int = _libc.ptrace(kind, tid, address, data)
    if result == -1 and ct.get_errno():
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


def event_message(tid: int) -> int:
    """Return what the event of the stopped thread speaks of: the new thread's id, the former id, the exit status."""
    message = ct.c_ulong()
    request(GETEVENTMSG, tid, ct.addressof(message))
    return message.value


def syscall_info(tid: int) -> SyscallInfo:
    """Return which system call the stopped thread is at."""
    buffer = ct.create_string_buffer(_SYSCALL_INFO.size)
    request(GET_SYSCALL_INFO, tid, ct.addressof(buffer), _SYSCALL_INFO.size)
    kind, arch, ip, _sp, number, _first, _second, third, *_ = _SYSCALL_INFO.unpack(buffer.raw)
    return SyscallInfo(arch, ip, number if kind == _ENTRY else -1, third)


def general_registers(tid: int) -> tuple[int, ...]:
    """Return the 27 words of struct user_regs_struct (sys/user.h) of a stopped thread, r15 first.

    Raises ProcessLookupError if the thread is gone or runs, OSError if it is in 32-bit mode.
    """
    return _GENERAL.unpack(_register_set(tid, NT_PRSTATUS, _GENERAL.size))


def vector_registers(tid: int) -> tuple[int, ...]:
    """Return xmm0 to xmm15 of a stopped thread, two words each, the low one first. Raises as general_registers()."""
    return _XMM.unpack_from(_register_set(tid, NT_PRFPREG, _FXSAVE_SIZE))


def _register_set(tid: int, kind: int, size: int) -> bytes:
    buffer = ct.create_string_buffer(size)
    # struct iovec; the kernel says in it how much it has written.
    area = (ct.c_size_t * 2)(ct.addressof(buffer), size)
    request(GETREGSET, tid, ct.addressof(area), kind)
    if area[1] != size:
        raise OSError(errno.EINVAL, f"thread {tid} is not in 64-bit mode")
    return buffer.raw


def next_stop() -> Stop | None:
    """Take the next stop of any thread that this one has seized, without waiting; None if there is none now."""
    try:
        # Stops only: a child that has ended is somebody else's to wait for.
        found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | WALL)
    except ChildProcessError:
        return None
    if found is None or not found.si_pid:
        return None
    return Stop(found.si_pid, found.si_status & 0xFF, Event(found.si_status >> 8 & 0xFF))


def decode(tid: int, status: int) -> Stop:
    """Return what a wait status says of a stop."""
    return Stop(tid, os.WSTOPSIG(status), Event(status >> 16 & 0xFF))


def share_memory(one: int, other: int) -> bool | None:
    """Return whether two processes have the same address space (kcmp(2)); None if the kernel does not say."""
    ct.set_errno(0)
    result: int = _libc.syscall(SYS_KCMP, one, other, KCMP_VM, 0, 0)
    return None if result < 0 else result == 0
