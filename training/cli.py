"""The command line: `python -m training train|report|drift|score|evaluate|replay|new`.

Each command has a function that declares its arguments and, below it, one that runs it. The latter
imports the module of the command, so that no command loads what only others need.
"""

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from training.errors import InvalidDataError, TrainingError
from training.project import ROOT, Project

Commands = Any  # what ArgumentParser.add_subparsers returns, a private class of argparse
TABLE_FILE = "CSV, Parquet or JSON Lines file: .csv, .parquet or .jsonl"


def main(project: Project, arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with a message if it cannot be carried out."""
    options = build_parser(project).parse_args(arguments)
    try:
        status = options.run(project, options)
    except (TrainingError, BentoMLException, OSError) as error:
        raise SystemExit(f"{options.failure}{error}") from None
    sys.exit(status)


def build_parser(project: Project) -> ArgumentParser:
    """Return a parser of all commands."""
    parser = ArgumentParser(prog="python -m training")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_train, add_report, add_drift, add_score, add_evaluate, add_replay, add_new):
        add(commands, project)
    return parser


def data_and_name(project: Project) -> ArgumentParser:
    """Return the arguments of the commands that are about a model and its training data."""
    parser = ArgumentParser(add_help=False)
    add_data(parser, project)
    parser.add_argument(
        "--name", type=model_name, default=project.name, help="default: %(default)s"
    )
    return parser


def add_data(parser: ArgumentParser, project: Project) -> None:
    """Declare the training data."""
    parser.add_argument(
        "--data", type=Path, default=project.data, help="CSV file (default: %(default)s)"
    )


def add_log(parser: ArgumentParser) -> None:
    """Declare the prediction log."""
    parser.add_argument("log", type=Path, help="PREDICTION_LOG of the service")


def add_output(parser: ArgumentParser, path: Path, kind: str) -> None:
    """Declare where a file or folder is written to."""
    help_text = f"{kind} (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=path, help=help_text)


def add_train(commands: Commands, project: Project) -> None:
    """Declare the command train."""
    parser = commands.add_parser(
        "train", parents=[data_and_name(project)], help="fit, evaluate and save the regressor"
    )
    parser.add_argument("--if-missing", action="store_true", help="only if there is no model yet")
    parser.set_defaults(run=run_train, failure="Nothing is saved. ")


def run_train(project: Project, options: Namespace) -> int:
    """Train a model, unless there is one and --if-missing is given."""
    from training.fitting.train import is_trained, train

    if options.if_missing and is_trained(options.name):
        return 0
    try:
        train(project, options.data, options.name)
    except (InvalidDataError, OSError) as error:
        raise SystemExit(f"{options.data}: nothing is saved.\n{error}") from None
    return 0


def add_report(commands: Commands, project: Project) -> None:
    """Declare the command report."""
    parser = commands.add_parser(
        "report", parents=[data_and_name(project)], help="draw how well the newest model predicts"
    )
    add_output(parser, ROOT / "report", "folder")
    card = ROOT / "docs/MODEL_CARD.md"
    parser.add_argument("--card", type=Path, default=card, help="file (default: %(default)s)")
    parser.set_defaults(run=run_report, failure="Nothing is written.\n")


def run_report(project: Project, options: Namespace) -> int:
    """Write the training report and the model card of the newest model."""
    from training.fitting.report import write_report

    write_report(project, options.name, options.data, options.output, options.card)
    return 0


def add_drift(commands: Commands, project: Project) -> None:
    """Declare the command drift."""
    parser = commands.add_parser(
        "drift",
        parents=[data_and_name(project)],
        help="compare a prediction log with the training data",
        epilog="Exit status: 3 if a feature or the prediction has drifted, 1 or 2 on an error, 0 "
        "otherwise, also if there are too few rows to tell.",
    )
    add_log(parser)
    add_output(parser, ROOT / "drift.png", "picture")
    parser.set_defaults(run=run_drift, failure="")


def run_drift(project: Project, options: Namespace) -> int:
    """Compare a prediction log with the training data; return the exit status."""
    from training.monitoring.drift import EXIT_DRIFTED, compare_log

    drifted = compare_log(project, options.name, options.data, options.log, options.output)
    return EXIT_DRIFTED if drifted else 0


def add_score(commands: Commands, project: Project) -> None:
    """Declare the command score."""
    parser = commands.add_parser(
        "score",
        help="predict the rows of a file",
        epilog="Exit status: 3 if rows are rejected, 1 or 2 on an error, 0 otherwise.",
    )
    parser.add_argument("data", help=TABLE_FILE)
    parser.add_argument("output", help=f"{TABLE_FILE}; rejected rows get one beside it")
    parser.add_argument(
        "--tag", default=project.name, help="model (default: the newest %(default)s)"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score a file or a folder into a folder, with such endings, on a Ray cluster",
    )
    parser.set_defaults(run=run_score, failure="")


def run_score(project: Project, options: Namespace) -> int:
    """Score a file; return the exit status."""
    from training.scoring.command import score_file

    data, output = options.data, options.output
    try:
        if options.ray:
            from training.scoring.ray_data import score_on_ray

            return score_on_ray(project, options.tag, data, output, options.ray)
        return score_file(project, options.tag, Path(data), Path(output))
    except (InvalidDataError, OSError) as error:
        raise SystemExit(f"{options.data}: nothing is written.\n{error}") from None


def add_evaluate(commands: Commands, project: Project) -> None:
    """Declare the command evaluate."""
    parser = commands.add_parser(
        "evaluate",
        help="compare a prediction log with what really happened",
        epilog="Exit status: 3 if the model errs more than at its training, 1 or 2 on an error, 0 "
        "otherwise, also if there are too few outcomes to tell.",
    )
    add_log(parser)
    parser.add_argument(
        "--outcomes",
        type=Path,
        required=True,
        help=f"CSV file with request_id, record_number (for arrays) and {project.target}",
    )
    parser.add_argument("--model", help="tag (default: that of the last prediction)")
    add_data(parser, project)
    add_output(parser, ROOT / "error.png", "picture")
    parser.add_argument(
        "--write", type=Path, help="CSV file for the joined rows, as data to train with"
    )
    parser.set_defaults(run=run_evaluate, failure="")


def run_evaluate(project: Project, options: Namespace) -> int:
    """Compare a prediction log with what really happened; return the exit status."""
    from training.monitoring.evaluate import EXIT_WORSE, evaluate_log

    is_worse = evaluate_log(
        project,
        options.data,
        options.log,
        options.outcomes,
        options.model,
        options.output,
        options.write,
    )
    return EXIT_WORSE if is_worse else 0


def add_replay(commands: Commands, project: Project) -> None:
    """Declare the command replay."""
    parser = commands.add_parser(
        "replay",
        help="put the records of a prediction log through another model",
        epilog="Exit status: 3 if a request would be refused or too many predictions move by more "
        "than the bound, 1 or 2 on an error, 0 otherwise.",
    )
    add_log(parser)
    parser.add_argument("--model", required=True, help="tag in the model store, or NAME:latest")
    parser.add_argument(
        "--bound",
        type=positive_number,
        help="how far a prediction may move (default: cross-validated RMSE of the last model)",
    )
    parser.add_argument(
        "--max-share",
        type=share,
        default=0.05,
        help="of the predictions, from 0 to 1, that may move further (default: %(default)s)",
    )
    parser.set_defaults(run=run_replay, failure="")


def run_replay(project: Project, options: Namespace) -> int:
    """Put a prediction log through another model; return the exit status."""
    from training.monitoring.replay import EXIT_REFUSED, replay_log

    bounds = options.bound, options.max_share
    return EXIT_REFUSED if replay_log(project, options.log, options.model, *bounds) else 0


def add_new(commands: Commands, project: Project) -> None:
    """Declare the command new."""
    parser = commands.add_parser("new", help="write a bundle for another table into a folder")
    parser.add_argument("data", type=Path, help="CSV or Parquet file")
    parser.add_argument("--target", required=True, help="the column to predict")
    parser.add_argument("--name", type=bundle_name, required=True, help="such as car_price")
    parser.add_argument("--out", type=Path, required=True, help="folder, new or empty")
    parser.add_argument("--drop", type=names, default=[], help="columns to leave out: id,date")
    parser.set_defaults(run=run_new, failure="Nothing is written. ")


def run_new(project: Project, options: Namespace) -> int:
    """Write a bundle for another table."""
    from training.scaffold import new

    new(project, options.data, options.target, options.name, options.out, options.drop)
    return 0


# The types of arguments: each raises ArgumentTypeError if a text has no such value.


def positive_number(text: str) -> float:
    """Return a finite number from 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number from 0")
    return number


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    number = positive_number(text)
    if number > 1:
        raise ArgumentTypeError(f"{text!r} is above 1, which is all predictions")
    return number


def names(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def bundle_name(text: str) -> str:
    """Return a name that is valid as that of a model, an image and a Python class."""
    if len(text) > 40 or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)+", text):
        raise ArgumentTypeError(
            f"{text!r}: join two or more words of small letters and digits by underscores, as in "
            "car_price, up to 40 characters"
        )
    return text


def model_name(text: str) -> str:
    """Return a name that the model store accepts."""
    try:
        return bentoml.Tag(text, None).name
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
