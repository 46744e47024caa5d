"""Who typed the command, told from sudo's variables and from the processes above."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import pytest

from tracer.attach.user import MOST_ANCESTORS, invoking_user

#: The account that every system has.
NOBODY = pwd.getpwnam("nobody")
SUDO = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": "7", "SUDO_USER": "nobody", "SUDO_COMMAND": "/bin/x", "HOME": "/root",
        "PATH": "/bin", "LANG": "C"}
#: No uid of an account.
UNKNOWN = 2_000_000_001


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def add_process(proc: Path, pid: int, name: str, parent: int, environ: Mapping[str, str] | None = None) -> None:
    """Write what /proc has of one process."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "status").write_text(f"Name:\t{name}\nUmask:\t0022\nPPid:\t{parent}\n")
    (folder / "environ").write_bytes(b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in (environ or {}).items()))


@pytest.mark.parametrize("environ", [
    {}, {"SUDO_UID": "1000"}, {"SUDO_GID": "1000"}, {"SUDO_UID": "me", "SUDO_GID": "1000"}, {"SUDO_UID": "", "SUDO_GID": ""},
])  # fmt: skip
def test_nobody_called_sudo(tmp_path: Path, environ: dict[str, str]) -> None:
    """Without both numbers there is no such user."""
    assert invoking_user(environ, tmp_path) is None


def test_who_is_not_root_becomes_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root's rights, the variables mean nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert invoking_user(SUDO, tmp_path) is None


def test_without_sudos_process(tmp_path: Path) -> None:
    """Where sudo is not among the ancestors, what sudo replaced is put right from the account, and the rest stays."""
    user = invoking_user(SUDO, tmp_path)
    assert user is not None
    assert (user.uid, user.gid) == (NOBODY.pw_uid, 7)
    assert set(user.groups) == set(os.getgrouplist("nobody", 7))
    assert user.environment == {
        "PATH": "/bin", "LANG": "C", "HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody", "SHELL": NOBODY.pw_shell,
        "MAIL": "/var/mail/nobody"}


def test_a_user_without_account(tmp_path: Path) -> None:
    """A number that no account has is a user still, with one group; sudo's variables are gone."""
    user = invoking_user(SUDO | {"SUDO_UID": str(UNKNOWN)}, tmp_path)
    assert user is not None
    assert (user.uid, user.gid, user.groups) == (UNKNOWN, 7, (7,))
    assert user.environment == {"HOME": "/root", "PATH": "/bin", "LANG": "C"}


@pytest.mark.parametrize("between", [0, 1, 3])
def test_the_environment_of_sudo_is_the_users(tmp_path: Path, between: int) -> None:
    """sudo's own process has the environment in which it was called, also behind a script or two."""
    pid = os.getppid()
    for number in range(between):
        add_process(tmp_path, pid, "sh", 900_000_000 + number)
        pid = 900_000_000 + number
    add_process(tmp_path, pid, "sudo", 1, {"HOME": "/home/me", "WORD": "a=b", "BYTES": os.fsdecode(b"\xff")})
    user = invoking_user(SUDO, tmp_path)
    assert user is not None
    assert user.environment == {"HOME": "/home/me", "WORD": "a=b", "BYTES": os.fsdecode(b"\xff")}


@pytest.mark.parametrize(("of_sudo", "home"), [(str(UNKNOWN), NOBODY.pw_dir), (str(NOBODY.pw_uid), "/home/me")])
def test_sudo_inside_sudo(tmp_path: Path, of_sudo: str, home: str) -> None:
    """An environment that sudo itself had from another user's sudo is not that of the user."""
    add_process(tmp_path, os.getppid(), "sudo", 1, {"HOME": "/home/me", "SUDO_UID": of_sudo})
    user = invoking_user(SUDO, tmp_path)
    assert user is not None and user.environment["HOME"] == home


@pytest.mark.parametrize("status", ["", "Name:\tsh\n", "Name:\tsh\nPPid:\tnone\n"])
def test_processes_that_cannot_be_read(tmp_path: Path, status: str) -> None:
    """A process that is gone or cannot be understood ends the search."""
    (tmp_path / str(os.getppid())).mkdir()
    (tmp_path / str(os.getppid()) / "status").write_text(status)
    user = invoking_user(SUDO, tmp_path)
    assert user is not None and user.environment["HOME"] == NOBODY.pw_dir


def test_the_search_ends(tmp_path: Path) -> None:
    """sudo far above is not this sudo, and processes that name each other as parents are no endless loop."""
    first = 900_000_000
    add_process(tmp_path, os.getppid(), "sh", first)
    for number in range(MOST_ANCESTORS - 1):
        add_process(tmp_path, first + number, "sh", first + number + 1)
    add_process(tmp_path, first + MOST_ANCESTORS - 1, "sudo", 1, {"HOME": "/far"})
    user = invoking_user(SUDO, tmp_path)
    assert user is not None and user.environment["HOME"] == NOBODY.pw_dir
