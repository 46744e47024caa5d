"""Run the live tests on other kernels: Debian's, of several releases, each booted in a virtual machine."""

from __future__ import annotations

import sys

from kernels.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
