"""Gives up what a process that talks to others does not need."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

NOBODY = 65534
#: Bytes of memory: pages of the largest reports take some 100 MB to make.
MOST_MEMORY = 2 << 30
#: prctl(2)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def give_up() -> None:
    """Become nobody who can write no file, and end with the process that began this one."""
    # A Ctrl-C is for the trace, which then ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
