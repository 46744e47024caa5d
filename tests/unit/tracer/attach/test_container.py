"""Containers told from paths of control groups, their names from runtimes good and bad, and finding one by a word."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracer.attach.container import Container, container_in
from tracer.attach.container_names import MOST_ANSWER, Names
from tracer.attach.container_search import containers, find_container
from tracer.errors import UsageError

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
OTHER = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
UID = "91a8fc3a-0ecf-48b4-81bf-78a7275d348c"
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
STATIC = "7260904bbd08e72e4dff95d9fccd2ee8"
OF_USER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(("path", "expected"), [
    (f"/docker/{ID}", Container(ID, "docker")),
    (f"/system.slice/docker-{ID}.scope", Container(ID, "docker")),
    (f"{OF_USER}/user.slice/docker-{ID}.scope", Container(ID, "docker", user=1000)),
    (f"/machine.slice/libpod-{ID}.scope", Container(ID, "podman")),
    (f"/machine.slice/libpod-{ID}.scope/container", Container(ID, "podman")),
    (f"{OF_USER}/user.slice/libpod-{ID}.scope/container", Container(ID, "podman", user=1000)),
    (f"/libpod_parent/libpod-{ID}", Container(ID, "podman")),
    (f"/libpod_parent/{OTHER}/libpod-{ID}", Container(ID, "podman", pod=OTHER)),
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", Container(ID, "podman", pod=OTHER)),
    (f"/system.slice/web.service/libpod-payload-{ID}", Container(ID, "podman")),
    (f"/system.slice/nerdctl-{ID}.scope", Container(ID, "containerd")),
    (f"/default/{ID}", Container(ID, "containerd")),
    (f"{SLICE}/cri-containerd-{ID}.scope", Container(ID, "containerd", pod=UID)),
    (f"{SLICE}/crio-{ID}.scope", Container(ID, "cri-o", pod=UID)),
    (f"{SLICE}/docker-{ID}.scope", Container(ID, "docker", pod=UID)),
    (f"/kubepods.slice/kubepods-pod{STATIC}.slice/cri-containerd-{ID}.scope", Container(ID, "containerd", pod=STATIC)),
    (f"/kubepods/burstable/pod{UID}/{ID}", Container(ID, "", pod=UID)),
    (f"/kubepods/pod{UID}/crio-{ID}", Container(ID, "cri-o", pod=UID)),
    (f"/system.slice/containerd.service/{SLICE.rpartition('/')[2]}:cri-containerd:{ID}", Container(ID, "containerd", pod=UID)),
    (f"{SLICE}/cri-containerd-{ID}.scope/system.slice/nginx.service", Container(ID, "containerd", pod=UID)),
    (f"/docker/{ID}/init.scope", Container(ID, "docker")),
    (f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{STATIC}.slice/cri-containerd-{ID}.scope",
     Container(ID, "containerd", pod=STATIC)),
    (f"/actions_job/{ID}", Container(ID, "")),
    (f"/system.slice/new-runtime-{ID}.scope", Container(ID, "")),
    ("/lxc.payload.web-1", Container("web-1", "lxc", "web-1")),
    ("/lxc.payload/web-1/system.slice/x.service", Container("web-1", "lxc", "web-1")),
    ("/lxc/101/ns", Container("101", "lxc", "101")),
    (f"/lxc.payload.c/docker/{ID}", Container(ID, "docker")),
])  # fmt: skip
def test_the_path_of_a_container(path: str, expected: Container) -> None:
    """Each runtime's way to name a group is understood, the innermost container of nested ones counts."""
    assert container_in([path]) == expected


