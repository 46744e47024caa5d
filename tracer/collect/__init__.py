"""2. Out of the kernel: maps become immutable arrays."""
