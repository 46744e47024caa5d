"""A report as Pyroscope and Parca document that they take it."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import secrets
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from tracer.report import pprof
from tracer.report.model import Report
from tracer.serve.destination import Destination, Form
from tracer.serve.outline import profiled

#: What Pyroscope does with each value of a profile: what is held is averaged over time, what is allocated summed up.
_SAMPLE_TYPES = {
    name: {"units": "bytes" if unit == "bytes" else "objects", "display-name": name, "sampled": False,
           "aggregation": "average" if name.startswith("inuse") else "sum"}
    for name, unit in pprof.VALUES
}
_IN_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Post:
    """What to post: the path with its query, the type of the content, the content."""

    target: str
    kind: str
    content: bytes


def post(destination: Destination, report: Report, before: Report | None = None) -> Post:
    """Return a report as the destination takes it; before: the one that it took before."""
    if destination.form is Form.PARCA:
        return _parca(destination, report)
    return _pyroscope(destination, report, before)


def _pyroscope(destination: Destination, report: Report, before: Report | None) -> Post:
    """Return a form with the profile of what happened since the one before, and what its values are."""
    until = report.taken.timestamp()
    since = before.taken.timestamp() if before is not None else until - report.elapsed_s
    content = _profile(replace(profiled(report, before), elapsed_s=max(0.0, until - since)))
    query = {"name": f"leaktrace.{_name(report)}", "spyName": "leaktrace", **dict(destination.query),
             "from": str(math.floor(since)), "until": str(max(math.floor(until), math.floor(since) + 1)),
             "format": "pprof"}
    boundary = secrets.token_hex(16)
    parts = (("profile", "profile.pb.gz", "application/octet-stream", content),
             ("sample_type_config", "sample_type_config.json", "application/json", json.dumps(_SAMPLE_TYPES).encode()))
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode() + part + b"\r\n"
        for name, file, kind, part in parts) + f"--{boundary}--\r\n".encode()
    return Post(f"{destination.path}?{urlencode(query)}", f"multipart/form-data; boundary={boundary}", body)


def _parca(destination: Destination, report: Report) -> Post:
    """Return the profile as WriteRaw has it; like Go's own, what it says of allocations is since the beginning."""
    # Parca has a profile in the moment that it says it began.
    content = _profile(replace(profiled(report), elapsed_s=0.0))
    labels = {"__name__": "memory", "job": "leaktrace", "comm": _name(report), "node": socket.gethostname(),
              **dict(destination.query)}
    made = {"series": [{"labels": {"labels": [{"name": name, "value": value} for name, value in labels.items()]},
                        "samples": [{"rawProfile": base64.b64encode(content).decode()}]}],
            "normalized": False}
    return Post(destination.path, "application/json", json.dumps(made).encode())


def _profile(report: Report) -> bytes:
    out = io.BytesIO()
    pprof.write(report, out)
    return out.getvalue()


def _name(report: Report) -> str:
    """Return what to call what was traced, in letters that every server takes."""
    return _IN_NO_NAME.sub("_", report.targets[0].comm) or "_" if report.targets else "kernel"
