"""The modules that a kernel needs before it sees any file: found, unpacked, and put in the order that they load in."""

from __future__ import annotations

import lzma
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.child import Failure

#: What mounts the root. A kernel that has one of these built in has no module for it.
WANTED = ("virtio_pci", "virtiofs", "overlay")


def module_name(path: Path) -> str:
    """Return a module's name, which its file may write with hyphens."""
    return path.name.partition(".ko")[0].replace("-", "_")


def contents(path: Path) -> bytes:
    """Return a module's ELF file: .ko, .ko.xz, .ko.gz or .ko.zst."""
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return zlib.decompress(data, wbits=31)
        case ".zst":
            done = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False)
            if done.returncode:
                raise Failure(f"{path} cannot be unpacked: {done.stderr.decode(errors='replace').strip()}")
            return done.stdout
    return data


def dependencies(module: bytes) -> list[str]:
    """Return the modules that a module needs first, as its section .modinfo says (a list of NUL-ended KEY=VALUE)."""
    match = re.search(rb"(?:^|\0)depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []


def load_order(wanted: Iterable[str], files: Mapping[str, bytes]) -> list[str]:
    """Return the wanted modules and all that they need, each behind what it needs; those not in files are built in."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or name not in files:
            return
        for needed in dependencies(files[name]):
            add(needed)
        order.append(name)

    for name in wanted:
        add(name)
    return order


class Files(Mapping[str, bytes]):
    """The modules of a folder by name, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = {module_name(path): path for path in folder.rglob("*.ko*")}
        self.read: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self.read:
            self.read[name] = contents(self.paths[name])
        return self.read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.paths

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)
