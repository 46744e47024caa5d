"""What glibc, its loader and libstdc++ allocate once and keep until the process ends, on purpose.

Each row was chosen by one rule: the program has no call that would give the memory back. What a program can free
(an iconv_t, a locale_t, a FILE, the result of getaddrinfo) is reported, whichever library allocated it.

Each row, if not each of its functions, was seen with glibc 2.36 and libstdc++ 12 on Debian 12: a program that made the
one call, under valgrind 3.19 with --run-libc-freeres=no --show-leak-kinds=all, held a block from there when it ended;
for the tables of exit() and of thread_local's destructors, when it ended by _exit(). Without libc6-dbg libc's static
functions have no names, and a few rows are not recognised, which only means that they are reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tracer.judge.fingerprint import module_name, plain_name
from tracer.judge.patterns import glob
from tracer.judge.stack_rule import Stack
from tracer.judge.suppressions import Suppression

_LIBC = ("libc.so", "libpthread.so", "libdl.so", "libresolv.so", "libnss_*.so")
_LOADER = ("ld-linux*.so", "ld.so", "ld64.so")
_RUNTIME = (*_LIBC, *_LOADER, "libstdc++.so")


@dataclass(frozen=True, slots=True)
class Kept:
    """Memory that is kept: which functions, of which files (without versions), and why.

    A row holds for a stack on which one of the functions stands, and everything inside it is code of the C or C++
    runtime: memory that a plugin's constructor allocates below dlopen() is the plugin's. innermost: nothing inside it.
    """

    functions: tuple[str, ...]
    files: tuple[str, ...]
    reason: str
    innermost: bool = False

    def matches(self, stack: Stack) -> bool:
        """Whether the row holds for this stack."""
        for frame in stack.frames:
            file = module_name(frame.module)
            if not _is_any(file, _RUNTIME):
                return False
            if _is_any(file, self.files) and _is_any(plain_name(frame.function or ""), self.functions):
                return True
            if self.innermost:
                return False
        return False


def _is_any(text: str, patterns: tuple[str, ...]) -> bool:
    return any(_test(pattern)(text) for pattern in patterns)


_test = lru_cache(glob)


KEPT = (
    # LeakSanitizer's own rule (lsan_common.cpp): whatever the loader allocates is reachable in ways no scan sees. Among
    # what the initializers that it calls keep is libstdc++'s pool for exceptions when memory is full, 72,704 bytes.
    # A thread's vector of thread-local storage is kept with its stack for the next thread. One that nobody joins has it
    # too; such a leak is seen by its stack, which is mapped.
    Kept(("*",), _LOADER, "the loader's: link maps, thread-local storage; what initializers of the runtime keep"),
    Kept(("dlopen", "dlmopen", "dlsym", "dlvsym", "dlclose", "_dlerror_run"), _LIBC,
         "what dlerror() would say next"),
    Kept(("__cxa_thread_atexit_impl",), _LIBC, "destructors of thread_local objects, run when the thread ends"),
    Kept(("pthread_setspecific", "__pthread_setspecific"), _LIBC,
         "the main thread's second table of pthread_setspecific, there while the thread is", innermost=True),
    Kept(("__new_exitfn", "__cxa_atexit", "__internal_atexit", "on_exit", "__cxa_at_quick_exit"), _LIBC,
         "the table of what exit() calls; freed as exit() goes through it, not by _exit()"),
    Kept(("__register_atfork", "pthread_atfork"), _LIBC, "the table of what fork() calls"),
    # A FILE that is never closed keeps its buffer too; the FILE itself is reported, at fopen().
    Kept(("_IO_file_doallocate", "_IO_wfile_doallocate"), _LIBC,
         "the buffer of a stream; that of stdin and stdout is never freed"),
    Kept(("setlocale", "_nl_*"), _LIBC, "names and data of locales, cached for the next setlocale"),
    Kept(("__gconv_load_*", "__gconv_read_conf", "__gconv_find_*", "__gconv_lookup_cache", "__gconv_compare_alias"),
         _LIBC, "converters between character sets, cached for the next iconv_open"),
    Kept(("__wcsmbs_load_conv", "__wcsmbs_getfct"), _LIBC, "the converters of the current locale's characters"),
    Kept(("tzset", "tzset_internal", "__tz_convert", "__tzfile_read", "__tzset_parse_tz", "localtime", "localtime_r",
          "mktime", "ctime"), _LIBC, "the current time zone"),
    Kept(("__add_to_environ", "setenv", "putenv"), _LIBC,
         "the environment: a value set before may still be in use, so glibc never frees one"),
    Kept(("__nss_*", "nss_database_*", "nss_load_*", "nss_action_*"), _LIBC,
         "nsswitch.conf and the modules it names, read once"),
    Kept(tuple(f"get{what}" for what in (
        "pwnam", "pwuid", "pwent", "grnam", "grgid", "grent", "spnam", "spent", "hostbyname", "hostbyname2",
        "hostbyaddr", "hostent", "servbyname", "servbyport", "servent", "protobyname", "protobynumber", "protoent",
        "netbyname", "netbyaddr", "netent", "rpcbyname", "rpcbynumber", "rpcent", "mntent")), _LIBC,
        "the static result of a function that returns a pointer nobody frees"),
    Kept(("__resolv_context_get*", "__resolv_conf_*", "__res_vinit", "__res_ninit", "__res_maybe_init"), _LIBC,
         "resolv.conf, shared by the process"),
    Kept(("__check_pf",), _LIBC, "the machine's addresses, cached for the next getaddrinfo"),
    Kept(("strerror", "strerror_l", "strsignal"), _LIBC, "the thread's text of an unknown number"),
    Kept(("textdomain", "__textdomain", "bindtextdomain", "bind_textdomain_codeset", "set_binding_values*",
          "__dcigettext", "_nl_find_domain"), _LIBC, "message catalogues and where they lie"),
)

#: One suppression per row, in the order of the table; to be asked after those that a user gave.
BUILTIN = tuple(
    Suppression(kept.reason, "built-in", row, kept, builtin=True) for row, kept in enumerate(KEPT, 1)
)
