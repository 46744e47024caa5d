"""The command line: finds the command, runs it, and turns what stops it into two sentences and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from tracer import VERSION
from tracer.errors import ExitCode, LeaktraceError

#: First words that name a command, and their modules, imported only when asked for. Anything else is `trace`.
COMMANDS = {
    "completion": "tracer.cli.completion",
    "demo": "tracer.cli.demo",
    "diff": "tracer.cli.diff",
    "doctor": "tracer.cli.doctor",
    "kernel": "tracer.cli.kernel",
    "man": "tracer.cli.manual",
    "report": "tracer.cli.report",
    "run": "tracer.cli.run",
}
DEFAULT = "tracer.cli.trace"


def main(arguments: list[str] | None = None) -> int:
    """Run leaktrace with arguments (default: the process's own) and return the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        # Scripts ask for it often, and importing click takes longer than all else.
        print(f"leaktrace, version {VERSION}")
        return ExitCode.DONE
    if asked := os.environ.get("_LEAKTRACE_COMPLETE"):
        from tracer.cli.completion import answer

        return answer(asked, COMMANDS, DEFAULT)
    import click

    module = COMMANDS.get(words[0]) if words else None
    command = import_module(module or DEFAULT).command
    name = f"leaktrace {words[0]}" if module else "leaktrace"
    if module:
        words = words[1:]
    try:
        # What a command returns, or the code of its Exit.
        code = command.main(args=words or ["--help"] * (module is None), prog_name=name, standalone_mode=False)
        return int(code or ExitCode.DONE)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as problem:
        problem.show()
        return ExitCode.USAGE
    except LeaktraceError as problem:
        click.echo(f"leaktrace: {problem.message}\n{problem.remedy}", err=True)
        return problem.exit_code
    except BrokenPipeError:
        # Whoever read the report has had enough.
        sys.stderr.close()
        return ExitCode.DONE
    except (KeyboardInterrupt, click.Abort):
        return 130


def run() -> None:
    """Entry point of the `leaktrace` script."""
    sys.exit(main())
