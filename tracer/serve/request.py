"""What a request asks for, read from the bytes of its head (RFC 9112), as far as this server needs to know."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Bytes of a request's first line and headers together, and how many headers there may be.
LONGEST_HEAD, MOST_HEADERS = 8192, 100
#: What ends the head.
END = b"\r\n\r\n"
METHODS = ("GET", "HEAD")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@]*)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a path, without its query."""

    path: str
    with_content: bool


class Refused(Exception):
    """A request that is not answered, by the status that says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def parse(head: bytes, names: frozenset[str] | None) -> Request:
    """Return the request of a head, which has its END; names: what it may call the host, None: anything.

    Raises Refused.
    """
    if len(head) > LONGEST_HEAD:
        raise Refused(431)
    first, *lines = head.removesuffix(END).split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Refused(400)
    if len(lines) > MOST_HEADERS:
        raise Refused(431)
    hosts = [value for name, value in map(_header, lines) if name == b"host"]
    # HTTP/1.0 knows no Host, and no browser speaks it.
    if len(hosts) != 1 and (hosts or line[3] == b"1"):
        raise Refused(400)
    if hosts and names is not None and _name(hosts[0]) not in names:
        raise Refused(421)
    method = line[1].decode()
    if method not in METHODS:
        raise Refused(405)
    return Request(line[2].decode().partition("?")[0], method == "GET")


def _header(line: bytes) -> tuple[bytes, bytes]:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise Refused(400)
    return found[1].lower(), found[2].rstrip(b" \t")


def _name(host: bytes) -> str:
    """Return the host of HOST[:PORT], an address of IPv6 without its brackets."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    if found is None:
        raise Refused(400)
    return found[1].strip("[]").lower().removesuffix(".")
