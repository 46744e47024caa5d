"""Reads DWARF in a process of its own, without rights and within limits: what a damaged file does there stays there.

The process is started by line_service. It takes requests over a socket, one JSON text each, with the descriptors of
the files they speak of; it answers each with a JSON text, and a descriptor where the answer is large.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import struct
from typing import Any

#: Bytes of a request or of an answer without its descriptor.
LONGEST_MESSAGE = 1 << 20
#: Descriptors in one request: a file and its supplement.
MOST_FILES = 2
#: Of memory for the tables of one file; mapped files do not count. Tables of 16 MB of .debug_info take some 100 MB.
MOST_MEMORY = 2 << 30
LONGEST_ANSWER = 1 << 30
NOBODY = 65534
#: prctl(2)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def main(reads_entries: bool) -> None:
    """Answer requests until the other side closes the socket that is standard input.

    Without reads_entries it answers `convert` only, and is there sooner.
    """
    _load(reads_entries)
    _give_up_rights()
    connection = socket.socket(fileno=0)
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, MOST_FILES)
        if not text:
            return
        try:
            answer, result = _answer(json.loads(text), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        socket.send_fds(connection, [json.dumps(answer).encode()], [] if result is None else [result])
        if result is not None:
            os.close(result)


def _load(reads_entries: bool) -> None:
    """Load what answers need, before the user changes: afterwards it may lie where nobody may read."""
    import cffi  # noqa: F401
    import symbolic.debuginfo
    import symbolic.symcache  # noqa: F401

    if reads_entries:
        import symbolizer.die_names  # noqa: F401


def _give_up_rights() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONGEST_ANSWER, LONGEST_ANSWER))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _answer(request: dict[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], int | None]:
    try:
        if request["do"] == "convert":
            return {}, convert(descriptors, request)
        from symbolizer import die_names

        if request["do"] == "ranges":
            return {}, _shared(die_names.unit_ranges(descriptors[0]).to_bytes())
        if request["do"] == "names":
            return {"names": die_names.names(descriptors, request["vaddr"])}, None
        return {"place": die_names.place(descriptors[0], request["vaddr"])}, None
    except MemoryError:
        return {"error": "it needs too much memory"}, None
    except Exception as problem:
        # Whatever a damaged file makes a library raise: it cannot be read.
        return {"error": f"{type(problem).__name__}: {problem}"[:200]}, None


def convert(descriptors: list[int], request: dict[str, Any]) -> int:
    """Return a descriptor of the file's lines in symbolic's sorted form.

    `hidden` are the file offsets of section types to hide: tables that would be sorted for nothing. A second
    descriptor has changes to make before, pairs of u64: offset in the file, byte to put there (unit_skips.py).
    """
    import cffi
    from symbolic.debuginfo import Archive

    data = mmap.mmap(descriptors[0], 0, access=mmap.ACCESS_COPY)
    for offset in request["hidden"]:
        data[offset : offset + 4] = bytes(4)
    if len(descriptors) > 1:
        changes = mmap.mmap(descriptors[1], 0, access=mmap.ACCESS_READ)
        for offset, byte in struct.iter_unpack("<QQ", changes):
            data[offset] = byte
    # symbolic does not copy the bytes, so they must outlive the archive: both end with this call.
    view: Any = cffi.FFI().from_buffer("uint8_t[]", data)
    archive = Archive.from_bytes(view)
    cache: Any = next(archive.iter_objects()).make_symcache()
    result = _shared(b"")
    with os.fdopen(os.dup(result), "wb") as out:
        cache.dump_into(out)
    return result


def _shared(content: bytes) -> int:
    """Return a descriptor of a file with these bytes."""
    result = os.memfd_create("answer", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(result), "wb") as out:
        out.write(content)
    return result
