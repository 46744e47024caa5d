"""What a user may choose of names and sites; apart from what does it, because settings are needed before all else."""

from enum import StrEnum


class Style(StrEnum):
    """How much of a function's name is shown."""

    FULL = "full"
    """As it stands in the source, with all template arguments and parameters."""
    SHORT = "short"
    """The same up to a readable length; past it, template arguments and then parameters become an ellipsis."""
    NONE = "none"
    """As the linker knows it."""


class GroupBy(StrEnum):
    """What must agree in every frame of two stacks for them to be one site."""

    FUNCTION = "function"
    LINE = "line"
    ADDRESS = "address"
