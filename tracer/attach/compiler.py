"""Gets the BPF program, from the cache or from BCC, and loads it: on a thread, as most of a start is spent here.

Imports only what that needs, so that it can begin before numpy and the rest are there.
"""

from __future__ import annotations

import ctypes as ct
import importlib.util
import os
import threading
from typing import Any

import bpf
from symbolizer.cache_folder import default_folder
from tracer.attach.bpf_object import BpfObject, MapSpec, unlink
from tracer.attach.loader import LoadedObject
from tracer.attach.loops import with_closed_loops
from tracer.attach.object_cache import ObjectCache
from tracer.errors import CannotTrace, LeaktraceError
from tracer.settings import AttachWay, Settings

#: BCC's prelude warns about itself.
CFLAGS = ("-w",)
#: What is made of the compiler's output here; another word where that changes, so that the cache forgets.
MADE_OF_IT = "loops closed"
#: Fields of a map's fdinfo (kernel/bpf/syscall.c, bpf_map_show_fdinfo()).
MAP_FIELDS = {"map_type": "type", "key_size": "key_size", "value_size": "value_size", "map_flags": "flags"}


def compile_program(text: str) -> BpfObject:
    """Return what BCC makes of the C in text. Raises CannotTrace."""
    bcc = _import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf.KERNEL_SOURCE)
    try:
        module = bcc.BPF(text=text.encode(), cflags=list(CFLAGS))
    except Exception as problem:  # BCC raises nothing more specific
        raise CannotTrace(f"The BPF program could not be compiled: {problem}.", "The lines above say why.") from None
    # BCC declares no argument types for some calls: a bare number would lose its upper half.
    handle = ct.c_void_p(module.module)
    lib = bcc.lib
    names: dict[int, str] = {}
    maps = []
    lib.bpf_table_name.restype = ct.c_char_p
    for index in range(int(lib.bpf_num_tables(handle))):
        fd = int(lib.bpf_table_fd_id(handle, ct.c_size_t(index)))
        names[fd] = lib.bpf_table_name(handle, ct.c_size_t(index)).decode()
        maps.append(_map_spec(names[fd], fd))
    functions = {}
    lib.bpf_function_name.restype = ct.c_char_p
    for index in range(int(lib.bpf_num_functions(handle))):
        name = lib.bpf_function_name(handle, ct.c_size_t(index))
        size = int(lib.bpf_function_size(handle, name))
        code = unlink(ct.string_at(lib.bpf_function_start(handle, name), size), names)
        functions[name.decode()] = with_closed_loops(code)
    module.cleanup()
    return BpfObject(tuple(maps), functions)


def _map_spec(name: str, fd: int) -> MapSpec:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        fields = dict(line.split(None, 1) for line in lines if ":" in line)
    return MapSpec(name, **{field: int(fields[key + ":"], 0) for key, field in MAP_FIELDS.items()})


def _import_bcc() -> Any:
    try:
        import bcc
    except ImportError as problem:
        raise CannotTrace(f"BCC's Python module cannot be imported ({problem}).",
                          "Install python3-bpfcc (Debian) or python3-bcc (Fedora), and use the distribution's own "
                          "/usr/bin/python3; scripts/leaktrace does both.") from None
    # On the package index there is an unrelated project of that name.
    if not hasattr(bcc, "BPF"):
        raise CannotTrace(f"The Python module bcc at {bcc.__file__} is not the BPF Compiler Collection.",
                          "Uninstall it (pip uninstall bcc) and install python3-bpfcc.")
    return bcc


def _bcc_version() -> str:
    """Return what tells one BCC from another, without loading it."""
    found = importlib.util.find_spec("bcc")
    if found is None or found.origin is None:
        return "none"
    status = os.stat(found.origin)
    return f"{found.origin} {status.st_size} {status.st_mtime_ns}"


def get_program(settings: Settings, way: AttachWay, *, atomics: bool, cache: ObjectCache) -> BpfObject:
    """Return the program for settings, compiled now if it is not in the cache. Raises CannotTrace."""
    return compiled(bpf.source(settings.definitions(way, atomics=atomics)), cache)


def compiled(text: str, cache: ObjectCache) -> BpfObject:
    """Return what BCC makes of text, from the cache if it is there. Raises CannotTrace."""
    key = cache.key(text, _bcc_version(), " ".join((*CFLAGS, MADE_OF_IT)))
    program = cache.load(key)
    if program is None:
        program = compile_program(text)
        cache.store(key, program)
    return program


class Compilation:
    """A LoadedObject in the making; its main function is loaded too, over which the verifier takes its time."""

    def __init__(self, settings: Settings, way: AttachWay, *, atomics: bool) -> None:
        self._loaded: LoadedObject | None = None
        self._problem: LeaktraceError | None = None
        self._thread = threading.Thread(target=self._run, args=(settings, way, atomics), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings, way: AttachWay, atomics: bool) -> None:
        try:
            program = get_program(settings, way, atomics=atomics, cache=ObjectCache(default_folder()))
            loaded = LoadedObject(program, way, settings.map_entries(atomics=atomics))
            if not settings.bare_traps:
                loaded.load("heap_session" if way is AttachWay.SESSION else "heap_return")
            self._loaded = loaded
        except LeaktraceError as problem:
            self._problem = problem

    def wait(self, seconds: float | None = None) -> bool:
        """Return whether it is done, after at most that long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> LoadedObject:
        """Return what was loaded, waiting for it. Raises what went wrong."""
        self._thread.join()
        if self._problem:
            raise self._problem
        if self._loaded is None:
            raise CannotTrace("The compiler ended without a result.", "The lines above say why.")
        return self._loaded
