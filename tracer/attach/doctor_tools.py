"""What leaktrace itself is made with: Python and its packages, the compiler, and where names come from."""

from __future__ import annotations

import importlib.util
import platform
import posixpath
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from symbolizer.packages import Packages
from tracer.attach import compiler
from tracer.attach.doctor_answer import Answer, Host, Status
from tracer.errors import CannotTrace

#: What is imported, and what it is called where packages are.
PACKAGES = {"capstone": "capstone", "cffi": "cffi", "click": "click", "elftools": "pyelftools", "numpy": "numpy",
            "pyderust": "pyderust", "symbolic": "symbolic"}
#: Seconds that a server is given to take a connection: it answers within a fraction, or downloads will be slow.
REACH_S = 0.5
_LLVM = re.compile(r"/libLLVM(?:-|\.so\.)(\d+(?:\.\d+)*)")
_LIBC = re.compile(r"\s(/\S*/libc(?:\.so\.6|-2\.\d+\.so))$", re.MULTILINE)


def python(host: Host) -> Answer:
    """Which Python runs this; one that is too old does not come so far."""
    return Answer(Status.OK, f"{platform.python_version()}, {sys.executable}")


def packages(host: Host, find: Callable[[str], object] = importlib.util.find_spec) -> Answer:
    """Whether the Python packages are there that leaktrace imports."""
    absent = [name for module, name in PACKAGES.items() if find(module) is None]
    if absent:
        return Answer(Status.MISSING, f"not there: {', '.join(absent)}",
                      f"Run: {sys.executable} -m pip install {' '.join(absent)} (scripts/leaktrace does that).")
    return Answer(Status.OK, ", ".join(PACKAGES.values()))


def bcc(host: Host) -> Answer:
    """Whether BCC is there, is the right one, and which LLVM it brings."""
    try:
        module = compiler._import_bcc()
    except CannotTrace as problem:
        return Answer(Status.MISSING, problem.message.rstrip("."), problem.remedy)
    except OSError as problem:
        return Answer(Status.MISSING, f"BCC's library cannot be loaded ({problem})", "Install libbpfcc (Debian).")
    llvm = llvm_version(host.read("/proc/self/maps") or "")
    return Answer(Status.OK, f"BCC {getattr(module, '__version__', 'of unknown version')}, {llvm}")


def llvm_version(maps: str) -> str:
    """Return the version of the LLVM that is mapped, by the text of /proc/PID/maps."""
    match = _LLVM.search(maps)
    return f"LLVM {match[1]}" if match else "LLVM is part of it"


def debug_file(path: str) -> str | None:
    """Return where the debug symbols of an object lie on this machine, None if they are not there. Raises OSError."""
    from symbolizer.debug_files import DebugFiles
    from symbolizer.elf import Elf
    from symbolizer.elf_error import ElfError, ElfUnsupported

    try:
        found = DebugFiles().companion(Elf(Path(path).read_bytes()), path)
    except (ElfError, ElfUnsupported) as problem:
        raise OSError(str(problem)) from None
    return found.path if found else None


def debug_symbols(host: Host, find: Callable[[str], str | None] = debug_file,
                  reachable: Callable[[str], bool] | None = None, remedy: Callable[[str], str] | None = None) -> Answer:
    """Whether libc's debug symbols are on this machine, or a debuginfod server could be asked for them."""
    match = _LIBC.search(host.read("/proc/self/maps") or "")
    if match is None:
        return Answer(Status.UNKNOWN, "leaktrace itself runs without glibc, so there is none to look for")
    path = match[1]
    found = find(path)
    if found is not None:
        return Answer(Status.OK, f"of {posixpath.basename(path)}, in {posixpath.dirname(found)}")
    return _by_download(host, path, reachable or is_reachable, remedy or _package)


def _by_download(host: Host, path: str, reachable: Callable[[str], bool], remedy: Callable[[str], str]) -> Answer:
    urls = [url for url in host.environ.get("DEBUGINFOD_URLS", "").split() if urlsplit(url).hostname]
    nothing = f"none for {path} on this machine"
    if not urls:
        keep = " sudo takes it away: name it behind sudo." if "SUDO_UID" in host.environ else ""
        return Answer(Status.MISSING, f"{nothing}, and DEBUGINFOD_URLS names no server",
                      f"{remedy(path)} or set DEBUGINFOD_URLS.{keep}")
    answering = [url for url in urls if reachable(url)]
    if answering:
        return Answer(Status.OK, f"{nothing}, but {urlsplit(answering[0]).hostname} of DEBUGINFOD_URLS answers")
    return Answer(Status.PARTLY, f"{nothing}, and no server of DEBUGINFOD_URLS answers within {REACH_S} s",
                  f"{remedy(path)} or see that {urlsplit(urls[0]).hostname} can be reached.")


def _package(path: str) -> str:
    found = Packages().remedy(path)
    return f"Run: {found.command}" if found else "Install the debug symbols of libc,"


def is_reachable(url: str) -> bool:
    """Whether a server takes a connection soon; nothing is asked of it."""
    parts = urlsplit(url)
    answered: list[bool] = []

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=REACH_S).close()
            answered.append(True)
        except (OSError, ValueError):
            pass

    # On a thread: the look-up of a name heeds no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return bool(answered)
