"""Who asked for the trace: under sudo, a command is run as the user who typed it, not as root."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Processes between leaktrace and sudo: a shell script or two.
MOST_ANCESTORS = 16
#: What sudo adds for the program it runs.
_OF_SUDO = ("SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER", "SUDO_HOME")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a command is run as, and with which environment."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]


def invoking_user(environ: Mapping[str, str] = os.environ, proc: Path = Path("/proc")) -> User | None:
    """Return the user who called sudo, with the environment sudo was called in; None if there is no such user.

    None too where this process is not root, and so runs nothing as somebody else.
    """
    if os.geteuid() != 0:
        return None
    try:
        uid, gid = int(environ["SUDO_UID"]), int(environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, gid, (gid,), _without_sudo(environ))
    environment = _environment_of_sudo(uid, proc)
    if environment is None:
        # sudo replaces these, and keeps little else (sudoers(5), env_reset).
        environment = _without_sudo(environ) | {
            "HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name, "SHELL": account.pw_shell,
            "MAIL": f"/var/mail/{account.pw_name}"}
    return User(uid, gid, tuple(os.getgrouplist(account.pw_name, gid)), environment)


def _without_sudo(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _OF_SUDO}


def _environment_of_sudo(uid: int, proc: Path) -> dict[str, str] | None:
    """Return the environment in which an ancestor of this process named sudo was started by that user."""
    pid = os.getppid()
    for _ in range(MOST_ANCESTORS):
        try:
            status = dict(line.split(":\t", 1) for line in (proc / str(pid) / "status").read_text().splitlines()
                          if ":\t" in line)
            if status["Name"] == "sudo":
                found = _parse(((proc / str(pid)) / "environ").read_bytes())
                # sudo also starts sudo: the innermost is that of another user's shell then.
                return found if "SUDO_UID" not in found or found["SUDO_UID"] == str(uid) else None
            pid = int(status["PPid"])
        except (OSError, KeyError, ValueError):
            return None
    return None


def _parse(text: bytes) -> dict[str, str]:
    pairs = (entry.partition(b"=") for entry in text.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
