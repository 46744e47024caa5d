"""Puts data, style and script into one page that asks for nothing else."""

from __future__ import annotations

import base64
import html
import json
from functools import cache
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Any

#: In the order in which they are joined: what comes later uses what came before.
_SCRIPTS = ("numbers", "elements", "data", "curves", "chart", "tree", "flame", "flame_view", "stack", "sites_view",
            "site_view", "overview", "trace_view", "main")
_STYLES = ("colours", "page", "views", "small", "print")
# In a script element, "<" can end it or open a comment, and line separators end a line of JavaScript.
_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def page(title: str, data: dict[str, bytes]) -> str:
    """Return the page; data: what the script decodes, by name, each compressed by zlib."""
    style, script = _joined("css", _STYLES), _joined("js", _SCRIPTS)
    policy = (f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    return Template(_file("page.html")).substitute(
        title=html.escape(title), policy=policy, style=style, script=script,
        data=embedded({name: base64.b64encode(packed).decode() for name, packed in data.items()}))


def embedded(value: Any) -> str:
    """Return JSON that may stand inside a script element, whatever texts are in it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_UNSAFE)


def _joined(kind: str, names: tuple[str, ...]) -> str:
    """Return our own files of one kind; a script's names are its own and not the page's."""
    text = "\n".join(_file(f"{name}.{kind}") for name in names)
    return f'(function () {{\n"use strict";\n{text}}})();\n' if kind == "js" else text


@cache
def _file(name: str) -> str:
    return files("tracer.report").joinpath("html", name).read_text("utf-8")


def _source(text: str) -> str:
    """Return how a policy allows exactly this text, which stands between the tags as it is."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
