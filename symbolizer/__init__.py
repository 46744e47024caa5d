"""From an address to a name: mappings, ELF files, symbols, source lines; imports nothing else of leaktrace.

It works in two steps. `mappings` turns an address into (object, file offset) and needs the live process;
`symbolizer` turns (object, file offset) into frames and needs only the object's bytes, so it works after
the process has gone. An address without a name is a value with a reason (`frame.Why`), never an exception.
"""
