"""Where to listen: HOST:PORT as it is given, the socket, and the names that requests may call it by."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from tracer.errors import CannotTrace, UsageError

#: Connections that the kernel keeps until they are looked at.
BACKLOG = 64
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen at, as digits and not as a name; port 0: any that is free."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ip_address(self.host).is_loopback

    @property
    def is_v6(self) -> bool:
        """Whether it is of IPv6."""
        return isinstance(ip_address(self.host), IPv6Address)

    @property
    def names(self) -> frozenset[str] | None:
        """Return what a request may call the host, None: anything.

        A page of another site can have its name resolve to 127.0.0.1, and its browser then reads from there what the
        site could not (DNS rebinding); but it sends that name. What others reach may have names that we do not know.
        """
        return _LOOPBACK_NAMES | {self.host} if self.is_loopback else None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_v6 else f"{self.host}:{self.port}"


def parse(text: str, *, public: bool = False) -> Address:
    """Return the address of HOST:PORT. Raises UsageError; also for one that others can reach, unless public."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port[:6]) > 0xFFFF:
        raise UsageError(f"--listen {text!r} is not HOST:PORT.", "Write for example 127.0.0.1:9464.")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    digits = "127.0.0.1" if name.lower() == "localhost" else name
    try:
        parsed = ip_address(digits)
    except ValueError:
        raise UsageError(f"--listen {text!r} names no address: {name!r} is neither one in digits nor localhost.",
                         "Write for example 127.0.0.1:9464, or [::1]:9464.") from None
    if parsed.version == 6 and name == host:
        raise UsageError(f"--listen {text!r} leaves open where the address ends.", f"Write [{host}]:{port}.")
    address = Address(str(parsed), int(port))
    if not address.is_loopback and not public:
        raise UsageError(f"--listen {text} would show the report to everybody who can reach this machine.",
                         "Give --listen-public too if that is meant, and put authentication in front.")
    return address


def listen(address: Address) -> socket.socket:
    """Return a socket that listens there. Raises CannotTrace."""
    made = socket.socket(socket.AF_INET6 if address.is_v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.is_v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address.host, address.port))
        made.listen(BACKLOG)
    except OSError as problem:
        made.close()
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
        raise CannotTrace(f"Nobody can listen at {address}: {reason}.",
                          "Name another port, or 0 for any that is free.") from None
    return made
