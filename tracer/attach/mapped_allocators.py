"""What should be probed in a mapped file, by the settings of the trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.mappings import Mapping, ObjectKey
from tracer.attach.allocators import FoundAllocator, custom_entries, find_allocator, find_custom
from tracer.attach.dynamic_loader import WITHOUT_ALLOCATOR
from tracer.attach.free_checks import checks_with, operators_in, with_families
from tracer.attach.links import Plan, plan_probes
from tracer.attach.objects import Objects
from tracer.attach.target import Process
from tracer.settings import Settings


def plans_in(
    process: Process, key: ObjectKey, mapping: Mapping, objects: Objects, settings: Settings
) -> tuple[Plan, ...]:
    """Return a plan for each allocator in a mapped file; found once for all processes that map it."""
    known = objects.plans.get(key)
    if known is not None:
        return known
    file = objects.open(process, key, mapping)
    info = objects.unwind_info(key)
    if file.elf is None or info is None:
        return ()
    plans = tuple(plan_probes(file.elf, info, found) for found in _allocators_in(file.elf, mapping, settings))
    if settings.check_frees:
        plans = tuple(_with_checks(file.elf, plan) for plan in plans)
    objects.plans[key] = plans
    return plans


def _allocators_in(elf: Elf, mapping: Mapping, settings: Settings) -> Iterator[FoundAllocator]:
    wanted = settings.object_path
    try:
        found = None
        if wanted is not None:
            if _is_same_file(mapping, wanted):
                found = find_allocator(elf, settings.symbols_prefix, required=False)
        elif not mapping.path.rpartition("/")[2].startswith(WITHOUT_ALLOCATOR):
            found = find_allocator(elf, settings.symbols_prefix)
            if found is None and settings.check_frees:
                found = operators_in(elf, mapping.path)
        if found:
            yield with_families(elf, found) if settings.check_frees else found
        custom = find_custom(elf, custom_entries(settings.alloc_functions, settings.free_functions))
        if custom:
            yield custom
    except ElfError:
        return


def _with_checks(elf: Elf, plan: Plan) -> Plan:
    """Return the plan with what may be said of frees where it is attached."""
    return replace(plan, allocator=replace(plan.allocator, checks=checks_with(elf, plan.allocator, plan.skipped)))


def _is_same_file(mapping: Mapping, wanted: str) -> bool:
    """Return whether -O names this file: by path, by inode, or in memleak's short form ("c" is libc.so)."""
    if "/" not in wanted:
        name = mapping.path.rpartition("/")[2]
        return name.startswith((f"lib{wanted}.so", f"lib{wanted}-")) or name == wanted
    try:
        return os.path.samestat(os.stat(wanted), os.stat(mapping.path)) or os.stat(wanted).st_ino == mapping.inode
    except OSError:
        return wanted == mapping.path
