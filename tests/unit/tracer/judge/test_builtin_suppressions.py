"""What the C and C++ runtime keeps on purpose is not a leak; what a program could free is."""

from __future__ import annotations

import pytest

from symbolizer.frame import Frame, Why
from tracer.judge.builtin_suppressions import BUILTIN, KEPT
from tracer.judge.suppressions import Suppressions, parse

LIBC, LOADER = "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
CXX, APP = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30", "/usr/bin/app"


def reason(*frames: tuple[str | None, str]) -> str | None:
    """Return the reason of the built-in suppression of these frames, innermost first."""
    found = Suppressions(BUILTIN).match(tuple(
        Frame(1, function, 0, module, why=None if function else Why.NO_SYMBOLS) for function, module in frames))
    return found.name if found else None


@pytest.mark.parametrize(("said", "frames"), [
    ("buffer", [("_IO_file_doallocate", LIBC), ("_IO_doallocbuf", LIBC), ("puts", LIBC), ("main", APP)]),
    ("locales", [("_nl_intern_locale_data", LIBC), ("_nl_load_locale", LIBC), ("setlocale", LIBC), ("main", APP)]),
    ("time zone", [("strdup", LIBC), ("tzset_internal", LIBC), ("__tz_convert", LIBC), ("main", APP)]),
    ("nsswitch", [("__nss_action_allocate", LIBC), ("nss_database_reload [.constprop.0]", LIBC), ("getpwnam", LIBC), ("main", APP)]),
    ("static result", [("getpwnam", LIBC), ("main", APP)]),
    ("loader", [("allocate_dtv", LOADER), ("_dl_allocate_tls", LOADER), ("allocate_stack", LIBC), ("pthread_create", LIBC), ("main", APP)]),
    ("loader", [(None, LOADER), (None, LOADER), ("_dl_catch_exception", LIBC), ("dlopen", LIBC), ("main", APP)]),
    ("loader", [("(anonymous namespace)::pool::pool()", CXX), ("_GLOBAL__sub_I_eh_alloc.cc", CXX), ("call_init", LOADER)]),
    ("environment", [("tsearch", LIBC), ("__add_to_environ", LIBC), ("setenv", LIBC), ("main", APP)]),
    ("unknown number", [("asprintf", LIBC), ("strerror_l", LIBC), ("main", APP)]),
    ("fork", [("__libc_dynarray_emplace_enlarge", LIBC), ("__register_atfork", LIBC), ("main", APP)]),
])
def test_kept_on_purpose(said: str, frames: list[tuple[str | None, str]]) -> None:
    """Stacks as valgrind showed them with glibc 2.36 are silenced, for the reason of their row."""
    assert said in (reason(*frames) or "")


@pytest.mark.parametrize("frames", [
    [("strdup", LIBC), ("main", APP)],
    [("fopen", LIBC), ("main", APP)],
    [("iconv_open", LIBC), ("main", APP)],
    [("__gconv_open", LIBC), ("iconv_open", LIBC), ("main", APP)],
    [("newlocale", LIBC), ("main", APP)],
    [("getaddrinfo", LIBC), ("main", APP)],
    [("std::string::_M_create(unsigned long&, unsigned long)", CXX), ("main", APP)],
    [("setlocale", APP), ("main", APP)],
    [("_dl_thing", APP), ("main", APP)],
    [(None, APP)],
    [("strdup", LIBC), ("pthread_setspecific", LIBC), ("main", APP)],
])
def test_what_a_program_can_free_is_reported(frames: list[tuple[str | None, str]]) -> None:
    """Memory that a call would give back, and functions of the program that are named like the runtime's, are not kept."""
    assert reason(*frames) is None


def test_code_of_a_plugin_is_not_the_loader() -> None:
    """What a constructor allocates while its library is opened is the library's."""
    assert reason(("plugin_init", "/opt/plugin.so"), (None, LOADER), ("dlopen", LIBC), ("main", APP)) is None
    assert reason(("strdup", LIBC), ("plugin_init", "/opt/plugin.so"), (None, LOADER), ("dlopen", LIBC)) is None


@pytest.mark.parametrize("libc", ["/lib/libc-2.31.so", "/lib/libc.so.6", "/lib64/libc.so.6 (deleted)"])
def test_versions_of_the_library(libc: str) -> None:
    """The C library is known whatever its version is."""
    assert reason(("getpwnam", libc), ("main", APP))


def test_they_are_never_unused() -> None:
    """Nobody wrote the built-in ones for this program, so nobody is told that they silenced nothing."""
    given = parse("leak:x", "a.supp")
    assert Suppressions([*given, *BUILTIN]).unused == given


def test_every_row_has_its_reason() -> None:
    """Each row says why, says it once, and names functions and files."""
    assert all(row.reason and row.functions and row.files for row in KEPT)
    assert len({row.reason for row in KEPT}) == len(KEPT) == len(BUILTIN)
