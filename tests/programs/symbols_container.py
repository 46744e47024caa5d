"""Starts a program as containers are started. Arguments: the new root, a JSON object of options, the program and its words.

A mount namespace with the root as its only file system (pivot_root(2)), and as the options say: "overlay" a folder with
lower, upper and work to mount on the root before that, "pids" a pid namespace. All of it ends with the program.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PIVOT_ROOT = 155
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
PR_SET_PDEATHSIG = 1
REFUSED = 77


def call(name: str, *arguments: Any) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        print(f"refused: {name}: {os.strerror(number)}", flush=True)
        sys.exit(REFUSED)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])


def main() -> None:
    root, options, *program = sys.argv[1:]
    options = json.loads(options)
    call("unshare", CLONE_NEWNS | (CLONE_NEWPID if options.get("pids") else 0))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    if folder := options.get("overlay"):
        mount("overlay", root, "overlay", 0, f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work")
    else:
        mount(root, root, None, MS_BIND)
    if options.get("pids"):
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(root)
    # The old root is stacked on the new one, and goes: pivot_root(2), "pivot_root(".", ".")".
    call("syscall", ctypes.c_long(PIVOT_ROOT), b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    os.execve(program[0], program, {"PATH": "/usr/bin"})


main()
