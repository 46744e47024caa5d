"""The C++ program with 100 MB of DWARF: built once, kept by a hash of what it is made from."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.child import Failure

GENERATOR = Path(__file__).resolve().parents[2] / "tests" / "programs" / "bench_units.py"
COMPILER = "g++"
FLAGS = ("-std=c++17", "-g", "-O2")
_IN_DWARF = "/bench"


def sources() -> dict[str, str]:
    """Return file name → text, as the generator makes it."""
    spec = importlib.util.spec_from_file_location("bench_units", GENERATOR)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    made: dict[str, str] = generator.sources()
    return made


def key(files: Mapping[str, str], compiler: str) -> str:
    """Return the hash that names a build of these files by this compiler (its version line)."""
    digest = hashlib.sha256("\0".join((compiler, *FLAGS)).encode())
    for name in sorted(files):
        digest.update(f"\0{name}\0{files[name]}".encode())
    return digest.hexdigest()[:16]


def compiler_version() -> str:
    """Return the compiler's first line about itself; Failure if there is none."""
    if not shutil.which(COMPILER):
        raise Failure(f"{COMPILER} is missing: apt install g++")
    done = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def build_folder() -> Path:
    """Return where builds are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leaktrace-bench"


def program(folder: Path, say: Callable[[str], None]) -> Path:
    """Return the program, built in `folder` if it is not there yet."""
    files = sources()
    path = folder / f"units-{key(files, compiler_version())}"
    if path.exists():
        return path
    say(f"building the C++ program in {folder}: once, some minutes")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leaktrace-bench-", dir=folder) as scratch:
        built = _build(files, Path(scratch))
        built.replace(path)
    return path


def _build(files: Mapping[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    objects = [f"{Path(name).stem}.o" for name in files]

    def compiled(name: str) -> None:
        # The same file wherever it is built.
        _run(folder, *FLAGS, f"-ffile-prefix-map={folder}={_IN_DWARF}", "-c", name, "-o", f"{Path(name).stem}.o")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compiled, files))
    _run(folder, *FLAGS, *objects, "-o", "program")
    return folder / "program"


def _run(folder: Path, *arguments: str) -> None:
    done = subprocess.run([COMPILER, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{COMPILER} could not build the program: {done.stderr.strip()[-300:]}")
