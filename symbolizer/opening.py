"""Opens files as another root sees them, so that a symbolic link in a container never leads into the host's tree."""

import ctypes
import errno
import os
import posixpath
import stat
from mmap import mmap
from typing import Final

from symbolizer.file_map import file_bytes

HOST: Final = "/"
#: Bytes of the largest file that is opened; debug files of the largest programs have about 3 GB.
LIMIT: Final = 4 << 30

_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_RACES: Final = 16  # openat2(2): EAGAIN means that a rename somewhere on the system was in the way
_MANY_LINKS: Final = 40  # path_resolution(7)
_SYSCALL: Final = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    """The struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: str, path: str, limit: int = LIMIT, *, follow_link: bool = True) -> int:
    """Return a file descriptor of the regular file at `path` as seen in `root`, which the caller closes.

    Raises OSError, and ValueError for what is no regular file, is larger than `limit` bytes, or is no path. Unless
    follow_link, a symbolic link at the path itself raises OSError with ELOOP.
    """
    place = _locate(root, path, 0 if follow_link else os.O_NOFOLLOW)
    try:
        # The status comes before the opening: opening a device acts, as /dev/watchdog does.
        status = os.fstat(place)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path!r} is no regular file")
        if status.st_size > limit:
            raise ValueError(f"{path!r} has {status.st_size} bytes")
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(place)


def read_regular(root: str, path: str, limit: int = LIMIT) -> bytes | mmap:
    """Return the bytes of the regular file at `path` as seen in `root`; larger files are mapped. Raises as above."""
    descriptor = open_in_root(root, path, limit)
    try:
        return file_bytes(descriptor)
    finally:
        os.close(descriptor)


def follow(root: str, path: str) -> str:
    """Return the path at which the file itself lies, where `path` names symbolic links to it; raises as above.

    Links among the folders on the way are left as they are, so ".." in the answer must not be shortened.
    """
    for _ in range(_MANY_LINKS):
        place = _locate(root, path, os.O_NOFOLLOW)
        try:
            if not stat.S_ISLNK(os.fstat(place).st_mode):
                return path
            path = posixpath.join(posixpath.dirname(path), os.readlink("", dir_fd=place))
        finally:
            os.close(place)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _locate(root: str, path: str, flags: int = 0) -> int:
    """Return a descriptor (O_PATH) of whatever lies at the path, without opening it."""
    name = os.fsencode(path)
    if not name or b"\0" in name:
        raise ValueError(f"{path!r} is no path")
    flags |= os.O_PATH | os.O_CLOEXEC
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(folder, name, flags)
    except OSError as problem:
        # Before Linux 5.6 (commit fddb5d430ad9) there is no such call, and some sandboxes answer EPERM for what they
        # do not know. Without it no links can be kept inside another root, so only the host's own is read.
        if problem.errno not in (errno.ENOSYS, errno.EPERM) or posixpath.normpath(root) != HOST:
            raise
        return os.open(posixpath.join(HOST, path), flags)
    finally:
        os.close(folder)


def _openat2(folder: int, name: bytes, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    number, failed = _syscall(folder, name, how)
    for _ in range(_RACES):
        if failed != errno.EAGAIN:
            break
        number, failed = _syscall(folder, name, how)
    if number < 0:
        raise OSError(failed, os.strerror(failed), os.fsdecode(name))
    return number


def _syscall(folder: int, name: bytes, how: _OpenHow) -> tuple[int, int]:
    number: int = _SYSCALL(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(name),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return number, ctypes.get_errno()
