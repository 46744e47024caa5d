"""The messages of a pprof profile, as https://github.com/google/pprof/blob/main/proto/profile.proto numbers them."""

from __future__ import annotations

from functools import cache
from typing import Any

_PACKAGE = "perftools.profiles"
#: Fields by message, each with its type, name and number; * marks those of which there are many. Texts are places in
#: string_table. What leaktrace has nothing to say in is left out.
_MESSAGES = {
    "ValueType": ("int64 type 1", "int64 unit 2"),
    "Label": ("int64 key 1", "int64 str 2"),
    "Sample": ("*uint64 location_id 1", "*int64 value 2", "*Label label 3"),
    "Mapping": ("uint64 id 1", "uint64 memory_start 2", "uint64 memory_limit 3", "uint64 file_offset 4",
                "int64 filename 5", "int64 build_id 6", "bool has_functions 7", "bool has_filenames 8",
                "bool has_line_numbers 9", "bool has_inline_frames 10"),
    "Line": ("uint64 function_id 1", "int64 line 2"),
    "Location": ("uint64 id 1", "uint64 mapping_id 2", "uint64 address 3", "*Line line 4"),
    "Function": ("uint64 id 1", "int64 name 2", "int64 system_name 3", "int64 filename 4"),
    "Profile": ("*ValueType sample_type 1", "*Sample sample 2", "*Mapping mapping 3", "*Location location 4",
                "*Function function 5", "*string string_table 6", "int64 time_nanos 9", "int64 duration_nanos 10",
                "ValueType period_type 11", "int64 period 12", "*int64 comment 13", "int64 default_sample_type 14"),
}


@cache
def profile_class() -> Any:
    """Return the class of a profile; protobuf, which takes a while to import, is imported here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    scalars = {"int64": field_type.TYPE_INT64, "uint64": field_type.TYPE_UINT64, "bool": field_type.TYPE_BOOL,
               "string": field_type.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for each in fields:
            kind, name, number = each.lstrip("*").split()
            field = made.field.add(name=name, number=int(number), type=scalars.get(kind, field_type.TYPE_MESSAGE))
            field.label = field_type.LABEL_REPEATED if each.startswith("*") else field_type.LABEL_OPTIONAL
            if kind not in scalars:
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))
