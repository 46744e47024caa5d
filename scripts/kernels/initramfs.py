"""The first file system of a machine: a busybox, the modules, and our init."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernels.modules import WANTED, Files, load_order

BUSYBOX = Path("/bin/busybox")
INIT = Path(__file__).with_name("init.sh")
FOLDERS = ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "root")
DIRECTORY, PROGRAM = 0o040755, 0o100755


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder of an archive; mode as in stat(2)."""

    name: str
    mode: int
    data: bytes = b""


def archive(entries: Iterable[Entry]) -> bytes:
    """Return an archive as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").

    Thirteen numbers of eight hexadecimal digits, the name, the data, each padded to four bytes.
    """
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        # inode, mode, owner, group, links, time, size, device (2), device of a special file (2), name's size, checksum
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % each for each in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out)


def parameters(values: Mapping[str, str]) -> bytes:
    """Return a file that init sources: one assignment a line."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()


def initramfs(modules: Path, values: Mapping[str, str]) -> bytes:
    """Return the archive for a kernel with these modules; values are what init.sh reads."""
    files = Files(modules)
    entries = [Entry(name, DIRECTORY) for name in FOLDERS]
    entries.append(Entry("bin/busybox", PROGRAM, BUSYBOX.read_bytes()))
    entries.append(Entry("init", PROGRAM, INIT.read_bytes()))
    entries.append(Entry("parameters", PROGRAM, parameters(values)))
    entries += [Entry(f"modules/{number:02}-{name}.ko", PROGRAM, files[name])
                for number, name in enumerate(load_order(WANTED, files))]  # fmt: skip
    return archive(entries)
