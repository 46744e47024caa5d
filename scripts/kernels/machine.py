"""A virtual machine: qemu with a kernel, and virtiofsd for each folder that it shares with its host."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.child import Failure

from kernels.initramfs import initramfs
from kernels.kernel import Kernel

QEMU = "qemu-system-x86_64"
#: Debian 12's belongs to qemu, and later ones are another program with other options.
QEMU_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
RUST_VIRTIOFSD = Path("/usr/libexec/virtiofsd")
CPUS = 2
#: The oldest processor that numpy accepts (x86-64-v2): wider registers only cost where they are emulated.
CPU = {"tcg": "Nehalem", "kvm": "max"}
MEMORY_MB = 3072
SOCKET_S = 20.0
#: Behind its last word the machine has this long to turn itself off.
OFF_S = 20.0
POLL_S = 0.05
#: Mounts that hide what lies at these places in the host's files.
COVERED = ("/tmp", "/run", "/dev", "/proc", "/sys")


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host, and where it stands in the machine."""

    tag: str
    folder: Path
    place: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a machine shall do: a shell command, in a folder, with these files around it."""

    command: str
    folder: Path
    root: Path = Path("/")
    """The folder on the host that is the machine's root."""
    layers: tuple[Share, ...] = ()
    """Folders that another root lacks; what the machine writes there goes to its memory."""
    keep: tuple[Path, ...] = ()
    """Folders that must be seen, wherever in the root they lie."""
    timeout_s: float = 600.0
    accelerator: str = "tcg"
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from outside: the machine is given up."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it went: the command's exit status, or None and why there is none."""

    status: int | None
    why: str
    seconds: float
    console: str


def session_script(work: Work) -> str:
    """Return what the machine's first process runs, once its files are there."""
    return f"""\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
cd {shlex.quote(str(work.folder))} || echo 'leaktrace: the machine has no such folder'
setsid /bin/sh /run/leaktrace/exchange/command </dev/null \\
    >/run/leaktrace/exchange/stdout 2>/run/leaktrace/exchange/stderr &
wait $!
echo $? >/run/leaktrace/exchange/status.new
mv /run/leaktrace/exchange/status.new /run/leaktrace/exchange/status
sync
echo o >/proc/sysrq-trigger
while sleep 10; do :; done
"""


def run(kernel: Kernel, work: Work, exchange: Path, follow: Callable[[Path], None] = lambda _: None) -> Ending:
    """Boot a machine, have it do its work, and return how it went.

    exchange: an empty folder; the machine sees it at /run/leaktrace/exchange, and it keeps stdout, stderr and console.
    follow: called now and then with it, and once behind the end.
    """
    if shutil.which(QEMU) is None:
        raise Failure(f"There is no {QEMU} here. Install qemu-system-x86.")
    (exchange / "command").write_text(work.command + "\n")
    (exchange / "session").write_text(session_script(work))
    shares = (Share("exchange", exchange, "/run/leaktrace/exchange"),
              Share("modules", kernel.modules, "/run/leaktrace/modules"))  # fmt: skip
    values = {
        "release": kernel.version, "hostname": os.uname().nodename,
        "shares": " ".join(f"{share.tag}:{share.place}" for share in shares),
        "layers": " ".join(f"{layer.tag}:{layer.place}" for layer in work.layers),
        "keep": " ".join(str(folder) for folder in work.keep if str(folder).startswith(COVERED)),
    }  # fmt: skip
    (exchange / "initramfs").write_bytes(initramfs(kernel.modules, values))
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        sockets = [(share, stack.enter_context(_served(share, exchange)))
                   for share in (Share("root", work.root, "/"), *shares, *work.layers)]  # fmt: skip
        console = stack.enter_context((exchange / "console").open("wb"))
        words = qemu_words(kernel, exchange / "initramfs", sockets, work.accelerator)
        machine = stack.enter_context(_started(words, console.fileno()))
        why = _wait(machine, work, exchange, follow)
    follow(exchange)
    status = _status(exchange)
    told = (exchange / "console").read_text(errors="replace")
    return Ending(status, "" if status is not None else why, time.monotonic() - began, told)


