"""Recordings as a fuzzer makes them: chunks with whatever content, whose lengths and checksums are right."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.unit.tracer.recorded import finding, full_report, report
from tracer.errors import UsageError
from tracer.recorder import DETAILS, FACTS, FIGURES, MAPS, MOMENT, SITES, Recorder
from tracer.recording import Recording
from tracer.report import json, text
from tracer.store import Chunk, Reader, Writer

_KINDS = (FACTS, SITES, MAPS, DETAILS, FIGURES, MOMENT)


def recording(data: bytes) -> None:
    """A file as it is, or, behind a byte 0, chunks of it: UsageError, or reports that can be written.

    A chunk is its kind, one byte, two bytes of its length, and its content.
    """
    file = io.BytesIO(_file_of(data[1:]) if data[:1] == b"\0" else data)
    try:
        found = Recording(Reader(file, "file"))
        found.series()
        for sort in ("loss", "size", "count"):
            for number in range(min(len(found), 4)):
                one = found.report(number, sort=sort)
                text.write(one, io.StringIO())
                json.write(one, io.StringIO())
    except UsageError:
        return


def _file_of(data: bytes) -> bytes:
    """Return a recording of these chunks."""
    writer = Writer(f"/proc/self/fd/{(made := os.memfd_create('recording'))}", None)
    try:
        writer.write(*_chunks(data))
        return os.pread(made, writer.size, 0)
    finally:
        writer.close()
        os.close(made)


def _chunks(data: bytes) -> Iterator[Chunk]:
    at = 0
    while at + 3 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        yield Chunk(_KINDS[data[at] % len(_KINDS)], data[at + 3 : at + 3 + size])
        at += 3 + size


def seeds() -> list[bytes]:
    """Return recordings as traces write them, each as a file and as chunks."""
    made = []
    traces = ((full_report(),), tuple(report({key: finding(key, number * key, key) for key in range(1, number + 2)},
                                             5.0 * number) for number in (1, 2, 3)))
    for reports in traces:
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(f"{folder}/r", {"sort": "loss"}, None)
            for each in reports:
                recorder.write(each)
            recorder.close()
            data = Path(folder, "r").read_bytes()
        reader = Reader(io.BytesIO(data), "seed")
        chunks = [(_KINDS.index(each.kind), reader.unpack(each)) for each in reader]
        made += [data, b"\0" + b"".join(bytes([kind]) + len(content).to_bytes(2, "big") + content
                                         for kind, content in chunks)]
    return made