@pytest.mark.parametrize("path", [
    "/", "", "/init.scope", "/system.slice/docker.service", "/system.slice/containerd.service", "/docker", "/lxc",
    "/user.slice/user-1000.slice/user@1000.service/apps.slice/vte-spawn-75bc72bd-6642-4cf5-b62c-0674e11bfc84.scope",
    "/system.slice/run-r0123456789abcdef0123456789abcdef.scope", "/lxc.monitor.web-1", "/lxc.monitor/web-1",
    f"/machine.slice/libpod-conmon-{ID}.scope", f"{SLICE}/crio-conmon-{ID}.scope", SLICE, f"/kubepods/burstable/pod{UID}",
    f"/libpod_parent/{ID}", f"/machine.slice/machine-libpod_pod_{ID}.slice", f"/system.slice/{ID}.service",
    f"/system.slice/backup-{ID}", f"/docker/{ID[:32]}", f"/docker/{ID}00", f"/docker/{ID.upper()}", "/system.slice/lxc/x",
])  # fmt: skip
def test_the_path_of_no_container(path: str) -> None:
    """Services, sessions, pods and the monitors of containers are none."""
    assert container_in([path]) is None


def test_the_first_path_that_has_one() -> None:
    """On a hybrid system any of the paths may name the container."""
    assert container_in(["/", f"/docker/{ID}", f"/system.slice/crio-{OTHER}.scope"]) == Container(ID, "docker")
    assert container_in([]) is None


def test_text_of_a_path_is_safe() -> None:
    """A group's name that could disturb a terminal is written out."""
    assert container_in(["/lxc.payload.a\x1b[2J"]) == Container(r"a\x1b[2J", "lxc", r"a\x1b[2J")


