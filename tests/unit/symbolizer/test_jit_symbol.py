import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.jit_symbol import JitSymbol, jit_symbol


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("LazyCompile:*work /srv/a.js:12:7", JitSymbol("work", "/srv/a.js", 12)),
        ("LazyCompile:~work /srv/a.js:12", JitSymbol("work", "/srv/a.js", 12)),
        ("JS:^step /tmp/jit/a.js:1:44", JitSymbol("step", "/tmp/jit/a.js", 1)),
        ("JS:+'step /tmp/jit/a.js:1:44", JitSymbol("step", "/tmp/jit/a.js", 1)),
        ("JS:work /srv/a.js:3:1", JitSymbol("work", "/srv/a.js", 3)),
        ("JS:~ /tmp/jit/a.js:5:21", JitSymbol("<anonymous>", "/tmp/jit/a.js", 5)),
        ("JS:~Module._initPaths node:internal/modules/cjs/loader:1733:29", JitSymbol("Module._initPaths", "node:internal/modules/cjs/loader", 1733)),
        ("Script:~ file:///tmp/jit/[eval1]:1:1", JitSymbol("<anonymous>", "file:///tmp/jit/[eval1]", 1)),
        ("JS:~vmf evalmachine.<anonymous>:1:14", JitSymbol("vmf", "evalmachine.<anonymous>", 1)),
        # Blanks in names and files.
        ("JS:*get prop /tmp/sp ace/b c.js:1:18", JitSymbol("get prop", "/tmp/sp ace/b c.js", 1)),
        ("JS:~vmf2 my file.js:1:15", JitSymbol("vmf2 my file.js:1:15")),
        ("Eval:~ /tmp/jit/sp ace/b c.js:1:1", JitSymbol("<anonymous>", "/tmp/jit/sp ace/b c.js", 1)),
        # Code made from a string has no file.
        ("JS:~evd :1:14", JitSymbol("evd")),
        ("Eval:~ :1:1", JitSymbol("<anonymous>")),
        ("JS:~", JitSymbol("JS:~")),
        ("Function:~plain", JitSymbol("plain")),
        # V8's own code says so.
        ("Builtin:ArrayPush", JitSymbol("Builtin:ArrayPush")),
        ("BytecodeHandler:LdaZero", JitSymbol("BytecodeHandler:LdaZero")),
        ("RegExp:a+b:1:2", JitSymbol("RegExp:a+b:1:2")),
        ("py::f.<locals>.<genexpr>:/usr/lib/python3.13/a b:c.py", JitSymbol("f.<locals>.<genexpr>", "/usr/lib/python3.13/a b:c.py")),
        ("py::<module>:<frozen site>", JitSymbol("<module>", "<frozen site>")),
        ("py::", JitSymbol("py::")),
        ("void T.main(java.lang.String[])", JitSymbol("void T.main(java.lang.String[])")),
        ("Lpkg/Class;::method", JitSymbol("Lpkg/Class;::method")),
        ("instance void [app] N.C::M(int32)[Tier0]", JitSymbol("instance void [app] N.C::M(int32)[Tier0]")),
    ],
)  # fmt: skip
def test_a_runtimes_name_gives_function_file_and_line_where_they_are_certain(name: str, symbol: JitSymbol) -> None:
    assert jit_symbol(name) == symbol


@given(st.text(max_size=60) | st.text(":~* /a1", max_size=60).map("JS:".__add__))
def test_every_name_gives_some_function(name: str) -> None:
    symbol = jit_symbol(name)
    assert (symbol.function != "") == (name != "")
