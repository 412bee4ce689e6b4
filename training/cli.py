"""The command line: `python -m training train|report|drift|score|evaluate|replay|new`.

Each command has a function that declares its arguments and, below it, one that runs it. The latter
imports the command's module, since loading the packages of all commands takes seconds.
"""

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from training.errors import TrainingError
from training.project import ROOT, Project

Subparsers = Any  # argparse._SubParsersAction is private
# Someone has to look at the result. Python itself exits with 1 on an error, argparse with 2.
EXIT_ALERT = 3
TABLE_FILE = "CSV, Parquet or JSON Lines file: .csv, .parquet or .jsonl"


def main(project: Project, arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status, or with a message if it fails.

    The status is EXIT_ALERT if the function that runs the command returns True, otherwise 0.
    """
    options = build_parser(project).parse_args(arguments)
    try:
        needs_attention = options.run(project, options)
    except (TrainingError, BentoMLException, OSError) as error:
        prefix = options.error_prefix.format_map(vars(options))
        raise SystemExit(f"{prefix}{error}") from None
    sys.exit(EXIT_ALERT if needs_attention else 0)


def build_parser(project: Project) -> ArgumentParser:
    """Return a parser of all commands."""
    parser = ArgumentParser(prog="python -m training")
    # Printed before an error. `main` fills in arguments in braces, such as {data}.
    parser.set_defaults(error_prefix="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_train, add_report, add_drift, add_score, add_evaluate, add_replay, add_new):
        add(commands, project)
    return parser


def model_and_data_parser(project: Project) -> ArgumentParser:
    """Return a parent parser: the arguments for a model's name and for its training data."""
    parser = ArgumentParser(add_help=False)
    add_data(parser, project)
    parser.add_argument(
        "--name", type=model_name, default=project.name, help="of the model (default: %(default)s)"
    )
    return parser


def add_data(parser: ArgumentParser, project: Project) -> None:
    """Declare the argument for the training data."""
    parser.add_argument(
        "--data", type=Path, default=project.data, help="training data, CSV (default: %(default)s)"
    )


def add_log(parser: ArgumentParser) -> None:
    """Declare the argument for the prediction log."""
    parser.add_argument("log", type=Path, help="folder: PREDICTION_LOG of the service")


def add_output(parser: ArgumentParser, path: Path, kind: str) -> None:
    """Declare the argument for an output; `kind` says what is written, such as "folder"."""
    help_text = f"{kind} (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=path, help=help_text)


def add_train(commands: Subparsers, project: Project) -> None:
    """Declare the command train."""
    parser = commands.add_parser(
        "train", parents=[model_and_data_parser(project)], help="fit, evaluate and save a model"
    )
    parser.add_argument(
        "--if-missing",
        action="store_true",
        help="train only if the store has no model of this name, or if an earlier version of this "
        "bundle saved its newest model",
    )
    parser.set_defaults(run=run_train, error_prefix="Nothing is saved. ")


def run_train(project: Project, options: Namespace) -> None:
    """Train a model; with --if-missing, only if `needs_training` says so."""
    from training.fitting.train import needs_training, train

    if not options.if_missing or needs_training(options.name):
        train(project, options.data, options.name)


def add_report(commands: Subparsers, project: Project) -> None:
    """Declare the command report."""
    parser = commands.add_parser(
        "report",
        parents=[model_and_data_parser(project)],
        help="plot how well the newest model predicts, and write its model card",
    )
    add_output(parser, ROOT / "report", "folder")
    card = ROOT / "docs/MODEL_CARD.md"
    parser.add_argument("--card", type=Path, default=card, help="model card (default: %(default)s)")
    parser.set_defaults(run=run_report)


def run_report(project: Project, options: Namespace) -> None:
    """Write the training report and the model card of the newest model."""
    from training.fitting.report import write_report

    write_report(project, options.name, options.data, options.output, options.card)


def add_drift(commands: Subparsers, project: Project) -> None:
    """Declare the command drift."""
    parser = commands.add_parser(
        "drift",
        parents=[model_and_data_parser(project)],
        help="compare a prediction log with the training data",
        epilog="Exit status: 3 if a feature or the prediction has drifted, 1 or 2 on an error, 0 "
        "otherwise, also if there are too few rows to tell.",
    )
    add_log(parser)
    add_output(parser, ROOT / "drift.png", "plot")
    parser.set_defaults(run=run_drift)


def run_drift(project: Project, options: Namespace) -> bool:
    """Compare a prediction log with the training data; return whether it has drifted."""
    from training.monitoring.drift import compare_log

    return compare_log(project, options.name, options.data, options.log, options.output)


def add_score(commands: Subparsers, project: Project) -> None:
    """Declare the command score."""
    parser = commands.add_parser(
        "score",
        help="predict the rows of a file",
        epilog="Exit status: 3 if rows are rejected, 1 or 2 on an error, 0 otherwise.",
    )
    parser.add_argument("data", help=TABLE_FILE)
    parser.add_argument("output", help=f"{TABLE_FILE}; rejected rows go to a file next to it")
    parser.add_argument(
        "--model",
        "--tag",  # its former name
        metavar="TAG",
        default=project.name,
        help="tag of the model (default: the newest %(default)s)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score on a Ray cluster: DATA is a file or a folder, OUTPUT a folder; the name of a "
        "folder ends like that of a file, with its format",
    )
    parser.set_defaults(run=run_score, error_prefix="{data}: nothing is written.\n")


def run_score(project: Project, options: Namespace) -> bool:
    """Score a file; return whether rows were rejected."""
    data, output = options.data, options.output
    if options.ray:
        from training.scoring.ray_data import score_on_ray

        return score_on_ray(project, options.model, data, output, options.ray)
    from training.scoring.command import score_file

    return score_file(project, options.model, Path(data), Path(output))


def add_evaluate(commands: Subparsers, project: Project) -> None:
    """Declare the command evaluate."""
    parser = commands.add_parser(
        "evaluate",
        help="compare a prediction log with outcomes, the true values of the target",
        epilog="Exit status: 3 if, for all records or in a segment, the mean absolute error is "
        "significantly above 1.1 times that of training; 1 or 2 on an error; 0 otherwise, also if "
        "there are too few outcomes to tell.",
    )
    add_log(parser)
    target = project.target.replace("%", "%%")  # argparse formats help texts
    parser.add_argument(
        "--outcomes",
        type=Path,
        required=True,
        help=f"CSV file with request_id, record_number (for arrays), {target} and, optionally, "
        "timestamp: when the outcome became known",
    )
    parser.add_argument(
        "--model",
        metavar="TAG",
        help="tag of the model (default: the model of the last prediction)",
    )
    add_data(parser, project)
    add_output(parser, ROOT / "error.png", "plot")
    parser.add_argument(
        "--write", type=Path, help="write the records with their outcomes as training data, CSV"
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(project: Project, options: Namespace) -> bool:
    """Compare a prediction log with outcomes; return whether the model has become worse."""
    from training.monitoring.evaluate import evaluate_log

    return evaluate_log(
        project,
        data_path=options.data,
        log_folder=options.log,
        outcomes_path=options.outcomes,
        tag=options.model,
        plot_path=options.output,
        training_csv=options.write,
    )


def add_replay(commands: Subparsers, project: Project) -> None:
    """Declare the command replay."""
    parser = commands.add_parser(
        "replay",
        help="predict the records of a prediction log with another model",
        epilog="Exit status: 3 if a request would be rejected or too many predictions change by "
        "more than the bound, 1 or 2 on an error, 0 otherwise.",
    )
    add_log(parser)
    parser.add_argument(
        "--model", metavar="TAG", required=True, help="tag of the other model, or NAME:latest"
    )
    parser.add_argument(
        "--bound",
        type=non_negative_number,
        help="largest accepted change of a prediction (default: cross-validated RMSE of the model "
        "of the last prediction)",
    )
    parser.add_argument(
        "--max-share",
        type=share,
        default=0.05,
        help="largest accepted share, from 0 to 1, of predictions that change by more than BOUND "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=run_replay)


def run_replay(project: Project, options: Namespace) -> bool:
    """Predict the records of a log with another model; return whether that model fails."""
    from training.monitoring.replay import replay_log

    return replay_log(project, options.log, options.model, options.bound, options.max_share)


def add_new(commands: Subparsers, project: Project) -> None:
    """Declare the command new."""
    parser = commands.add_parser("new", help="write a bundle for another table into a folder")
    parser.add_argument("data", type=Path, help="CSV or Parquet file")
    parser.add_argument("--target", required=True, help="the column to predict")
    parser.add_argument("--name", type=bundle_name, required=True, help="such as car_price")
    parser.add_argument("--out", type=Path, required=True, help="folder, new or empty")
    parser.add_argument("--drop", type=names, default=[], help="columns to exclude: id,date")
    parser.set_defaults(run=run_new, error_prefix="Nothing is written. ")


def run_new(project: Project, options: Namespace) -> None:
    """Write a bundle for another table."""
    from training.scaffold import new

    new(project, options.data, options.target, options.name, options.out, options.drop)


# The types of arguments: each parses a text, or raises ArgumentTypeError.


def non_negative_number(text: str) -> float:
    """Parse a finite number of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return number


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    number = non_negative_number(text)
    if number > 1:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to 1, such as 0.05")
    return number


def names(text: str) -> list[str]:
    """Parse a comma-separated list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def bundle_name(text: str) -> str:
    """Parse a name such as car_price, valid for a model, an image and, in CamelCase, a class."""
    if len(text) > 40 or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)+", text):
        raise ArgumentTypeError(
            f"{text!r}: join two or more words of lower-case letters and digits by "
            "underscores, as in car_price, up to 40 characters"
        )
    return text


def model_name(text: str) -> str:
    """Parse a name that the model store accepts."""
    try:
        return bentoml.Tag(text, None).name
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
