"""Starts a command that is held at its first instruction until it may run."""

from __future__ import annotations

import ctypes as ct
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from tracer.attach import ptrace
from tracer.attach.ptrace import Event, Option
from tracer.attach.user import User
from tracer.errors import CannotTrace

#: What shells add to the number of the signal that ended a command.
SIGNALLED = 128
PR_SET_PDEATHSIG = 1


class HeldCommand:
    """A child process before its first instruction, seized (ptrace(2)): attach.follow lets it go on.

    If leaktrace dies while it holds the child, the kernel kills the child: it has not begun its work yet.
    """

    def __init__(self, words: Sequence[str], user: User | None = None) -> None:
        """Start a command with this process's standard streams, as another user if one is given. Raises CannotTrace."""
        environment = dict(os.environ if user is None else user.environment)
        program = shutil.which(words[0], path=environment.get("PATH", os.defpath))
        if program is None:
            raise CannotTrace(f"There is no command {words[0]!r}.", "Give its path, or one that is in PATH.")
        self.status: int | None = None
        ready, go = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(go)
            _run(program, words, environment, user, ready)
        os.close(ready)
        try:
            self._hold()
        finally:
            os.close(go)
        self._wait_for_exec(words[0])

    def _hold(self) -> None:
        try:
            ptrace.request(ptrace.SEIZE, self.pid, Option.SYSGOOD | Option.EXEC | Option.EXITKILL)
        except OSError as problem:
            self.kill()
            raise CannotTrace(f"The command cannot be held: {problem.strerror}.",
                              "leaktrace needs CAP_SYS_PTRACE.") from None

    def _wait_for_exec(self, word: str) -> None:
        while True:
            _, status = os.waitpid(self.pid, ptrace.WALL)
            if not os.WIFSTOPPED(status):
                self.status = status
                raise CannotTrace(f"The command {word!r} could not be started.",
                                  "Try it without leaktrace; the line above says more.")
            stop = ptrace.decode(self.pid, status)
            if stop.event is Event.EXEC:
                return
            ptrace.request(ptrace.CONT, self.pid, 0 if stop.event else stop.signal)

    def wait(self) -> int:
        """Wait for its end; return its exit code as a shell gives it: 128 + N for signal N."""
        if self.status is None:
            _, self.status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else SIGNALLED - code

    def poll(self) -> None:
        """Take note of its end, if it has come."""
        if self.status is None:
            with suppress(ChildProcessError):
                # Its stops are for whoever follows it.
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                # Of a child that is seized, stops come too.
                if found and found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
                    _, self.status = os.waitpid(self.pid, os.WNOHANG)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End a command that cannot be traced after all."""
        if self.status is not None:
            return
        os.kill(self.pid, signal.SIGKILL)
        status = signal.SIGSTOP << 8 | 0x7F
        while os.WIFSTOPPED(status):
            _, status = os.waitpid(self.pid, ptrace.WALL)
            with suppress(ProcessLookupError):
                # Who follows it has it stop once more before it ends.
                ptrace.request(ptrace.CONT, self.pid)
        self.status = status


def _run(program: str, words: Sequence[str], environment: Mapping[str, str], user: User | None, ready: int) -> NoReturn:
    """In the child: become the command, when the other end of the pipe `ready` is closed."""
    try:
        if user is not None:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        # Python ignores it; the command must not inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        # If leaktrace dies before it holds this process, there is nobody to run the command for.
        libc = ct.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.read(ready, 1)
        libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
        os.execve(program, list(words), environment)
    except OSError as problem:
        os.write(2, f"leaktrace: {program}: {problem.strerror}\n".encode())
    os._exit(127)
