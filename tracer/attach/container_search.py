"""The containers of this machine, found by their control groups and by what a user types."""

from __future__ import annotations

from pathlib import Path

from symbolizer.printable import printable
from tracer.attach.cgroup import Cgroup, descendants, hierarchies, members
from tracer.attach.container import Container, container_at
from tracer.attach.container_names import Names
from tracer.attach.target import PROC
from tracer.errors import UsageError

#: Containers that a message names.
_MOST_NAMED = 5
_REMEDY = "Name it by its id, as its runtime lists it, or give its control group to --cgroup."


def containers(proc: Path = PROC, names: Names | None = None) -> list[tuple[Container, Cgroup]]:
    """Return every container that has a control group, with that group; named where `names` is given."""
    found: dict[str, tuple[Container, Cgroup]] = {}
    for hierarchy in hierarchies(proc):
        top = hierarchy.group("/")
        for group in [top, *descendants(top)] if top is not None else []:
            container = container_at(group.path.strip("/").split("/"))
            if container is None:
                continue
            known = found.get(container.id)
            # A hybrid system may have made the folder in version 2, and put the processes elsewhere.
            if known is None or (known[1].version != group.version
                                 and not members(known[1], proc) and members(group, proc)):
                found[container.id] = container, group
    if names is None:
        return list(found.values())
    return [(names.named(container), group) for container, group in found.values()]


def find_container(wanted: str, proc: Path = PROC, names: Names | None = None) -> list[tuple[Container, Cgroup]]:
    """Return the container of an id, of a name, or of a unique beginning of an id; of a pod, all its containers.

    A pod is "namespace/name", its uid, or its name alone; "namespace/name/container" is one of its containers. An
    id may have kubectl's "runtime://" before it. Raises UsageError for an unknown and for an ambiguous one.
    """
    text = wanted.rpartition("://")[2].strip("/ ")
    if not text:
        raise UsageError("The name of the container is empty.", _REMEDY)
    asked = names if names is not None else Names()
    unnamed = containers(proc)
    if exact := [each for each in unnamed if text == each[0].id]:
        return [(asked.named(container), group) for container, group in exact]
    found = [(asked.named(container), group) for container, group in unnamed]
    if called := [each for each in found if text in (each[0].name, _name_in_pod(each[0]))]:
        return _only(wanted, called)
    uid = text.replace("_", "-")
    if inside := [each for each, (bare, _) in zip(found, unnamed, strict=True)
                  if (pod := each[0].pod) and (text in (pod, pod.rpartition("/")[2]) or uid == bare.pod)]:
        return _whole_pod(wanted, inside)
    if begun := [each for each in found if each[0].id.startswith(text)]:
        return _only(wanted, begun)
    raise UsageError(f"There is no running container {printable(wanted)}; {_seen(found)}.", _REMEDY)


def _name_in_pod(container: Container) -> str | None:
    return f"{container.pod}/{container.name}" if container.pod and container.name else None


def _only(wanted: str, pairs: list[tuple[Container, Cgroup]]) -> list[tuple[Container, Cgroup]]:
    if len(pairs) > 1:
        raise UsageError(f"{printable(wanted)} means {len(pairs)} containers: {_list(pairs)}.",
                         "Name one by more of its id.")
    return pairs


def _whole_pod(wanted: str, pairs: list[tuple[Container, Cgroup]]) -> list[tuple[Container, Cgroup]]:
    """Return the containers of a pod in which something runs."""
    if len(pods := sorted({container.pod or "" for container, _ in pairs})) > 1:
        more = f" and {len(pods) - _MOST_NAMED} more" if len(pods) > _MOST_NAMED else ""
        raise UsageError(f"{printable(wanted)} means {len(pods)} pods: {', '.join(pods[:_MOST_NAMED])}{more}.",
                         "Name one as NAMESPACE/POD.")
    return [each for each in pairs if not each[0].is_sandbox] or pairs


def _seen(pairs: list[tuple[Container, Cgroup]]) -> str:
    shown = [each for each in pairs if not each[0].is_sandbox]
    return f"there are {_list(shown)}" if shown else "no control group on this machine is that of a container"


def _list(pairs: list[tuple[Container, Cgroup]]) -> str:
    """Return a few containers with their runtimes, as a message names them."""
    words = [" ".join(dict.fromkeys(filter(None, (each.runtime, each.label, each.short_id)))) for each, _ in pairs]
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more
