"""Names and paths from a target are made safe for the terminal of whoever reads the report."""

import re

# C0, DEL and C1 controls; bidirectional marks, embeddings, overrides and isolates (Unicode Standard Annex 9);
# line and paragraph separators; the byte order mark; lone surrogates (which is how os.fsdecode() spells
# bytes that are no UTF-8).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str) -> str:
    r"""Return the text with every character that could disturb a terminal written as \xNN or \uNNNN."""
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)
