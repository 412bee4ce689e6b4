"""Run the command line of `training` in this process, which has imported its libraries already."""

import io
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from train import PROJECT
from training import main


def run_training(*arguments, check=True, project=PROJECT):
    """Run `python -m training` with arguments; return it as a finished process with its output."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            main(project, list(map(str, arguments)))
        except SystemExit as end:
            status = end.code
    if isinstance(status, str):  # Python prints such a status and exits with 1
        errors.write(f"{status}\n")
        status = 1
    done = CompletedProcess(arguments, status or 0, output.getvalue(), errors.getvalue())
    if check and done.returncode:
        pytest.fail(f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
