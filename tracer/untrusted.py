"""What a file says, made safe to show: whoever sends a recording may have written anything into it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from math import isfinite
from typing import Any

import msgspec

from symbolizer.printable import printable


def require_finite(value: Any) -> None:
    """Raise ValueError where there is a number in a value that is none."""
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError("a number in it is none")
    elif isinstance(value, tuple | list):
        for each in value:
            require_finite(each)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            require_finite(getattr(value, name))
    elif is_dataclass(value):
        for field in fields(value):
            require_finite(getattr(value, field.name))


def safe(value: Any) -> Any:
    """Return a value as it was decoded with all its texts printable, those within it included."""
    if isinstance(value, str):
        return value if isinstance(value, Enum) else printable(value)
    if isinstance(value, tuple):
        return tuple([safe(each) for each in value])
    if isinstance(value, list):
        return [safe(each) for each in value]
    if isinstance(value, dict):
        return {safe(name): safe(each) for name, each in value.items()}
    if isinstance(value, msgspec.Struct):
        return type(value)(**{name: safe(getattr(value, name)) for name in value.__struct_fields__})
    if is_dataclass(value) and not isinstance(value, type):
        was = {field.name: getattr(value, field.name) for field in fields(value)}
        made = {name: safe(each) for name, each in was.items()}
        return value if made == was else replace(value, **made)
    return value
