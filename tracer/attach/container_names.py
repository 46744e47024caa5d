"""The names of containers, asked from their runtimes."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symbolizer.printable import printable
from tracer.attach.container import ID, Container

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Sockets with docker's REST API; podman's knows the same request. Below the root folder, {user} is a uid.
_SOCKETS = {"docker": ("run/docker.sock", "var/run/docker.sock"), "podman": ("run/podman/podman.sock",)}
_SOCKETS_OF_USER = {"docker": "run/user/{user}/docker.sock", "podman": "run/user/{user}/podman/podman.sock"}
#: Where containerd keeps the OCI bundles of what runs, NAMESPACE/ID/config.json; k3s brings a containerd of its own.
_BUNDLES = ("run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task")
#: Lists of containers/storage, which podman and cri-o share; the volatile one has those of podman run --rm.
_STORES = ("var/lib/containers/storage/overlay-containers/containers.json",
           "var/lib/containers/storage/overlay-containers/volatile-containers.json",
           "run/containers/storage/overlay-containers/volatile-containers.json")
#: What those of the bundle say about names (containerd's pkg/cri/annotations, nerdctl's pkg/labels).
_ANNOTATIONS = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.container-name",
                "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace", "nerdctl/name")
#: Most bytes that are read of an answer or a file: docker's answer has about 10 KB, a list 2 KB per container.
MOST_ANSWER = 1 << 20
MOST_FILE = 16 << 20
#: Kubernetes allows 253 characters for a pod, 63 for its namespace.
_MOST_NAME = 512


class Names:
    """Asks the runtimes for names; never fails, and asks once for each container.

    `root` is where the host's files lie. `timeout` is in seconds, for one whole answer; a socket that has not
    answered in time is not asked again.
    """

    def __init__(self, root: Path = Path("/"), timeout: float = 1.0) -> None:
        self._root = root
        self._timeout = timeout
        self._known: dict[Container, Container] = {}
        self._lists: dict[Path, tuple[int, dict[str, str]]] = {}
        self._silent: set[str] = set()

    def named(self, container: Container) -> Container:
        """Return the container with name and pod as its runtime has them, as it was where nobody knows them."""
        if container.name is not None or not re.fullmatch(ID, container.id):
            return container
        if container not in self._known:
            self._known[container] = next(self._answers(container), container)
        return self._known[container]

    def _answers(self, container: Container) -> Iterator[Container]:
        """Give what each source has that may know it."""
        runtime = container.runtime
        if runtime in ("containerd", "") and (annotations := self._annotations(container.id)):
            yield _from_annotations(container, annotations)
        for kind in _SOCKETS:
            if runtime in (kind, "") and (name := self._from_socket(kind, container)):
                yield replace(_from_name(container, name), runtime=kind)
        if runtime in ("podman", "cri-o", ""):
            for store in _STORES:
                if name := self._stored(self._root / store).get(container.id):
                    yield _from_name(container, name)

    def _annotations(self, identity: str) -> Mapping[str, str]:
        """Return the annotations of containerd's bundle that speak of names, empty if there are none."""
        for base in _BUNDLES:
            try:
                namespaces = sorted((self._root / base).iterdir())
            except OSError:
                continue
            for namespace in namespaces:
                config = _parse(_read_file(namespace / identity / "config.json"))
                found = config.get("annotations") if isinstance(config, dict) else None
                if isinstance(found, dict):
                    texts = {key: _text(value) for key, value in found.items() if key in _ANNOTATIONS}
                    if any(texts.values()):
                        return {key: value for key, value in texts.items() if value}
        return {}

    def _from_socket(self, kind: str, container: Container) -> str | None:
        paths, owners = [self._root / path for path in _SOCKETS[kind]], {0, os.geteuid()}
        if container.user is not None:
            # In a folder of a user lies what the user likes, a link to another's socket too.
            paths, owners = [self._root / _SOCKETS_OF_USER[kind].format(user=container.user)], {container.user}
        # /var/run is a link to /run nearly everywhere.
        for path in dict.fromkeys(map(os.path.realpath, paths)):
            if path in self._silent or not _is_socket(path, owners):
                continue
            try:
                answer = _parse(_ask(path, container.id, self._timeout))
            except OSError:
                self._silent.add(path)
                continue
            # "Name" begins with a slash (docs.docker.com/reference/api/engine, ContainerInspect).
            name = _text(answer.get("Name")) if isinstance(answer, dict) else None
            if name and (name := name.removeprefix("/")):
                return name
        return None

    def _stored(self, path: Path) -> Mapping[str, str]:
        """Return the first name of each container of a list, by id."""
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return {}
        if path not in self._lists or self._lists[path][0] != changed:
            entries = _parse(_read_file(path))
            names = {}
            for entry in entries if isinstance(entries, list) else []:
                if (isinstance(entry, dict) and isinstance(entry.get("id"), str)
                        and isinstance(entry.get("names"), list) and entry["names"]
                        and (name := _text(entry["names"][0]))):
                    names[entry["id"]] = name
            self._lists[path] = changed, names
        return self._lists[path][1]


def _from_annotations(container: Container, annotations: Mapping[str, str]) -> Container:
    kubernetes = "io.kubernetes.cri."
    space, pod = annotations.get(f"{kubernetes}sandbox-namespace"), annotations.get(f"{kubernetes}sandbox-name")
    return replace(
        container, runtime="containerd",
        name=annotations.get(f"{kubernetes}container-name") or annotations.get("nerdctl/name"),
        pod=f"{space}/{pod}" if space and pod else container.pod,
        is_sandbox=annotations.get(f"{kubernetes}container-type") == "sandbox")


def _from_name(container: Container, name: str) -> Container:
    """Return the container with a name, which for kubelet's is k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT."""
    parts = name.split("_")
    if len(parts) != 6 or parts[0] != "k8s":
        return replace(container, name=name)
    return replace(container, name=parts[1], pod=f"{parts[3]}/{parts[2]}", is_sandbox=parts[1] == "POD")


class _Impatient(socket.socket):
    """A socket on which all receiving together has to end in time."""

    deadline = 0.0

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(buffer, nbytes, flags)


def _ask(path: str, identity: str, timeout: float) -> bytes | None:
    """Return the body of the answer of a runtime's socket about a container, None for one it does not know.

    Raises OSError where nothing usable comes in time (seconds).
    """
    # It takes longer to load than all else here, and only this needs it.
    from http.client import HTTPException, HTTPResponse

    with _Impatient(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.deadline = time.monotonic() + timeout
        connection.settimeout(timeout)
        connection.connect(path)
        request = f"GET /containers/{identity}/json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        try:
            with HTTPResponse(connection, method="GET") as response:
                response.begin()
                if response.status != 200:
                    return None
                body = response.read(MOST_ANSWER + 1)
        except (HTTPException, ValueError) as error:
            raise OSError(str(error)) from None
    if len(body) > MOST_ANSWER:
        raise OSError("the answer has no end")
    return body


def _is_socket(path: str, owners: set[int]) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in owners


def _read_file(path: Path) -> bytes | None:
    """Return what a regular file holds, None where there is none or it is too large."""
    try:
        # A pipe in its place must not make leaktrace wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(MOST_FILE + 1)
    except OSError:
        return None
    return data if len(data) <= MOST_FILE else None


def _parse(data: bytes | None) -> Any:
    try:
        return json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        return None


def _text(value: object) -> str | None:
    """Return what a runtime gave for a name, made safe to print; None if it is none."""
    return printable(value) if isinstance(value, str) and 0 < len(value) <= _MOST_NAME else None
