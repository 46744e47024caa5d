"""leaktrace doctor: say what this machine, this kernel and this user can trace, found by trying."""

from __future__ import annotations

import os
import shutil
import sys

import click

from tracer.errors import ExitCode
from tracer.report import doctor


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 programs can be traced; 3 they cannot, and the table says why; 2 wrong usage.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one document, schema leaktrace-doctor/1.")
def command(form: str) -> int:
    """Say what can be traced on this machine, what is missing for more, and what to do about it.

    Everything is tried, nothing is concluded from version numbers. Nothing on the machine is changed, and nothing stays
    attached.
    """
    checkup = examine()
    if form == "json":
        doctor.write_json(checkup, sys.stdout)
    else:
        terminal = sys.stdout.isatty()
        doctor.write(checkup, sys.stdout, width=shutil.get_terminal_size().columns if terminal else 80,
                     colour=terminal and not os.environ.get("NO_COLOR"))
    return ExitCode.DONE if checkup.way else ExitCode.CANNOT_TRACE


def examine() -> doctor.Checkup:
    """Look at this machine now."""
    from tracer.attach.doctor import kernel_memory, lacking, lacking_for_kernel, look_around, user_way
    from tracer.attach.doctor_answer import Host

    found = look_around(Host())
    system = os.uname()
    rows = tuple(doctor.Row(need.id, need.title, need.group, answer.status.value, answer.found, need.without,
                            answer.remedy, need.serves) for need, answer in found)
    way = user_way(found)
    return doctor.Checkup(system.release, system.machine, way.value if way else None, lacking(found),
                          kernel_memory(found), lacking_for_kernel(found), rows)
