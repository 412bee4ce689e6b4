"""docs/after-the-request.md agrees with the code."""

import re

import pytest

from tests.helpers.commands import ROOT, run
from train import PROJECT
from training.cli import build_parser
from training.monitoring.outcomes import read_outcomes
from training.monitoring.served_error import MAX_ERROR_RATIO, MIN_OUTCOMES, MIN_TRAINING_ROWS

PAGE = (ROOT / "docs/after-the-request.md").read_text()


def test_example_of_outcomes_is_read(tmp_path):
    """The example of the page has each column that the command reads."""
    path = tmp_path / "actual.csv"
    example = re.search(r"```\n(request_id.*?)```", PAGE, re.DOTALL)[1]
    path.write_text(example.replace("TARGET", PROJECT.target))
    outcomes = read_outcomes(path, PROJECT.target)
    assert outcomes["record_number"].tolist() == [0, 1]
    assert list(outcomes) == ["request_id", "record_number", "outcome", "timestamp"]


def test_limits_are_those_of_the_code():
    """The page has the limits at which the verdict changes."""
    text = " ".join(PAGE.split()).replace(" %", "%")
    assert f"if the 95% interval of a ratio lies above {MAX_ERROR_RATIO}." in text
    assert (
        f"needs {MIN_OUTCOMES} outcomes, and either at least {MIN_TRAINING_ROWS} training rows"
        in text
    )
    share = build_parser(PROJECT).parse_args(["replay", ".", "--model", "m"]).max_share
    assert f"more than {share:.0%} of the predictions" in text


def test_help_of_evaluate_has_the_limit(capsys):
    """The command line does not import the limit, which would take seconds."""
    with pytest.raises(SystemExit):
        build_parser(PROJECT).parse_args(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"significantly above {MAX_ERROR_RATIO} times that of training" in text


def test_targets_of_make_exist():
    """The Makefile has each command that the page names."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)", PAGE)):
        assert f"\n{target}: " in makefile


def test_make_passes_the_training_data_to_the_command():
    """A variable that its rule does not use would be ignored."""
    commands = re.findall(r"`make ([^`]* DATA=training\.csv)`", PAGE)
    assert {command.split()[0] for command in commands} == {"train", "report", "drift", "evaluate"}
    for command in commands:
        assert "--data training.csv" in run("make", "--dry-run", *command.split()).stdout
