"""leaktrace completion SHELL: the script that has a shell complete leaktrace's words, and the answers that it asks for.

The scripts are click's, and ask leaktrace itself at each key, so that they know every command and option.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from tracer.cli import candidates

SHELLS = ("bash", "zsh", "fish")
#: What the scripts set to ask: SHELL_complete.
VARIABLE = "_LEAKTRACE_COMPLETE"
#: What begins the command of `leaktrace kernel`.
_BEGINS_COMMAND = "--"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
               epilog="Exit codes: 0 done, 2 wrong usage.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print what has SHELL complete commands, options, process ids and files.

    bash: eval "$(leaktrace completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, below compinit. fish:
    leaktrace completion fish > ~/.config/fish/completions/leaktrace.fish.
    """
    click.echo(script(shell), nl=False)
    return 0


def script(shell: str) -> str:
    """Return the script of one of SHELLS."""
    return _asking(shell).source().strip("\n") + "\n"


def answer(instruction: str, commands: dict[str, str], default: str) -> int:
    """Print what the words in the environment can be completed with; instruction: the value of VARIABLE.

    commands: modules by first word; default: of any other first word. Returns an exit code.
    """
    shell, _, what = instruction.partition("_")
    if what != "complete" or shell not in SHELLS:
        return 2
    asking = _asking(shell)
    try:
        words, incomplete = asking.get_completion_args()
    except (KeyError, ValueError):
        return 2
    for each in complete(asking, words, incomplete, commands, default):
        click.echo(asking.format_completion(each))
    return 0


def complete(asking: ShellComplete, words: Sequence[str], incomplete: str, commands: dict[str, str],
             default: str) -> list[CompletionItem]:
    """Return what the word behind words, of which incomplete is there, may be."""
    module = commands.get(words[0]) if words else None
    asking.cli = import_module(module or default).command
    rest = list(words[1:] if module else words)
    if words and words[0] == "kernel" and _BEGINS_COMMAND in rest:
        return candidates.command(tuple(rest[rest.index(_BEGINS_COMMAND) + 1 :]), incomplete)
    with asking.cli.make_context("leaktrace", list(rest), resilient_parsing=True) as context:
        if context.params.get("words"):
            # Options from here on are the command's own.
            return candidates.command(tuple(context.params["words"]), incomplete)
    found = asking.get_completions(rest, incomplete)
    if not words:
        found = [CompletionItem(name, help=import_module(place).command.get_short_help_str(80))
                 for name, place in commands.items() if name.startswith(incomplete)] + found
    return found


def _asking(shell: str) -> ShellComplete:
    """Return what speaks with a shell; the command is not yet known."""
    found = get_completion_class(shell)
    assert found is not None, "click knows all of SHELLS"
    return found(click.Command("leaktrace"), {}, "leaktrace", VARIABLE)