def qemu_words(kernel: Kernel, first: Path, sockets: Sequence[tuple[Share, Path]], accelerator: str) -> list[str]:
    """Return the command line of a machine with these shares; its console is qemu's standard output."""
    accelerator = f"{accelerator},thread=multi" if accelerator == "tcg" else accelerator
    words = [
        QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-accel", accelerator, "-cpu", CPU[accelerator.partition(",")[0]], "-smp", str(CPUS), "-m", f"{MEMORY_MB}M",
        # virtiofsd works in the machine's memory, so that must be a file that both can map.
        "-M", "q35,memory-backend=mem", "-object", f"memory-backend-memfd,id=mem,size={MEMORY_MB}M,share=on",
        "-kernel", str(kernel.image), "-initrd", str(first),
        # Without mitigations all is a little faster; a panic ends qemu, which -no-reboot says.
        "-append", "console=ttyS0 panic=-1 oops=panic quiet mitigations=off",
    ]  # fmt: skip
    for share, socket in sockets:
        words += ["-chardev", f"socket,id={share.tag},path={socket}"]
        words += ["-device", f"vhost-user-fs-pci,chardev={share.tag},tag={share.tag}"]
    return words


def virtiofsd_words(share: Share, socket: Path) -> list[str]:
    """Return the command line that serves a share at a socket; Failure if there is no virtiofsd."""
    if QEMU_VIRTIOFSD.exists():
        options = ["-o", f"source={share.folder}", "-o", "cache=auto", "-o", "sandbox=chroot", "-o", "log_level=err"]
        return [str(QEMU_VIRTIOFSD), f"--socket-path={socket}", *options]
    if RUST_VIRTIOFSD.exists():
        return [str(RUST_VIRTIOFSD), f"--socket-path={socket}", f"--shared-dir={share.folder}", "--cache=auto",
                "--sandbox=chroot", "--log-level=error"]  # fmt: skip
    raise Failure("There is no virtiofsd here. Install qemu-system-common or virtiofsd.")


@contextlib.contextmanager
def _served(share: Share, exchange: Path) -> Iterator[Path]:
    socket = exchange / f"socket-{share.tag}"
    log = exchange / f"virtiofsd-{share.tag}"
    with log.open("wb") as out, _started(virtiofsd_words(share, socket), out.fileno()) as process:
        deadline = time.monotonic() + SOCKET_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                told = log.read_text(errors="replace").strip().splitlines()
                raise Failure(f"virtiofsd does not serve {share.folder}: {told[-1] if told else 'it says nothing'}")
            time.sleep(POLL_S)
        yield socket
    # A machine that boots again waits for its own.
    socket.unlink(missing_ok=True)


@contextlib.contextmanager
def _started(words: Sequence[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C is ours to handle; ended with the block, or by our death."""
    words = ["setpriv", "--pdeathsig", "KILL", *words]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(machine: subprocess.Popen[bytes], work: Work, exchange: Path, follow: Callable[[Path], None]) -> str:
    """Wait for the machine's end; return why, for one that has left no status."""
    deadline = time.monotonic() + work.timeout_s
    over: float | None = None
    while machine.poll() is None:
        follow(exchange)
        now = time.monotonic()
        if over is None and (exchange / "status").exists():
            over = now
        if over is not None and now > over + OFF_S:
            return "it did not turn itself off"
        if now > deadline or work.stop.is_set():
            return f"it was not done after {work.timeout_s:.0f} s" if now > deadline else "it was stopped"
        time.sleep(POLL_S)
    return f"qemu ended with {machine.returncode}" if machine.returncode else "its kernel panicked, or found no files"


def _status(exchange: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((exchange / "status").read_text())
    return None