class Runtime:
    """A unix socket that answers each request with what `answer` sends, and counts the requests."""

    def __init__(self, path: Path, answer: Callable[[socket.socket, str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.requests: list[str] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                request = connection.recv(4096).decode()
                if not request:
                    return
                self.requests.append(request.partition("\r\n")[0])
                try:
                    self._answer(connection, self.requests[-1].split("/")[2])
                except OSError:
                    # Whoever asked has had enough.
                    continue

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._socket.getsockname())
        self._thread.join()
        self._socket.close()


Serve = Callable[..., Runtime]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a runtime, docker unless a path is given."""
    started = []

    def start(answer: Callable[[socket.socket, str], None], path: str = "run/docker.sock") -> Runtime:
        started.append(Runtime(tmp_path / path, answer))
        return started[-1]

    yield start
    for runtime in started:
        runtime.close()


def send(body: bytes, status: str = "200 OK") -> Callable[[socket.socket, str], None]:
    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer


def inspect(names: dict[str, str]) -> Callable[[socket.socket, str], None]:
    """Answer as docker does for its containers, by id."""

    def answer(connection: socket.socket, identity: str) -> None:
        found = names.get(identity)
        body = {"Id": identity, "Name": f"/{found}"} if found else {"message": "No such container"}
        send(json.dumps(body).encode(), "200 OK" if found else "404 Not Found")(connection, identity)

    return answer


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("runtime", "path"), [("docker", "run/docker.sock"), ("docker", "var/run/docker.sock"),
                                               ("podman", "run/podman/podman.sock")])
def test_a_name_from_a_socket(tmp_path: Path, serve: Serve, runtime: str, path: str) -> None:
    """docker and podman are asked at their sockets, once for each container, with nothing but a GET of that container."""
    socket_ = serve(inspect({ID: "web"}), path)
    names = Names(tmp_path)
    for _ in range(2):
        assert names.named(Container(ID, runtime)) == Container(ID, runtime, "web")
    assert names.named(Container(OTHER, runtime)) == Container(OTHER, runtime)
    assert socket_.requests == [f"GET /containers/{identity}/json HTTP/1.1" for identity in (ID, OTHER)]


def test_the_same_socket_is_asked_once(tmp_path: Path, serve: Serve) -> None:
    """/var/run is a link to /run: what one does not know, the other does not know either."""
    socket_ = serve(inspect({}))
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to(tmp_path / "run")
    assert Names(tmp_path).named(Container(ID, "docker")).name is None
    assert len(socket_.requests) == 1


def test_the_socket_of_a_user(tmp_path: Path, serve: Serve) -> None:
    """A container that runs without root is asked for at its user's socket, if that is the user's own."""
    user = os.getuid()
    socket_ = serve(inspect({ID: "mine"}), f"run/user/{user}/docker.sock")
    assert Names(tmp_path).named(Container(ID, "docker", user=user)).name == "mine"
    (tmp_path / f"run/user/{user + 1}").mkdir()
    (tmp_path / f"run/user/{user + 1}/docker.sock").symlink_to(tmp_path / f"run/user/{user}/docker.sock")
    assert Names(tmp_path).named(Container(ID, "docker", user=user + 1)).name is None
    assert len(socket_.requests) == 1


def test_a_runtime_that_is_told_by_its_answer(tmp_path: Path, serve: Serve) -> None:
    """Where the path does not say the runtime, the one that knows the container is it, its k8s_ name tells the pod."""
    serve(inspect({ID: f"k8s_nginx_web-0_shop_{UID}_0", OTHER: f"k8s_POD_web-0_shop_{UID}_0"}))
    names = Names(tmp_path)
    assert names.named(Container(ID, "", pod=UID)) == Container(ID, "docker", "nginx", "shop/web-0")
    assert names.named(Container(OTHER, "", pod=UID)) == Container(OTHER, "docker", "POD", "shop/web-0", is_sandbox=True)


def endless(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


def dripping(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _pause in range(100):
        connection.sendall(b" ")
        time.sleep(0.05)


def slow(_: socket.socket, __: str) -> None:
    time.sleep(0.6)


HOSTILE: list[Callable[[socket.socket, str], None]] = [
    endless, dripping, slow, send(b'{"Name": "/we'), send(b"\xff\xfe\x00"), send(b"[" * 100_000), send(b"[]"), send(b"7"),
    send(b"{}"), send(b'{"Name": 7}'), send(b'{"Name": ""}'), send(b'{"Name": "/"}'), send(b'{"Name": null}'),
    send(json.dumps({"Name": "/" + "a" * 10_000}).encode()), send(b'{"Name": "/web"}', "500 Internal Server Error"),
    send(b'{"Name": "/web"}', "307 Temporary Redirect\r\nLocation: http://localhost/"),
    send(b" " * (MOST_ANSWER + 1) + b"7"), lambda connection, _: connection.sendall(b"nonsense\r\n\r\n"),
    lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000),
    lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
    lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"),
    lambda connection, _: None,
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE)
def test_hostile_answers(tmp_path: Path, serve: Serve, answer: Callable[[socket.socket, str], None]) -> None:
    """Whatever a socket answers, it ends soon, and is no name."""
    serve(answer)
    begin = time.monotonic()
    assert Names(tmp_path, timeout=0.4).named(Container(ID, "docker")) == Container(ID, "docker")
    assert time.monotonic() - begin < 2


def test_an_endless_answer_is_not_kept(tmp_path: Path, serve: Serve) -> None:
    """An answer without end is given up at a size, however much time there is."""
    serve(endless)
    begin = time.monotonic()
    assert Names(tmp_path, timeout=4).named(Container(ID, "docker")).name is None
    assert time.monotonic() - begin < 2


def test_a_slow_socket_is_asked_once(tmp_path: Path, serve: Serve) -> None:
    """A hundred containers of a runtime that hangs do not cost a hundred time-outs."""
    socket_ = serve(slow)
    names = Names(tmp_path, timeout=0.1)
    for index in range(100):
        assert names.named(Container(f"{index:064x}", "docker")).name is None
    assert len(socket_.requests) == 1


def test_sockets_that_are_none(tmp_path: Path) -> None:
    """Nothing, a plain file, and a socket at which nobody listens give no name."""
    container = Container(ID, "docker")
    assert Names(tmp_path).named(container) == container
    (tmp_path / "run").mkdir()
    (tmp_path / "run/docker.sock").write_text("")
    assert Names(tmp_path).named(container) == container
    (tmp_path / "run/docker.sock").unlink()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "run/docker.sock"))
    assert Names(tmp_path).named(container) == container


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\u202eb", "a\nb"])
def test_names_are_safe(tmp_path: Path, serve: Serve, text: str) -> None:
    """A name that could disturb a terminal is written out."""
    serve(inspect({ID: text}))
    name = Names(tmp_path).named(Container(ID, "docker")).name
    assert name is not None
    assert name.isprintable()


BUNDLE = "run/containerd/io.containerd.runtime.v2.task/k8s.io"
CRI = {"io.kubernetes.cri.container-name": "nginx", "io.kubernetes.cri.container-type": "container",
       "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "shop"}
SANDBOX = {key: value for key, value in CRI.items() if "container" not in key} | {"io.kubernetes.cri.container-type": "sandbox"}


@pytest.mark.parametrize("runtime", ["containerd", ""])
@pytest.mark.parametrize(("annotations", "expected"), [
    (CRI, Container(ID, "containerd", "nginx", "shop/web-0")),
    (SANDBOX, Container(ID, "containerd", None, "shop/web-0", is_sandbox=True)),
    ({"nerdctl/name": "web", "other": 7}, Container(ID, "containerd", "web", UID)),
])  # fmt: skip
def test_a_name_from_a_bundle(tmp_path: Path, runtime: str, annotations: dict[str, Any], expected: Container) -> None:
    """containerd's containers have their names and pods in the annotations of their bundle, in whatever namespace."""
    (tmp_path / BUNDLE).with_name("default").mkdir(parents=True)
    write_json(tmp_path / BUNDLE / ID / "config.json", {"ociVersion": "1.1.0", "annotations": annotations})
    assert Names(tmp_path).named(Container(ID, runtime, pod=UID)) == expected


@pytest.mark.parametrize("content", ["", "{", "[]", '{"annotations": []}', '{"annotations": {"nerdctl/name": {}}}', "[" * 99_999])
def test_broken_bundles(tmp_path: Path, content: str) -> None:
    """A bundle that says nothing usable gives no name."""
    (tmp_path / BUNDLE / ID).mkdir(parents=True)
    (tmp_path / BUNDLE / ID / "config.json").write_text(content)
    assert Names(tmp_path).named(Container(ID, "containerd")) == Container(ID, "containerd")


def test_a_pipe_for_a_bundle(tmp_path: Path) -> None:
    """A pipe in place of a file is not waited for."""
    (tmp_path / BUNDLE / ID).mkdir(parents=True)
    os.mkfifo(tmp_path / BUNDLE / ID / "config.json")
    assert Names(tmp_path).named(Container(ID, "containerd")).name is None


@pytest.mark.parametrize("path", ["var/lib/containers/storage/overlay-containers/containers.json",
                                  "var/lib/containers/storage/overlay-containers/volatile-containers.json",
                                  "run/containers/storage/overlay-containers/volatile-containers.json"])
def test_a_name_from_a_store(tmp_path: Path, path: str) -> None:
    """Without a socket, podman's and cri-o's containers are named by their lists, which are read again once changed."""
    write_json(tmp_path / path, [7, {"id": OTHER}, {"id": OTHER, "names": []}, {"id": ID, "names": ["web", "also"]}])
    names = Names(tmp_path)
    assert names.named(Container(ID, "podman")) == Container(ID, "podman", "web")
    write_json(tmp_path / path, [{"id": OTHER, "names": [f"k8s_nginx_web-0_shop_{UID}_0"]}])
    os.utime(tmp_path / path, (7, 7))
    assert names.named(Container(OTHER, "cri-o", pod=UID)) == Container(OTHER, "cri-o", "nginx", "shop/web-0")


@pytest.mark.parametrize("content", ["", "{", "{}", "7", '[{"id": 7, "names": "x"}]', '[{"id": "x", "names": [[]]}]'])
def test_broken_stores(tmp_path: Path, content: str) -> None:
    """A list that cannot be read names nobody."""
    path = tmp_path / "var/lib/containers/storage/overlay-containers/containers.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert Names(tmp_path).named(Container(ID, "podman")) == Container(ID, "podman")


def test_a_made_up_id_is_never_asked_for(tmp_path: Path, serve: Serve) -> None:
    """Only an id of 64 hexadecimal digits becomes a part of a request or of a path."""
    socket_ = serve(inspect({ID: "web"}))
    for identity in ("../../images", f"{ID}/json?x", ""):
        assert Names(tmp_path).named(Container(identity, "")).name is None
    assert socket_.requests == []


class Host:
    """A fake machine with control groups of version 2, a docker and a containerd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.groups = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        self._mounts = [f"1 1 0:1 / {self.groups} rw - cgroup2 cgroup2 rw"]
        self._write()

    def _write(self) -> None:
        (self.proc / "self/mountinfo").write_text("\n".join(self._mounts))

    def mount_memory(self) -> Path:
        """Mount a hierarchy of version 1 too, and return its mount point."""
        self._mounts.append(f"2 1 0:2 / {self.root}/memory rw - cgroup cgroup rw,memory")
        self._write()
        return self.root / "memory"

    def add(self, path: str, **annotations: str) -> str:
        """Add a container by the path of its group, and its bundle; return its id."""
        (self.groups / path).mkdir(parents=True)
        (self.groups / path / "cgroup.procs").write_text("7\n")
        identity = path.rpartition("/")[2].removesuffix(".scope").rpartition("-")[2]
        if annotations:
            keys = {"name": "container-name", "pod": "sandbox-name", "space": "sandbox-namespace", "type": "container-type"}
            write_json(self.root / BUNDLE / identity / "config.json",
                       {"annotations": {f"io.kubernetes.cri.{keys[key]}": value for key, value in annotations.items()}})
        return identity

    def find(self, wanted: str) -> list[str]:
        """Return the ids of what is found, in order."""
        return sorted(container.id for container, _ in find_container(wanted, self.proc, Names(self.root)))


def number(first: str) -> str:
    return first + "0" * (64 - len(first))


PODS = "kubepods.slice/kubepods-pod{}.slice/cri-containerd-{}.scope"
UID_2 = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host with two plain containers and two pods; the first pod has a sandbox and two containers."""
    host = Host(tmp_path)
    host.add(f"docker/{number('aa1')}")
    host.add(f"docker/{number('aa2')}/init.scope")
    pod, second = UID.replace("-", "_"), UID_2.replace("-", "_")
    host.add(PODS.format(pod, number("b0")), pod="web", space="shop", type="sandbox")
    host.add(PODS.format(pod, number("b1")), name="nginx", pod="web", space="shop", type="container")
    host.add(PODS.format(pod, number("b2")), name="log", pod="web", space="shop", type="container")
    host.add(PODS.format(second, number("c1")), name="nginx", pod="api", space="test", type="container")
    host.add("system.slice/ssh.service")
    return host


@pytest.mark.parametrize(("wanted", "firsts"), [
    (number("aa1"), ["aa1"]), (f"containerd://{number('b1')}", ["b1"]), ("aa1", ["aa1"]), ("c", ["c1"]), ("b0", ["b0"]),
    ("log", ["b2"]), ("shop/web", ["b1", "b2"]), ("web", ["b1", "b2"]), (UID, ["b1", "b2"]), (UID.replace("-", "_"), ["b1", "b2"]),
    ("shop/web/nginx", ["b1"]), ("test/api", ["c1"]), ("api", ["c1"]),
])  # fmt: skip
def test_ways_to_name_a_container(host: Host, wanted: str, firsts: list[str]) -> None:
    """An id or its unique beginning, a name, and a pod by name or uid are found; a pod without what holds its namespaces."""
    assert host.find(wanted) == [number(first) for first in firsts]


def test_a_container_comes_with_its_group(host: Host) -> None:
    """The group is the container's own, not one below it, and the container has its name and pod."""
    ((container, group),) = find_container("aa2", host.proc, Names(host.root))
    assert group.folder == host.groups / "docker" / number("aa2")
    assert group.path == f"/docker/{number('aa2')}"
    assert group.id == group.folder.stat().st_ino
    ((container, _),) = find_container(number("b1"), host.proc, Names(host.root))
    assert container == Container(number("b1"), "containerd", "nginx", "shop/web")
    assert container.label == "shop/web/nginx"


def test_a_name_of_docker_goes_before_the_beginning_of_an_id(host: Host, serve: Serve) -> None:
    """As with docker, what is called "b1" is meant and not what begins so."""
    serve(inspect({number("aa1"): "b1"}))
    assert host.find("b1") == [number("aa1")]


@pytest.mark.parametrize(("wanted", "said"), [
    ("aa", ["2 containers", "docker aa1000000000", "docker aa2000000000"]),
    ("nginx", ["2 containers", "shop/web/nginx", "test/api/nginx"]),
])  # fmt: skip
def test_an_ambiguous_name(host: Host, wanted: str, said: list[str]) -> None:
    """What means several is refused with the candidates."""
    with pytest.raises(UsageError) as raised:
        host.find(wanted)
    assert [word for word in said if word not in raised.value.message] == []


def test_a_pod_in_two_namespaces(host: Host) -> None:
    """A pod's name alone is refused where two namespaces have it."""
    host.add(PODS.format(number("d")[:32], number("d1")), name="nginx", pod="web", space="test")
    with pytest.raises(UsageError, match=r"web means 2 pods: shop/web, test/web\. .*NAMESPACE/POD"):
        host.find("web")


def test_an_unknown_container(host: Host) -> None:
    """What is not there is refused with a few of those that are, but no sandbox, and in printable letters."""
    host.add(f"docker/{number('aa3')}")
    with pytest.raises(UsageError) as raised:
        host.find("no\x1bsuch")
    assert raised.value.message.startswith(r"There is no running container no\x1bsuch; there are docker aa1000000000, ")
    assert raised.value.message.endswith(" and 1 more.")
    assert "b00000" not in raised.value.message


def test_no_container_at_all(tmp_path: Path) -> None:
    """A machine without containers says so."""
    host = Host(tmp_path)
    host.add("system.slice/ssh.service")
    with pytest.raises(UsageError, match="no control group on this machine is that of a container"):
        host.find("web")


@pytest.mark.parametrize("wanted", ["", " ", "/", "docker://"])
def test_an_empty_name(host: Host, wanted: str) -> None:
    """A shell variable that is not set names no container."""
    with pytest.raises(UsageError, match="empty"):
        host.find(wanted)


def test_a_container_of_a_hybrid_system(host: Host) -> None:
    """Where version 2 has only the empty folder of a container, its group is the one with its processes."""
    identity = number("e1")
    (host.groups / "docker" / identity).mkdir()
    memory = host.mount_memory()
    for each in (identity, number("aa1")):
        (memory / "docker" / each).mkdir(parents=True)
        (memory / "docker" / each / "cgroup.procs").write_text("9\n")
    found = {container.id: group.version for container, group in containers(host.proc)}
    assert found[identity] == 1
    assert found[number("aa1")] == 2


def test_labels() -> None:
    """A container is shown by its name, with its pod where it has one, and by the short id without a name."""
    assert Container(ID, "docker").label == Container(ID, "docker", pod=UID).label == ID[:12]
    assert Container(ID, "docker", "web").label == "web"
    assert Container("web-1-with-a-long-name", "lxc").short_id == "web-1-with-a-long-name"
