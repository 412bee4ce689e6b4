"""The command line: `python -m training train|report|drift|score|new`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from training.errors import InvalidDataError, TrainingError
from training.project import ROOT, Project


def main(project: Project, arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with a message if it cannot be carried out."""
    options = build_parser(project).parse_args(arguments)
    try:
        status = options.run(project, options)
    except (TrainingError, BentoMLException, OSError) as error:
        raise SystemExit(f"{options.failure}{error}") from None
    sys.exit(status)


def build_parser(project: Project) -> argparse.ArgumentParser:
    """Return a parser with a sub-parser for each command."""
    parser = argparse.ArgumentParser(prog="python -m training")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data", type=Path, default=project.data, help="CSV file (default: %(default)s)"
    )
    common.add_argument(
        "--name", type=model_name, default=project.name, help="default: %(default)s"
    )

    train = commands.add_parser(
        "train", parents=[common], help="fit, evaluate and save the regressor"
    )
    train.add_argument("--if-missing", action="store_true", help="only if there is no model yet")
    train.set_defaults(run=run_train, failure="Nothing is saved. ")

    report = commands.add_parser(
        "report", parents=[common], help="draw how well the newest model predicts"
    )
    report.add_argument(
        "--output", type=Path, default=ROOT / "report", help="folder (default: %(default)s)"
    )
    report.add_argument(
        "--card",
        type=Path,
        default=ROOT / "docs/MODEL_CARD.md",
        help="file (default: %(default)s)",
    )
    report.set_defaults(run=run_report, failure="Nothing is written.\n")

    drift = commands.add_parser(
        "drift",
        parents=[common],
        help="compare a prediction log with the training data",
        epilog="Exit status: 3 if a feature or the prediction has drifted, 1 or 2 on an error, 0 "
        "otherwise, also if there are too few rows to tell.",
    )
    drift.add_argument("log", type=Path, help="PREDICTION_LOG of the service")
    drift.add_argument(
        "--output", type=Path, default=ROOT / "drift.png", help="picture (default: %(default)s)"
    )
    drift.set_defaults(run=run_drift, failure="")

    score = commands.add_parser(
        "score",
        help="predict the rows of a file",
        epilog="Exit status: 3 if rows are rejected, 1 or 2 on an error, 0 otherwise.",
    )
    endings = "CSV, Parquet or JSON Lines file: .csv, .parquet or .jsonl"
    score.add_argument("data", help=endings)
    score.add_argument("output", help=f"{endings}; rejected rows get one beside it")
    score.add_argument(
        "--tag", default=project.name, help="model (default: the newest %(default)s)"
    )
    score.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score a file or a folder into a folder, with such endings, on a Ray cluster",
    )
    score.set_defaults(run=run_score, failure="")

    new = commands.add_parser("new", help="write a bundle for another table into a folder")
    new.add_argument("data", type=Path, help="CSV or Parquet file")
    new.add_argument("--target", required=True, help="the column to predict")
    new.add_argument("--name", type=bundle_name, required=True, help="such as car_price")
    new.add_argument("--out", type=Path, required=True, help="folder, new or empty")
    new.add_argument("--drop", type=names, default=[], help="columns to leave out: id,date")
    new.set_defaults(run=run_new, failure="Nothing is written. ")
    return parser


# Each command imports its own module, so that training works without what only reports need.


def run_train(project: Project, options: argparse.Namespace) -> int:
    """Train a model, unless there is one and --if-missing is given."""
    from training.fitting import is_trained, train

    if options.if_missing and is_trained(options.name):
        return 0
    try:
        train(project, options.data, options.name)
    except (InvalidDataError, OSError) as error:
        raise SystemExit(f"{options.data}: nothing is saved.\n{error}") from None
    return 0


def run_report(project: Project, options: argparse.Namespace) -> int:
    """Write the training report and the model card of the newest model."""
    from training.report import write_report

    write_report(project, options.name, options.data, options.output, options.card)
    return 0


def run_drift(project: Project, options: argparse.Namespace) -> int:
    """Compare a prediction log with the training data; return the exit status."""
    from training.drift import EXIT_DRIFTED, compare_log

    drifted = compare_log(project, options.name, options.data, options.log, options.output)
    return EXIT_DRIFTED if drifted else 0


def run_score(project: Project, options: argparse.Namespace) -> int:
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


def run_new(project: Project, options: argparse.Namespace) -> int:
    """Write a bundle for another table."""
    from training.scaffold import new

    new(project, options.data, options.target, options.name, options.out, options.drop)
    return 0


def names(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def bundle_name(text: str) -> str:
    """Return a name that is valid as that of a model, an image and a Python class."""
    if len(text) > 40 or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: join two or more words of small letters and digits by underscores, as in "
            "car_price, up to 40 characters"
        )
    return text


def model_name(text: str) -> str:
    """Return a name that the model store accepts; raise ArgumentTypeError."""
    try:
        return bentoml.Tag(text, None).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
