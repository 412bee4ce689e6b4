"""Replay the console blocks of a page, which have commands and their expected outputs."""

import re
from doctest import ELLIPSIS, OutputChecker

from tests.helpers.commands import ROOT, run

SERVERS = ("make serve", "bentoml serve")


def console_commands(page):
    """Yield each command of the console blocks with its expected output."""
    for block in re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output


def check_output(command, expected, port, cwd=ROOT, **env):
    """Run a command, with `port` in place of 3000; check its output if the page shows one."""
    done = run("bash", "-c", command.replace(":3000", f":{port}"), cwd=cwd, **env)
    output = done.stdout.rstrip("\n") + "\n" if expected else ""
    assert OutputChecker().check_output(expected, output, ELLIPSIS), f"$ {command}\n{output}"
