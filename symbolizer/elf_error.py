"""What a file is that is not read: damaged, or sound and of another kind."""


class ElfError(Exception):
    """The bytes are no ELF file that can be read; the text says what is wrong."""


class ElfUnsupported(ElfError):
    """A sound ELF file of a kind that is not read here, such as a 32-bit one."""

    def __init__(self, reason: str, machine: int | None = None, is_64bit: bool = True) -> None:
        """Take the reason, and from the header: `machine` (EM_X86_64 is 62) and whether it is a 64-bit file."""
        super().__init__(reason)
        self.machine = machine
        self.is_64bit = is_64bit
