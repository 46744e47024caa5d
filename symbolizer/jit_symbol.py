"""What the name means that a runtime gave its code: Node's and Python's hold the function and where its source is."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JitSymbol:
    """What a runtime's name says: the function, and where its source is if that can be told for certain."""

    function: str
    file: str | None = None
    line: int | None = None


# V8 writes `TAG:TIER NAME FILE:LINE:COLUMN` (src/logging/log.cc, CodeEventLogger; older versions without the column).
# The tier says how V8 runs the function at present: interpreted ~, baseline ^, Maglev +, TurboFan *, with ' for
# code that belongs to one context (src/objects/code-kind.cc).
_NODE = re.compile(r"(?:JS|LazyCompile|Function|Eval|Script):(?:[~^+*]'?)?(?P<rest>.*)", re.DOTALL)
_PLACE = re.compile(r"(?P<before>.*?):(?P<line>[0-9]{1,9})(?::[0-9]{1,9})?", re.DOTALL)
# A name may hold blanks (`get size`) and a file too. These begin a file: an absolute path, a URL, Node's own names.
_FILE = re.compile(r" (?=/|[a-z][a-z0-9+.-]*:|evalmachine\.|\[)")
# Lib/test/test_perf_profiler.py and Python/perf_trampoline.c: `py::QUALNAME:FILE`; a qualified name holds no colon.
_PYTHON = re.compile(r"py::(?P<function>[^:]+):(?P<file>.+)", re.DOTALL)


def jit_symbol(name: str) -> JitSymbol:
    """Return function, file and line of a name that `PerfMap.find()` gave.

    Node: the tag and the tier are left out, because the same function is compiled several times and is still one
    place in the source; a function without a name is `<anonymous>`, as in V8's own stack traces. `Builtin:`,
    `BytecodeHandler:`, `RegExp:` and the like stay in the name, as they say that it is none of the program's functions.
    Python: `py::` is left out; the format has no line. Java, .NET and everything else: the name as it is.
    """
    python = _PYTHON.fullmatch(name)
    if python is not None:
        return JitSymbol(python["function"], python["file"])
    node = _NODE.fullmatch(name)
    if node is None:
        return JitSymbol(name)
    place = _PLACE.fullmatch(node["rest"])
    if place is None:
        return JitSymbol(node["rest"].strip() or name)
    function, separator, file = place["before"].partition(" ")
    if " " in file:
        begin = _FILE.search(place["before"])
        if begin is None:
            return JitSymbol(node["rest"].strip())
        function, file = place["before"][: begin.start()], place["before"][begin.end() :]
    if not separator:
        return JitSymbol(node["rest"])
    return JitSymbol(function or "<anonymous>", file or None, int(place["line"]) if file else None)
