"""What a pattern of a suppression file is compared with: tests for one text, none of which takes exponential time.

LeakSanitizer: TemplateMatch() in compiler-rt's sanitizer_common.cpp. valgrind: manual, section 2.5.
"""

import re
from collections.abc import Callable

from symbolizer.demangle import demangle
from tracer.judge.fingerprint import plain_name


def template(pattern: str) -> Callable[[str], object]:
    """Return the test that a pattern of LeakSanitizer's is: a part of the text, `*` any text, `^` start, `$` end.

    What follows a `$` is not looked at. LeakSanitizer stops at the first of several places where the text before a `$`
    could stand (`foo$` is not in `foofoo`); here as documented, the end is what counts.
    """
    wanted, dollar, _ = pattern.partition("$")
    pieces = [re.escape(piece) for piece in re.split(r"\*+", wanted.removeprefix("^"))]
    return _in_order(pieces if wanted.startswith("^") else ["", *pieces], bool(dollar))


def glob(pattern: str) -> Callable[[str], object]:
    """Return the test for a whole text in which `*` is any text and `?` any one character; nothing else is special."""
    if not re.search(r"[*?]", pattern):
        return pattern.__eq__
    return _in_order([".".join(map(re.escape, piece.split("?"))) for piece in re.split(r"\*+", pattern)], True)


def _in_order(pieces: list[str], to_end: bool) -> Callable[[str], object]:
    """Return the test for these regular expressions one after another, the first at the start, any text between."""
    first, *others = pieces
    last = r"\Z" if to_end else ""
    if others and to_end:
        last = rf".*{others.pop()}\Z"
    # Atomic groups: each piece where it first stands, once and for all, so that time does not grow with each `*`.
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in others) + last, re.DOTALL).match


def of_mangled(pattern: str) -> tuple[Callable[[str], object], ...]:
    """Return the test of demangled names that a mangled one in a suppression is; none if it cannot be told.

    valgrind compares mangled names, and frames have demangled ones. A whole name is demangled. Of one with wildcards
    what comes before the first `*` can be read if it is whole identifiers, as in `_ZN3Foo3bar*` and `_ZNSt6vectorI*`.
    """
    if not re.search(r"[*?]", pattern):
        name = plain_name(demangle(pattern))
        return () if name == pattern else (name.__eq__,)
    found = re.fullmatch(r"\**_Z(N[rVKRO]*)?(St)?([^*?]*)\*+", pattern)
    if found is None:
        return ()
    names, rest = ["std"] if found[2] else [], found[3]
    cut = ""
    while length := re.match("[1-9][0-9]{0,3}", rest):
        size, text = int(length[0]), rest[length.end():]
        if len(text) < size:
            # The wildcard stands inside an identifier of known length.
            cut = rf"{re.escape(text)}\w{{{size - len(text)}}}" if text else ""
            rest = "" if text else rest
            break
        names.append("(anonymous namespace)" if text.startswith("_GLOBAL__N_") else text[:size])
        rest = text[size:]
    if names and (special := re.fullmatch("([CD])[0-5](.*)", rest)):
        names.append(names[-1] if special[1] == "C" else f"~{names[-1]}")
        rest = special[2]
    ends = {"": r"(?!\w)", "E": r"\(", "I": "<", "EI": "<"}
    inside = re.fullmatch("[1-9][0-9]*", rest)
    if (rest not in ends and inside is None) or not (names or cut):
        return ()
    path = "::".join([*map(re.escape, names), *([cut] if cut else [])])
    # A template function's demangled name begins with the type it returns.
    return (re.compile(rf"(?:[^(]*[ *&])?{path}{'::' if inside else ends[rest]}", re.DOTALL).match,)
