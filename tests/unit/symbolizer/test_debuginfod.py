"""Files come from servers that this test starts on the loopback device, in every way a server can behave."""

import base64
import os
import resource
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from symbolizer.debug_files import DebugFiles
from symbolizer.debuginfod import Debuginfod, default_cache
from symbolizer.download import Limits
from symbolizer.elf import Elf

Build = Callable[..., Path]
BUILD_ID = "00112233445566778899aabbccddeeff00112233"
MAIN = "#include <stdlib.h>\nstatic __attribute__((noinline)) void *hidden(int n) { return malloc(n); }\nint main(int c, char **v) { (void)v; return hidden(c) == 0; }\n"


def need(tool: str) -> None:
    """Skip the test where the tool is missing; where CI is set, nobody reads what was skipped, so fail."""
    if shutil.which(tool) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {tool}")


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `answer` does, and counts."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        try:
            self.server.answer(self)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def give(self, content: bytes, length: int | None = None, code: int = 200) -> None:
        self.send_response(code)
        if length != -1:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def move(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()


class Server(ThreadingHTTPServer):
    """One server, with an answer for every request."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has gone."""


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Handler], None]], Server]]:
    """Return a function that starts a server with that answer."""
    servers = []

    def start(answer: Callable[[Handler], None]) -> Server:
        server = Server(answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Serve = Callable[[Callable[[Handler], None]], Server]


@pytest.fixture
def content(build: Build) -> bytes:
    """Return a program with DWARF whose build id is BUILD_ID."""
    return build(MAIN, "-g", f"-Wl,--build-id=0x{BUILD_ID}").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for the cache."""
    made = tmp_path / "cache"
    made.mkdir()
    return made


def absent(handler: Handler) -> None:
    handler.give(b"not here", code=404)


def client(cache: Path, *urls: str, stall: float | None = 5, total: float | None = 10, size: int | None = 1 << 30) -> Debuginfod:
    return Debuginfod(urls, cache, Limits(stall, total, size))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(serve: Serve, folder: Path, content: bytes) -> None:
    server = serve(lambda handler: handler.give(content))
    path = client(folder, server.url).debuginfo(BUILD_ID)
    assert path == str(folder / BUILD_ID / "debuginfo")
    assert Path(path).read_bytes() == content
    assert server.asked == [f"/buildid/{BUILD_ID}/debuginfo"]
    assert client(folder, server.url).debuginfo(BUILD_ID) == path
    assert len(server.asked) == 1
    assert files_in(folder) == [f"{BUILD_ID}/debuginfo"]
    assert stat.S_IMODE((folder / BUILD_ID).stat().st_mode) == 0o700


def test_debug_files_finds_what_a_server_has(serve: Serve, folder: Path, build: Build) -> None:
    program = build(MAIN, "-g", f"-Wl,--build-id=0x{BUILD_ID}")
    whole = program.read_bytes()
    subprocess.run(["strip", str(program)], check=True)
    server = serve(lambda handler: handler.give(whole))
    files = DebugFiles([], client(folder, server.url))
    found = files.companion(Elf.parse(program.read_bytes()), str(program))
    assert found is not None
    assert "hidden" in found.elf.symbols().defined(["hidden"])


@pytest.mark.parametrize("form", ["without length", "chunked", "slash", "path"])
def test_every_sound_answer_is_taken(serve: Serve, folder: Path, content: bytes, form: str) -> None:
    def answer(handler: Handler) -> None:
        if form == "chunked":
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for start in range(0, len(content), 1000):
                part = content[start : start + 1000]
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.give(content, -1 if form == "without length" else None)

    server = serve(answer)
    url = server.url + {"slash": "/", "path": "/some/where/"}.get(form, "")
    path = client(folder, url).debuginfo(BUILD_ID)
    assert path is not None
    assert Path(path).read_bytes() == content
    assert server.asked == [("/some/where" if form == "path" else "") + f"/buildid/{BUILD_ID}/debuginfo"]


def test_servers_are_asked_in_turn_until_one_has_the_file(serve: Serve, folder: Path, content: bytes) -> None:
    first, second, third = serve(absent), serve(lambda handler: handler.give(content)), serve(absent)
    assert client(folder, first.url, second.url, third.url).debuginfo(BUILD_ID) is not None
    assert [len(server.asked) for server in (first, second, third)] == [1, 1, 0]


def test_that_no_server_has_the_file_is_remembered_for_ten_minutes(serve: Serve, folder: Path, content: bytes) -> None:
    server = serve(absent)
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert len(server.asked) == 1
    missing = folder / BUILD_ID / "debuginfo"
    assert missing.stat().st_size == 0
    os.utime(missing, (time.time() - 590,) * 2)
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert len(server.asked) == 1
    os.utime(missing, (time.time() - 610,) * 2)
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert len(server.asked) == 2
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert len(server.asked) == 2
    (folder / "cache_miss_s").write_text("0\n")
    server.answer = lambda handler: handler.give(content)
    assert client(folder, server.url).debuginfo(BUILD_ID) is not None


@pytest.mark.parametrize("code", [403, 406, 500, 503])
def test_another_error_of_the_server_is_not_remembered(serve: Serve, folder: Path, code: int) -> None:
    server = serve(lambda handler: handler.give(b"", code=code))
    asking = client(folder, server.url)
    assert [asking.debuginfo(BUILD_ID), asking.debuginfo(BUILD_ID)] == [None, None]
    assert len(server.asked) == 2
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("wrong", [b"<html>sign in first</html>", b"", b"\x7fELF", b"other build id", b"cut"])
def test_what_is_not_the_file_is_not_kept_and_the_next_server_asked(
    serve: Serve, folder: Path, content: bytes, wrong: bytes
) -> None:
    raw = bytes.fromhex(BUILD_ID)
    given = {b"other build id": content.replace(raw, raw[::-1]), b"cut": content}.get(wrong, wrong)
    bad, good = serve(lambda handler: handler.give(given, len(content) + 1 if wrong == b"cut" else None)), serve(absent)
    assert client(folder, bad.url, good.url).debuginfo(BUILD_ID) is None
    assert list(folder.iterdir()) == []
    good.answer = lambda handler: handler.give(content)
    path = client(folder, bad.url, good.url).debuginfo(BUILD_ID)
    assert path is not None
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize("says_so", [True, False])
def test_a_file_over_the_limit_is_not_kept(serve: Serve, folder: Path, content: bytes, says_so: bool) -> None:
    sent = 0

    def answer(handler: Handler) -> None:
        nonlocal sent
        handler.give(content[:1000], 50_000_000 if says_so else -1)
        while not says_so and sent < 50_000_000:
            sent += handler.wfile.write(bytes(1000))

    server = serve(answer)
    assert client(folder, server.url, size=100_000).debuginfo(BUILD_ID) is None
    assert server.headers[0]["x-debuginfod-maxsize"] == "100000"
    assert sent < 50_000_000
    assert list(folder.iterdir()) == []


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def drip_content(handler: Handler) -> None:
    handler.give(b"\x7fELF", 1_000_000)
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drip_without_length(handler: Handler) -> None:
    handler.give(b"\x7fELF", -1)
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drip_chunk_size(handler: Handler) -> None:
    handler.send_response(200)
    handler.wfile.write(b"")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"0")
        time.sleep(0.1)


def hang(handler: Handler) -> None:
    time.sleep(10)


@pytest.mark.parametrize("slow", [drip_headers, drip_content, drip_without_length, drip_chunk_size, hang])
@pytest.mark.parametrize(("stall", "total"), [(0.5, None), (None, 0.5), (0.5, 60)])
def test_a_slow_server_costs_its_time_limit_once(
    serve: Serve, folder: Path, slow: Callable[[Handler], None], stall: float | None, total: float | None
) -> None:
    server = serve(slow)
    asking = client(folder, server.url, stall=stall, total=total)
    start = time.monotonic()
    assert asking.debuginfo(BUILD_ID) is None
    assert 0.3 < time.monotonic() - start < 1.5
    start = time.monotonic()
    assert asking.debuginfo(BUILD_ID[::-1]) is None
    assert time.monotonic() - start < 0.1
    assert len(server.asked) == 1
    assert list(folder.iterdir()) == []


def test_a_steady_download_may_take_longer_than_the_stall_limit(serve: Serve, folder: Path, build: Build) -> None:
    content = build(MAIN, f"-Wl,--build-id=0x{BUILD_ID}").read_bytes() + bytes(1_500_000)

    def answer(handler: Handler) -> None:
        handler.give(b"", len(content))
        for start in range(0, len(content), 150_000):
            handler.wfile.write(content[start : start + 150_000])
            time.sleep(0.1)

    assert client(folder, serve(answer).url, stall=0.4).debuginfo(BUILD_ID) is not None


def test_a_dead_server_is_asked_once_and_the_others_go_on(serve: Serve, folder: Path, content: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    lines: list[str] = []
    good = serve(absent)
    asking = Debuginfod([dead, good.url], folder, progress=lines.append)
    assert asking.debuginfo("ab" * 20, "libone.so") is None
    assert asking.debuginfo("cd" * 20, "libtwo.so") is None
    assert [line for line in lines if "libone" in line] == ["asking 127.0.0.1 for debug symbols of libone.so"] * 2
    assert [line for line in lines if "libtwo" in line] == ["asking 127.0.0.1 for debug symbols of libtwo.so"]
    assert len(good.asked) == 2
    # That a dead server does not have a file is not known, so nothing is remembered.
    assert list(folder.iterdir()) == []


def test_a_server_that_takes_no_connection_costs_its_time_limit(folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):  # fills the queue
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        start = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert client(folder, url, stall=60, total=0.5).debuginfo(BUILD_ID) is None
        assert 0.3 < time.monotonic() - start < 2
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://x/", "/same/server"])
def test_a_redirect_leads_only_to_http(serve: Serve, folder: Path, content: bytes, target: str) -> None:
    def answer(handler: Handler) -> None:
        if handler.path.startswith("/same"):
            handler.give(content)
        else:
            handler.move(target)

    server = serve(answer)
    found = client(folder, server.url).debuginfo(BUILD_ID)
    assert (found is not None) == (target == "/same/server")
    assert len(server.asked) == (2 if found else 1)
    assert files_in(folder) == ([f"{BUILD_ID}/debuginfo"] if found else [])


def test_a_redirect_to_another_server_is_followed_and_a_circle_ends(serve: Serve, folder: Path, content: bytes) -> None:
    other = serve(lambda handler: handler.give(content))
    first = serve(lambda handler: handler.move(f"{other.url}/x"))
    login = first.url.replace("//", "//user:pass%20word@")
    assert client(folder / "a", login).debuginfo(BUILD_ID) is not None
    assert first.headers[0]["authorization"] == f"Basic {base64.b64encode(b'user:pass word').decode()}"
    assert "authorization" not in other.headers[0]
    circle = serve(lambda handler: handler.move("/again"))
    assert client(folder / "b", circle.url).debuginfo(BUILD_ID) is None
    assert len(circle.asked) == 10


def test_only_http_servers_are_asked(folder: Path) -> None:
    (folder / "buildid" / BUILD_ID).mkdir(parents=True)
    (folder / "buildid" / BUILD_ID / "debuginfo").write_bytes(b"\x7fELF")
    assert client(folder, folder.as_uri()).debuginfo(BUILD_ID) is None
    assert Debuginfod.from_environment({"DEBUGINFOD_URLS": f"{folder.as_uri()} ima:enforcing http:// http://[x"}) is None


@pytest.mark.parametrize("build_id", ["", "a", "../../etc", "AB" * 20, "ab" * 65, "ab/cd", "zz" * 20, "ab\0cd", "ab%2e", "ä" * 20])
def test_what_is_no_build_id_is_not_asked_for(serve: Serve, folder: Path, build_id: str) -> None:
    server = serve(absent)
    assert client(folder, server.url).debuginfo(build_id) is None
    assert server.asked == []
    assert list(folder.iterdir()) == []


def test_two_clients_at_once_both_get_the_whole_file(serve: Serve, folder: Path, content: bytes) -> None:
    together = threading.Barrier(2)

    def answer(handler: Handler) -> None:
        handler.give(content[:5000], len(content))
        handler.wfile.flush()
        together.wait(5)
        handler.wfile.write(content[5000:])

    server = serve(answer)
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(client(folder, server.url).debuginfo(BUILD_ID))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [str(folder / BUILD_ID / "debuginfo")] * 2
    assert (folder / BUILD_ID / "debuginfo").read_bytes() == content
    assert len(server.asked) == 2
    assert files_in(folder) == [f"{BUILD_ID}/debuginfo"]


def test_one_client_that_finds_nothing_does_not_undo_what_another_has_found(serve: Serve, folder: Path, content: bytes) -> None:
    path = folder / BUILD_ID / "debuginfo"

    def answer(handler: Handler) -> None:
        path.write_bytes(content)
        absent(handler)

    client(folder, serve(answer).url).debuginfo(BUILD_ID)
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_no_error(serve: Serve, folder: Path, content: bytes) -> None:
    server = serve(lambda handler: handler.give(content))
    (folder / "file").write_bytes(b"")
    assert client(folder / "file", server.url).debuginfo(BUILD_ID) is None
    (folder / "elsewhere").mkdir()
    (folder / BUILD_ID).symlink_to("elsewhere")
    assert client(folder, server.url).debuginfo(BUILD_ID) is None
    assert list((folder / "elsewhere").iterdir()) == []
    assert client(Path("/dev/full"), server.url).debuginfo(BUILD_ID) is None


def test_a_full_disk_is_not_held_against_the_server(serve: Serve, folder: Path, build: Build) -> None:
    content = build(MAIN, f"-Wl,--build-id=0x{BUILD_ID}").read_bytes() + bytes(1_000_000)
    server = serve(lambda handler: handler.give(content))
    asking = client(folder, server.url)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert asking.debuginfo(BUILD_ID) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert list(folder.iterdir()) == []
    assert asking.debuginfo(BUILD_ID) is not None


def test_damaged_content_of_the_cache_is_fetched_anew(serve: Serve, folder: Path, content: bytes) -> None:
    server = serve(lambda handler: handler.give(content))
    (folder / BUILD_ID).mkdir()
    (folder / BUILD_ID / "debuginfo").write_bytes(b"garbage")
    path = client(folder, server.url).debuginfo(BUILD_ID)
    assert path is not None
    assert Path(path).read_bytes() == content


def test_progress_says_how_far_a_long_download_is(serve: Serve, folder: Path, build: Build) -> None:
    content = build(MAIN, f"-Wl,--build-id=0x{BUILD_ID}").read_bytes() + bytes(3_000_000)

    def answer(handler: Handler) -> None:
        handler.give(content[:2_000_000], len(content))
        handler.wfile.flush()
        time.sleep(0.6)
        handler.wfile.write(content[2_000_000:])

    lines: list[str] = []
    asking = Debuginfod([serve(answer).url], folder, progress=lines.append)
    assert asking.debuginfo(BUILD_ID, "lib\x1bx.so") is not None
    assert lines[0] == "asking 127.0.0.1 for debug symbols of lib\\x1bx.so"
    assert lines[1] == "downloading debug symbols of lib\\x1bx.so: 2 of 3 MB"


def test_without_servers_in_the_environment_there_is_no_client(folder: Path) -> None:
    assert Debuginfod.from_environment({}) is None
    assert Debuginfod.from_environment({"DEBUGINFOD_URLS": " "}) is None
    found = Debuginfod.from_environment({"DEBUGINFOD_URLS": " http://a.example/  https://b.example"}, folder)
    assert found is not None


def test_the_environment_says_where_the_cache_lies(folder: Path) -> None:
    home = {"HOME": str(folder)}
    assert default_cache({**home, "XDG_CACHE_HOME": "/x", "DEBUGINFOD_CACHE_PATH": "/y"}) == Path("/y")
    assert default_cache({**home, "XDG_CACHE_HOME": "/x"}) == Path("/x/debuginfod_client")
    assert default_cache(home) == folder / ".cache/debuginfod_client"
    (folder / ".debuginfod_client_cache").mkdir()
    assert default_cache({**home, "XDG_CACHE_HOME": "/x"}) == folder / ".debuginfod_client_cache"


def test_the_cache_is_shared_with_elfutils(serve: Serve, folder: Path, content: bytes) -> None:
    """Found or not: what one of the two clients has asked for, the other does not ask for again."""
    need("debuginfod-find")

    def answer(handler: Handler) -> None:
        if BUILD_ID in handler.path:
            handler.give(content)
        else:
            absent(handler)

    def by_elfutils(cache: Path, build_id: str) -> str | None:
        environ = {**os.environ, "DEBUGINFOD_URLS": server.url, "DEBUGINFOD_CACHE_PATH": str(cache)}
        done = subprocess.run(["debuginfod-find", "debuginfo", build_id], env=environ, capture_output=True, text=True)
        return done.stdout.strip() or None

    def by_us(cache: Path, build_id: str) -> str | None:
        return client(cache, server.url).debuginfo(build_id)

    server = serve(answer)
    for index, (one, other) in enumerate([(by_us, by_elfutils), (by_elfutils, by_us)]):
        for build_id, there in (BUILD_ID, True), ("ff" * 20, False):
            server.asked.clear()
            cache = folder / str(index)
            first, second = one(cache, build_id), other(cache, build_id)
            assert first == second == (str(cache / build_id / "debuginfo") if there else None)
            assert len(server.asked) == 1


def test_https_is_spoken_with_servers_whose_certificate_is_known(
    serve: Serve, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openssl")
    key, certificate = folder.parent / "key.pem", folder.parent / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    server = serve(lambda handler: handler.give(content))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_port}"
    assert client(folder, url).debuginfo(BUILD_ID) is None
    assert server.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.answer = drip_content
    start = time.monotonic()
    assert client(folder, url, total=0.5).debuginfo(BUILD_ID) is None
    assert 0.3 < time.monotonic() - start < 1.5
    server.answer = lambda handler: handler.give(content)
    path = client(folder, url).debuginfo(BUILD_ID)
    assert path is not None
    assert Path(path).read_bytes() == content


def test_a_server_that_does_not_speak_https_is_given_up(serve: Serve, folder: Path, content: bytes) -> None:
    server = serve(lambda handler: handler.give(content))
    start = time.monotonic()
    assert client(folder, server.url.replace("http:", "https:"), stall=1).debuginfo(BUILD_ID) is None
    assert time.monotonic() - start < 2
    assert server.asked == []


def test_a_connection_that_is_reset_is_given_up(folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def reset() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        threading.Thread(target=reset, daemon=True).start()
        assert client(folder, f"http://127.0.0.1:{listener.getsockname()[1]}").debuginfo(BUILD_ID) is None
