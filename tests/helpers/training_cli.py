"""Run the command line of `training` in this process, which saves the time of its imports."""

import io
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from train import PROJECT
from training import main


def run_training(*arguments, check=True, project=PROJECT):
    """Run `python -m training` with arguments; return the status and output as CompletedProcess."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            main(project, list(map(str, arguments)))
        except SystemExit as end:
            status = end.code
    if isinstance(status, str):  # Python prints a text and exits with 1
        errors.write(f"{status}\n")
        status = 1
    done = CompletedProcess(arguments, status or 0, output.getvalue(), errors.getvalue())
    if check and done.returncode:
        pytest.fail(f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def check_error(done, *parts, has_output=False):
    """Check for exit status 1, output or none, and a one-line error message with these parts."""
    assert (done.returncode, bool(done.stdout)) == (1, has_output)
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
