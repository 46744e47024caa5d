"""Where profiles are posted to: a URL, and the form that its path says."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tracer.errors import UsageError

#: The variable that has what a server asks for before it takes a profile.
CREDENTIALS = "LEAKTRACE_PUSH_CREDENTIALS"


class Form(StrEnum):
    """How a profile is posted, by the end of the path that documents it."""

    PYROSCOPE = "/ingest"
    """https://grafana.com/docs/pyroscope/latest/configure-server/about-server-api/"""
    PARCA = "/profiles/writeraw"
    """profilestore.proto of Parca, which serves it below /api as JSON too."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that takes profiles; query: what the user has put into the URL, by name."""

    secure: bool
    host: str
    port: int
    path: str
    query: tuple[tuple[str, str], ...]
    form: Form

    def __str__(self) -> str:
        """Return how to speak of it: a query may hold what is not for everybody."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse(url: str) -> Destination:
    """Return what a URL means. Raises UsageError."""
    split, port = _split(url)
    if split.username is not None or split.password is not None:
        raise UsageError("The URL of --push-pprof has credentials in it, and everybody on this machine can read those.",
                         f"Put USER:PASSWORD, or a token, into the environment variable {CREDENTIALS}.")
    path = split.path.rstrip("/")
    form = next((form for form in Form if path.endswith(form.value)), None)
    if form is None:
        raise UsageError(f"--push-pprof does not know what takes profiles at the path {split.path or '/'!r}.",
                         f"For Pyroscope the URL ends with {Form.PYROSCOPE.value}, for Parca with "
                         f"/api{Form.PARCA.value}.")
    assert split.hostname is not None
    secure = split.scheme == "https"
    return Destination(secure, split.hostname, port or (443 if secure else 80), path,
                       tuple(parse_qsl(split.query, keep_blank_values=True)), form)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        split, port = urlsplit(""), None
    strange = not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url)
    if split.scheme not in ("http", "https") or not split.hostname or strange:
        raise UsageError("The URL of --push-pprof is none of http or https.",
                         "Write for example http://localhost:4040/ingest.")
    return split, port


def authorization(credentials: str | None, destination: Destination) -> str | None:
    """Return the header for credentials, USER:PASSWORD or a token; None: without. Raises UsageError."""
    if not credentials:
        return None
    if not credentials.isascii() or not credentials.isprintable():
        raise UsageError(f"{CREDENTIALS} has characters in it that no credentials have.",
                         "Give USER:PASSWORD or a token, without an end of line.")
    if not destination.secure and not destination.is_loopback:
        raise UsageError(f"The credentials would go to {destination} for everybody on the way to read.",
                         f"Name a URL with https, or unset {CREDENTIALS}.")
    if ":" in credentials:
        return f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return f"Bearer {credentials}"
