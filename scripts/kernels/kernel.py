"""A kernel that can be booted: where its image, its modules and its headers lie."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

from kernels.packages import CACHE, Apt, command
from kernels.suites import Suite
from kernels.tree import Tree


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with its files."""

    name: str
    version: str
    """What `uname -r` says in it."""
    image: Path
    modules: Path
    """The folder that it looks for at /lib/modules/VERSION."""


#: Where a kernel comes from.
Origin = Suite | Tree


def kernel(suite: Origin, cache: Path = CACHE) -> Kernel:
    """Return a suite's kernel of today, fetched if it is not here yet, or a tree's; Failure if it cannot be had."""
    if isinstance(suite, Tree):
        return Kernel(suite.name, suite.release(), suite.image, suite.modules(cache))
    with locked(cache, suite):
        apt = Apt(suite, cache / suite.name / "apt")
        apt.update()
        parts = list(apt.parts(version_package(apt, "image")))
        folder = cache / suite.name / f"image-{parts[0].version}"
        if not folder.exists():
            remove_others(folder, "image-*")
            apt.unpack(parts, folder)
        return unpacked(suite.name, folder)


def headers(suite: Origin, cache: Path = CACHE) -> Path:
    """Return the folder in which modules for a suite's kernel are built (make -C FOLDER M=…), fetched if needed.

    Its programs need a libc as new as the suite's: those of trixie do not run on Debian 12, but in roots.root().
    """
    if isinstance(suite, Tree):
        return suite.folder
    with locked(cache, suite):
        apt = Apt(suite, cache / suite.name / "apt")
        apt.update()
        # Not the image, which some headers depend on.
        parts = [each for each in apt.parts(version_package(apt, "headers")) if "-image-" not in each.name
                 and "-binary-" not in each.name and "-modules-" not in each.name]  # fmt: skip
        folder = cache / suite.name / f"headers-{parts[0].version}"
        if not folder.exists():
            remove_others(folder, "headers-*")
            apt.unpack(parts, folder)
            relocate(folder)
        found = sorted((folder / "usr/src").glob("linux-headers-*-cloud-amd64"))
        if not found:
            raise Failure(f"The packages of kernel {suite.name} hold no headers. Remove {folder} and start again.")
        return found[0]


def version_package(apt: Apt, kind: str) -> str:
    """Return the package that linux-{kind}-cloud-amd64 stands for now: the one with the version in its name."""
    meta = apt.show(f"linux-{kind}-cloud-amd64")
    for name in meta.depends:
        if re.match(rf"linux-{kind}-\d", name):
            return name
    raise Failure(f"{meta.name} of {apt.suite.preferred} depends on no kernel.")


def unpacked(name: str, folder: Path) -> Kernel:
    """Return the kernel in a folder with its unpacked packages, its modules' dependencies listed."""
    images = sorted(folder.glob("boot/vmlinuz-*")) or sorted(folder.glob("usr/lib/modules/*/vmlinuz"))
    if len(images) != 1:
        raise Failure(f"The packages of kernel {name} hold {len(images)} images. Remove {folder} and start again.")
    # One folder, also where lib is a link to usr/lib.
    places = list({each.resolve() for each in folder.glob("**/lib/modules/*") if (each / "kernel").is_dir()})
    if len(places) != 1:
        raise Failure(f"The packages of kernel {name} hold no modules. Remove {folder} and start again.")
    modules = places[0]
    if not (modules / "modules.dep").exists():
        # depmod looks in lib/modules only, where the packages of a merged /usr have nothing.
        if not (folder / "lib").exists():
            (folder / "lib").symlink_to("usr/lib")
        command(["depmod", "-b", str(folder), modules.name])
    return Kernel(name, modules.name, images[0], modules)


def relocate(folder: Path) -> None:
    """Have unpacked headers name each other where they lie, as installed ones do at /usr/src and /usr/lib."""
    for link in [each for each in folder.rglob("*") if each.is_symlink()]:
        target = os.readlink(link)
        if target.startswith("/") and (folder / target.lstrip("/")).exists():
            link.unlink()
            link.symlink_to(folder / target.lstrip("/"))
    for makefile in folder.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        makefile.write_text(re.sub(r"(?<![\w.)/-])/usr/(src|lib)/linux-", rf"{folder}/usr/\1/linux-", text))


def remove_others(folder: Path, pattern: str) -> None:
    """Make room: drop what an older version left beside this folder."""
    for other in folder.parent.glob(pattern):
        shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def locked(cache: Path, suite: Suite) -> Iterator[None]:
    """Have a suite's folder for ourselves."""
    (cache / suite.name).mkdir(parents=True, exist_ok=True)
    with (cache / suite.name / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
