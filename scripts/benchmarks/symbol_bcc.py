"""BCC's symbolizer as a program, for the distribution's Python: addresses of a process on standard input.

    /usr/bin/python3 symbol_bcc.py PID [--primes N]

With --primes the first N come before, and how long the rest took is told on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from bcc import BPF


def main(arguments: Sequence[str]) -> None:
    pid = int(arguments[0])
    primes = int(arguments[2]) if len(arguments) > 1 else 0
    addresses = [int(line, 16) for line in sys.stdin]
    for address in addresses[:primes]:
        BPF.sym(address, pid)
    start = time.perf_counter()
    names = [BPF.sym(address, pid).decode(errors="replace") for address in addresses[primes:]]
    took = time.perf_counter() - start
    print(*names, sep="\n", flush=True)
    print(f"took {took:.6f}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
