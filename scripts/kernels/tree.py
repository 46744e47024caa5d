"""A kernel of one's own: the tree of sources in which it was built."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

from kernels.packages import CACHE, command

#: What one writes in place of a kernel's name has one of these in it.
SEPARATOR = "/"


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder with a kernel's sources and what was built of them."""

    folder: Path

    @property
    def name(self) -> str:
        """What it is called beside the kernels that have a name."""
        return self.folder.name

    @property
    def image(self) -> Path:
        """What is booted."""
        return self.folder / "arch/x86/boot/bzImage"

    def release(self) -> str:
        """Return what `uname -r` says in it; Failure if it is not built."""
        path = self.folder / "include/config/kernel.release"
        if not self.image.exists() or not path.exists():
            raise Failure(f"{self.folder} holds no kernel that is built for x86-64. Run make there.")
        return path.read_text().strip()

    def modules(self, cache: Path = CACHE) -> Path:
        """Install its modules into a folder of ours, and return the one of this release; it may be empty."""
        release = self.release()
        place = cache / "trees" / re.sub(r"\W+", "-", str(self.folder).strip(SEPARATOR))
        shutil.rmtree(place, ignore_errors=True)
        folder = place / "lib/modules" / release
        folder.mkdir(parents=True)
        if (self.folder / "modules.order").exists():
            command(["make", "-s", "-C", str(self.folder), "modules_install", f"INSTALL_MOD_PATH={place}",
                     "INSTALL_MOD_STRIP=1"])  # fmt: skip
        return folder
