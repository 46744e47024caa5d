"""leaktrace man: the manual page, made from what the commands themselves say of their options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module

import click

from tracer import VERSION

#: When its words last changed.
DATE = "2026-11-29"
#: Characters of a line, before what is special in it is escaped.
_WIDTH = 70
NAME = "name the call sites that hold memory which is not given back"
ENVIRONMENT = (
    ("NO_COLOR", "If it is set, reports at a terminal have no colours."),
    ("TERM", "If it is dumb, they have neither colours nor bold text."),
    ("DEBUGINFOD_URLS",
     "Servers that are asked for debug files which are not on this machine, as debuginfod(8) has it."),
)
EXAMPLES = (
    ("leaktrace -p 4711", "Report every 5 seconds, until Ctrl-C, who holds the memory of process 4711."),
    ("leaktrace -p 4711 -d 60 --record web.leaktrace", "Trace it for a minute, and keep all that was found."),
    ("leaktrace report web.leaktrace", "Look at what was found, on any machine."),
    ("leaktrace run --fail-on 'bytes>64k' -- ./tests",
     "Run tests, and fail if a site still holds more than 64 kB at the end."),
    ("leaktrace kernel -d 60", "Trace the kernel's own allocations for a minute."),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done, 2 wrong usage.")
def command() -> int:
    """Print the manual page, leaktrace(1), for `leaktrace man | man -l -`."""
    from tracer.cli import COMMANDS, DEFAULT

    click.echo(page(COMMANDS, DEFAULT), nl=False)
    return 0


def page(commands: dict[str, str], default: str) -> str:
    """Return the manual page in man(7); commands: modules by first word, default: of none of them."""
    parts = {"": import_module(default).command} | {name: import_module(place).command
                                                   for name, place in commands.items()}
    lines = [r'.\" Made from the commands themselves: scripts/make_manual',
             f'.TH LEAKTRACE 1 {DATE} "leaktrace {VERSION}"', ".SH NAME",
             rf"leaktrace \- {_text(NAME)}", ".SH SYNOPSIS"]
    for name, each in parts.items():
        usage = " ".join(each.collect_usage_pieces(click.Context(each)))
        lines += [rf"\fBleaktrace{' ' if name else ''}{_text(name)}\fR {_text(usage)}".rstrip(), ".br"]
    trace = parts.pop("")
    lines[-1:] = [".SH DESCRIPTION", *_paragraphs(trace.help), ".SH OPTIONS", *_options(trace), ".SH COMMANDS"]
    for name, each in parts.items():
        lines += [f".SS leaktrace {_text(name)}", *_paragraphs(each.help), *_options(each)]
    lines += [".SH ENVIRONMENT", *_entries((rf"\fB{name}\fR", text) for name, text in ENVIRONMENT),
              ".SH EXAMPLES", *_entries((rf"\fB{_text(line)}\fR", text) for line, text in EXAMPLES),
              ".SH SEE ALSO", r"\fBvalgrind\fR(1), \fBbpf\fR(2), \fBmallinfo2\fR(3), \fBdebuginfod\fR(8)"]
    return "\n".join(lines) + "\n"


def _options(of: click.Command) -> Iterator[str]:
    """Give the options of a command that its own help has, and then its exit codes."""
    context = click.Context(of)
    shown = [param for param in of.get_params(context)
             if isinstance(param, click.Option) and not param.hidden and "--help" not in param.opts]
    yield from _entries((_names(param, context), _said(param)) for param in shown)
    if of.epilog:
        yield from (".PP", *_lines(of.epilog))


def _names(option: click.Option, context: click.Context) -> str:
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return names
    if option.metavar is None and isinstance(option.type, click.Choice):
        return rf"{names} {_text(' | '.join(map(str, option.type.choices)))}"
    return rf"{names} \fI{_text(option.metavar or option.type.name.upper())}\fR"


def _said(option: click.Option) -> str:
    default = f" Default: {option.default:,}." if option.show_default and isinstance(option.default, int) else (
        f" Default: {option.default}." if option.show_default else "")
    return f"{option.help or ''}{default}"


def _entries(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Give paragraphs that begin with what they speak of, which is roff already."""
    for head, text in entries:
        yield from (".TP", head, *_lines(text))


def _paragraphs(text: str | None) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", (text or "").strip())):
        yield from ((".PP",) if number else ())
        yield from _lines(" ".join(paragraph.split()))


def _lines(text: str) -> list[str]:
    """Return a text as lines of roff, which mandoc wants to be short."""
    return [_text(line) for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _text(text: str) -> str:
    """Return a text as roff: nothing in it is a request, and its hyphens are those of the keyboard."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("~", r"\(ti").replace("^", r"\(ha")
    escaped = escaped.replace("`", r"\(ga").replace("'", r"\(aq").replace('"', r"\(dq")
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
