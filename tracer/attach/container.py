"""Containers, told from the paths of control groups."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from symbolizer.printable import printable

#: What stands before the id in the name of a group, by runtime. With the systemd driver the name is PREFIX-ID.scope
#: (docs.docker.com/engine/containers/runmetrics; cri-o's internal/config/cgmgr, PREFIX-ID for cgroupfs;
#: falcosecurity/libs, podman.cpp: libpod-payload is --cgroups=split).
_PREFIXES = {"docker": "docker", "libpod": "podman", "libpod-payload": "podman", "cri-containerd": "containerd",
             "nerdctl": "containerd", "crio": "cri-o"}
#: The group above a bare id, with the cgroupfs driver: docker's own, and containerd's namespace.
_PARENTS = {"docker": "docker", "default": "containerd"}
ID = "[0-9a-f]{64}"
#: PREFIX-ID, PREFIX-ID.scope or a bare ID; SLICE:PREFIX:ID where kubelet and runtime disagree about the driver.
_GROUP = re.compile(rf"(?:(?P<prefix>[\w.-]+)-)?(?P<id>{ID})(?:\.scope)?|[^:]*:(?P<colon>[\w.-]+):(?P<id2>{ID})")
#: A pod of Kubernetes; the systemd driver writes "_" for "-" (pkg/kubelet/cm/cgroup_manager_linux.go). The uid
#: of a static pod is a hash.
_POD = re.compile(r"(?:.*-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?")
_PODMAN_POD = re.compile(rf"(?:.*-)?libpod_pod_({ID})\.slice")
_USER = re.compile(r"user-(\d+)\.slice")


@dataclass(frozen=True, slots=True)
class Container:
    """A container; every text in it is safe to print.

    `id` is 64 hexadecimal digits, for lxc its name. `runtime` is docker, podman, containerd, cri-o, lxc, or "" where
    the path does not say. `pod` is "namespace/name" where the runtime said it, else the pod's uid. `is_sandbox`: it
    only holds a pod's namespaces. `user` is the uid of whom it runs for without root.
    """

    id: str
    runtime: str
    name: str | None = None
    pod: str | None = None
    is_sandbox: bool = False
    user: int | None = None

    @property
    def short_id(self) -> str:
        """The 12 digits that docker ps shows."""
        return self.id[:12] if re.fullmatch(ID, self.id) else self.id

    @property
    def label(self) -> str:
        """What a person knows it by: pod and name as far as they are known, else the id."""
        return "/".join(part for part in (self.pod, self.name) if part) if self.name else self.short_id


def container_in(paths: Iterable[str]) -> Container | None:
    """Return the innermost container of paths as in /proc/PID/cgroup; of several paths, the first that has one."""
    for path in paths:
        parts = path.strip("/").split("/")
        for count in range(len(parts), 0, -1):
            if (found := container_at(parts[:count])) is not None:
                return found
    return None


def container_at(parts: list[str]) -> Container | None:
    """Return the container whose own group the last part names, None if that is no container's."""
    *above, last = parts
    user = next((int(match[1]) for part in above if (match := _USER.fullmatch(part))), None)
    match = _GROUP.fullmatch(last)
    if match is None:
        name = _lxc_name(above, last)
        return Container(name, "lxc", name, user=user) if name else None
    prefix = match["prefix"] or match["colon"]
    if prefix is None:
        # With cgroupfs, podman's pods have a bare id where docker's containers have one.
        if above and above[-1] == "libpod_parent":
            return None
        runtime = _PARENTS.get(above[-1], "") if above else ""
    elif prefix in _PREFIXES:
        runtime = _PREFIXES[prefix]
    elif prefix.endswith("conmon") or not (match["colon"] or last.endswith(".scope")):
        # libpod-conmon and crio-conmon hold the monitor of a container, outside of it.
        return None
    else:
        runtime = ""
    return Container(match["id"] or match["id2"], runtime, pod=_pod(parts), user=user)


def _lxc_name(above: list[str], last: str) -> str | None:
    """Return the name of an lxc container: lxc.payload.NAME, before lxc 4 lxc.payload/NAME, before 3.1 /lxc/NAME.

    The monitor of each has lxc.monitor in the place of lxc.payload (src/lxc/cgroups/cgroup.h).
    """
    if last.startswith("lxc.payload.") or above[-1:] == ["lxc.payload"] or above == ["lxc"]:
        return printable(last.removeprefix("lxc.payload."))
    return None


def _pod(parts: list[str]) -> str | None:
    """Return the uid of the innermost pod among the parts of a path, None if there is none."""
    for count in range(len(parts), 0, -1):
        part = parts[count - 1].partition(":")[0]
        if (match := _POD.fullmatch(part)) and any("kubepods" in each for each in parts[:count]):
            return match[1].replace("_", "-")
        if match := _PODMAN_POD.fullmatch(part):
            return match[1]
        if count > 1 and parts[count - 2] == "libpod_parent" and re.fullmatch(ID, part):
            return part
    return None
