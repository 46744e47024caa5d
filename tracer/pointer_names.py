"""Says in words where a pointer was found: which variable, stack frame, register or other memory holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from symbolizer.choices import Style
from symbolizer.data_symbols import DataPlace, DataSymbols, load_biases
from symbolizer.demangle import demangle
from symbolizer.elf import PAGE
from symbolizer.jit_names import JitNames
from symbolizer.jit_symbol import jit_symbol
from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from symbolizer.object_file import ObjectFile
from symbolizer.printable import printable
from symbolizer.symbolizer import Symbolizer
from symbolizer.tls_slots import tls_slots
from symbolizer.unwind_rule import UNSUPPORTED, UnwindRule
from tracer.pointer_places import (
    GlobalPlace,
    MemoryPlace,
    PointerPlace,
    RegisterPlace,
    StackPlace,
    ThreadLocalPlace,
    short_module,
)
from tracer.stack_frames import RED_ZONE, Read, StackFrames, walk
from tracer.thread_locals import Copies, TlsObject

STACK = "[stack]"


class Rules(Protocol):
    """Who knows how to unwind; attach.objects.Objects is one."""

    def rule_for(self, mapping: Mapping, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule of the call before an address, or at it itself where it was interrupted."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A stopped thread's registers that say where its memory is; fs_base is its thread pointer, 0 if not known."""

    tid: int
    sp: int
    bp: int
    ip: int
    fs_base: int = 0


@dataclass(frozen=True, slots=True)
class _Image:
    """One segment of a program or library as it lies in memory, [start, end) up to the end of its last page."""

    start: int
    end: int
    bias: int
    file: ObjectFile


@dataclass(slots=True)
class _Known:
    """What was found out about a thread."""

    thread: Thread
    frames: StackFrames | None = None
    copies: Copies | None = None


