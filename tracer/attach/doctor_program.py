"""Whether the kernel takes leaktrace's own program: the one that an earlier trace has compiled, with small tables."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import bpf
from symbolizer.cache_folder import default_folder
from tracer.attach import compiler, kernel
from tracer.attach.bpf_object import BpfObject
from tracer.attach.doctor_answer import Answer, Host, Status, not_tried
from tracer.attach.doctor_bpf import best_way
from tracer.attach.loader import LoadedObject
from tracer.attach.object_cache import ObjectCache
from tracer.errors import CannotTrace
from tracer.settings import AttachWay, Settings

Compiled = tuple[BpfObject, AttachWay]


def compiled() -> Compiled | None:
    """Return the program of a trace without options, and how it would be attached; None if it is not in the cache."""
    way = best_way()
    if way is None:
        return None
    text = bpf.source(Settings().definitions(way, atomics=kernel.has_atomics()))
    cache = ObjectCache(default_folder())
    program = cache.load(cache.key(text, compiler._bcc_version(), " ".join(compiler.CFLAGS)))
    return (program, way) if program else None


def load(program: BpfObject, way: AttachWay) -> None:
    """Make the program's maps, as small as they can be, load its main function, let go of both. Raises CannotTrace."""
    loaded = LoadedObject(program, way, {"ring": mmap.PAGESIZE})
    try:
        loaded.load("heap_session" if way is AttachWay.SESSION else "heap_return")
    finally:
        loaded.close()


def own_program(host: Host, find: Callable[[], Compiled | None] = compiled,
                trial: Callable[[BpfObject, AttachWay], None] = load) -> Answer:
    """Whether the kernel takes the program that will be loaded; nothing is compiled for this, which takes a second."""
    if host.refusal is not None:
        return not_tried(host)
    found = find()
    if found is None:
        return Answer(Status.UNKNOWN, "not tried: it is not compiled yet",
                      "Run leaktrace demo, which compiles and tries it, and look again.")
    try:
        trial(*found)
    except CannotTrace as problem:
        return Answer(Status.MISSING, problem.message.rstrip("."), problem.remedy)
    return Answer(Status.OK, "the kernel took it, as an earlier trace compiled it")
