"""A compiled BPF program as plain data: instructions, and the maps they use. It can be kept in a file."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass

#: ld_imm64 with a map (include/uapi/linux/bpf.h): the opcode, and src_reg BPF_PSEUDO_MAP_FD in the upper half byte.
LOAD_64 = 0x18
PSEUDO_MAP_FD = 1
INSTRUCTION_BYTES = 8


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What a map is made from: numbers as in enum bpf_map_type, sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    flags: int


@dataclass(frozen=True, slots=True)
class Code:
    """One function's instructions, and which map each of those at an index (from 0) refers to."""

    instructions: bytes
    maps: tuple[tuple[int, str], ...]

    def linked(self, fds: dict[str, int]) -> bytes:
        """Return the instructions with the maps' file descriptors put in."""
        linked = bytearray(self.instructions)
        for index, name in self.maps:
            at = index * INSTRUCTION_BYTES
            linked[at + 4 : at + 8] = fds[name].to_bytes(4, "little")
        return bytes(linked)


@dataclass(frozen=True, slots=True)
class BpfObject:
    """Everything the kernel needs of a program."""

    maps: tuple[MapSpec, ...]
    functions: dict[str, Code]


def unlink(instructions: bytes, names: dict[int, str]) -> Code:
    """Return code from instructions that refer to maps by file descriptor; names says which is which."""
    maps = []
    for at in range(0, len(instructions), INSTRUCTION_BYTES):
        if instructions[at] == LOAD_64 and instructions[at + 1] >> 4 == PSEUDO_MAP_FD:
            fd = int.from_bytes(instructions[at + 4 : at + 8], "little")
            maps.append((at // INSTRUCTION_BYTES, names[fd]))
    return Code(instructions, tuple(maps))


def to_bytes(program: BpfObject) -> bytes:
    """Return the object as JSON text."""
    functions = {
        name: {"instructions": base64.b64encode(code.instructions).decode(), "maps": code.maps}
        for name, code in program.functions.items()
    }
    return json.dumps({"maps": [asdict(spec) for spec in program.maps], "functions": functions}).encode()


def from_bytes(text: bytes) -> BpfObject:
    """Return the object that to_bytes() wrote. Raises ValueError, KeyError or TypeError for anything else."""
    document = json.loads(text)
    functions = {
        str(name): Code(base64.b64decode(code["instructions"], validate=True),
                        tuple((int(index), str(map_name)) for index, map_name in code["maps"]))
        for name, code in document["functions"].items()
    }
    return BpfObject(tuple(MapSpec(**spec) for spec in document["maps"]), functions)