class PointerNames:
    """Names places in one process at one time; the tables behind the names are made when first needed.

    read: gives (address, size) → bytes of the process, as of that time; short or empty where there are none.
    """

    def __init__(
        self,
        symbolizer: Symbolizer,
        space: AddressSpace,
        rules: Rules,
        read: Read,
        *,
        style: Style = Style.FULL,
        jit: JitNames | None = None,
    ) -> None:
        """space: the mappings of that time; of the files in it, those that the symbolizer holds have names."""
        self._symbolizer = symbolizer
        self._space = space
        self._rules = rules
        self._read = read
        self._style = style
        self._jit = jit
        self._threads: dict[int, _Known] = {}
        self._data: dict[ObjectFile, DataSymbols | None] = {}

    def add_thread(self, tid: int, *, sp: int, bp: int, ip: int, fs_base: int = 0) -> None:
        """Take the registers of a stopped thread; without them its stack is just memory."""
        self._threads[tid] = _Known(Thread(tid, sp, bp, ip, fs_base))

    def root(self, address: int) -> PointerPlace:
        """Return what lies at an address that is in no tracked block. Never raises: what has no name says so."""
        mapping = self._space.locate(address)
        if mapping is None:
            return MemoryPlace(address, None)
        return (
            self._thread_local(address)
            or self._on_stack(address, mapping)
            or self._global(address, mapping)
            or MemoryPlace(address, printable(mapping.path))
        )

    def register(self, tid: int, name: str) -> RegisterPlace:
        """Return the place of a register, with the function in which its thread was stopped."""
        known = self._threads.get(tid)
        function, code = self._code(known.thread.ip, called=False) if known is not None else (None, None)
        return RegisterPlace(tid, name, function, code)

    # Stacks

    def _on_stack(self, address: int, mapping: Mapping) -> StackPlace | None:
        """Return the frame that holds the address, or just the thread where its frames are not known so far out."""
        # A coroutine's stack may have other stacks near it: only its frames say where it is.
        near = [known for known in self._threads.values() if mapping.start <= known.thread.sp < mapping.end]
        for known in near:
            frame = self._frames(known).at(address)
            if frame is not None:
                function, code = self._code(frame.ip, called=frame.called)
                return StackPlace(address, known.thread.tid, function, address - frame.cfa, code)
        for known in near:
            thread = known.thread
            own = mapping.path == STACK or mapping.start <= thread.fs_base < mapping.end
            if own and address >= thread.sp - RED_ZONE:
                return StackPlace(address, thread.tid)
        return None

    def _frames(self, known: _Known) -> StackFrames:
        if known.frames is None:
            thread = known.thread
            known.frames = walk(thread.sp, thread.bp, thread.ip, self._rule_for, self._read)
        return known.frames

    def _rule_for(self, address: int, interrupted: bool) -> UnwindRule:
        mapping = self._space.locate(address if interrupted else address - 1)
        if mapping is None or not mapping.executable:
            return UNSUPPORTED
        return self._rules.rule_for(mapping, address, interrupted=interrupted)

    def _code(self, ip: int, *, called: bool) -> tuple[str | None, str | None]:
        """Return the function at an instruction, or before it if that was called from there; else module+offset."""
        at = ip - called
        mapping = self._space.locate(at)
        key = object_key(mapping) if mapping is not None else None
        file = self._symbolizer.object_file(key) if key is not None else None
        vaddr = None
        if mapping is not None and file is not None and file.why is None and file.is_whole() and file.elf is not None:
            vaddr = file.elf.file_offset_to_vaddr(mapping.offset_of(at))
            found = file.find_symbol(vaddr) if vaddr is not None else None
            if found is not None:
                return demangle(found[0], self._style), None
        made = self._jit.find(at) if self._jit is not None else None
        if made is not None:
            return jit_symbol(made[0]).function, None
        if file is None or vaddr is None:
            return None, None
        return None, f"{short_module(file.path)}+{vaddr + called:#x}"

    # Variables

    def _global(self, address: int, mapping: Mapping) -> GlobalPlace | None:
        for image in self._images:
            if image.start <= address < image.end:
                vaddr = address - image.bias
                symbols = self._symbols_of(image.file)
                found = symbols.at(vaddr) if symbols is not None else None
                if found is None:
                    return GlobalPlace(address, None, vaddr, image.file.path)
                return GlobalPlace(address, found.name, found.offset, image.file.path, found.is_symbol)
        key = object_key(mapping)
        if key is not None and mapping.is_file and key in self._objects:
            # A program or library that could not be read.
            return GlobalPlace(address, None, mapping.offset_of(address), printable(mapping.path))
        return None

    @cached_property
    def _objects(self) -> dict[ObjectKey, Mapping]:
        return self._space.objects()

    @cached_property
    def _images(self) -> tuple[_Image, ...]:
        """Return where programs and libraries lie, .bss included, which no mapping says is theirs."""
        code: dict[ObjectKey, list[tuple[int, int]]] = {key: [] for key in self._objects}
        for mapping in self._space.mappings:
            key = object_key(mapping)
            if mapping.executable and key is not None and key in code:
                code[key].append((mapping.start, mapping.file_offset))
        found: list[_Image] = []
        for key, places in code.items():
            file = self._symbolizer.object_file(key)
            if file is None or file.why is not None or not file.is_whole() or file.elf is None:
                continue
            for bias in load_biases(file.elf, places):
                for part in file.elf.segments:
                    start, end = bias + part.vaddr, bias + part.vaddr + part.memsz
                    found.append(_Image(start & -PAGE, end + -end % PAGE, bias, file))
        return tuple(found)

    def _symbols_of(self, file: ObjectFile) -> DataSymbols | None:
        if file not in self._data:
            self._data[file] = DataSymbols.of(file, self._style)
        return self._data[file]

    # Thread-local variables

    def _thread_local(self, address: int) -> ThreadLocalPlace | None:
        for known in self._threads.values():
            thread = known.thread
            if not thread.fs_base:
                continue
            if known.copies is None:
                known.copies = Copies.of(thread.fs_base, self._tls_objects, self._read)
            found = known.copies.object_at(address)
            if found is not None:
                place = self._variable(found[0], found[1])
                return ThreadLocalPlace(
                    address, thread.tid, place.name, place.offset, found[0].path, place.is_symbol
                )
            if known.copies.in_static_area(address):
                return ThreadLocalPlace(address, thread.tid)
        return None

    def _variable(self, one: TlsObject, offset: int) -> DataPlace:
        return one.symbols.thread_local(offset) or DataPlace("TLS", offset, is_symbol=False)

    @cached_property
    def _tls_objects(self) -> tuple[TlsObject, ...]:
        """Return the objects with thread-local variables."""
        found: dict[tuple[int, ObjectFile], TlsObject] = {}
        # The kernel maps the program below its libraries.
        program = min(self._images, key=lambda image: image.start, default=None)
        for image in self._images:
            at, symbols = (image.bias, image.file), self._symbols_of(image.file)
            if at in found or symbols is None or symbols.tls is None or image.file.elf is None:
                continue
            is_program = program is not None and at == (program.bias, program.file)
            slots = () if is_program else tls_slots(image.file.elf)
            found[at] = TlsObject(image.file.path, image.bias, symbols, is_program, slots)
        return tuple(found.values())
