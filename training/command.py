"""The command line of train.py: from the data to a model in the store."""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import bentoml
import pandas as pd
from bentoml.exceptions import NotFound
from pydantic import BaseModel
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor

from training.data import InvalidData, Split, load, split
from training.model import evaluate, predict_legal, save

Fit = Callable[[pd.DataFrame, pd.Series], RegressorMixin]


def is_trained(name: str) -> bool:
    """Tell whether the model store has a model of this name."""
    try:
        return bool(bentoml.models.get(name))
    except NotFound:
        return False


def model_name(text: str) -> str:
    """Return a name that the model store accepts; raise ArgumentTypeError."""
    try:
        return bentoml.Tag(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def arguments(description: str, name: str, data: Path) -> argparse.ArgumentParser:
    """Return a parser of what every command takes: the data, and the name of the model."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=data, help="CSV file (default: %(default)s)")
    parser.add_argument("--name", type=model_name, default=name, help="default: %(default)s")
    return parser


def read(path: Path, labelled: type[BaseModel]) -> tuple[bytes, Split]:
    """Return the content of a CSV file, and its rows, split; end the program if they are bad."""
    try:
        source = path.read_bytes()
        return source, split(load(source.decode("utf-8-sig"), labelled))
    except (InvalidData, OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{path}: nothing is saved.\n{error}") from None


def main(description: str, fit: Fit, labelled: type[BaseModel], name: str, data: Path) -> None:
    """Load the data, fit, evaluate and save, as the command line says.

    The last field of `labelled` is the target, and those before it are the features.
    """
    parser = arguments(description, name, data)
    parser.add_argument("--if-missing", action="store_true", help="only if there is no model yet")
    options = parser.parse_args()
    if options.if_missing and is_trained(options.name):
        return
    source, parts = read(options.data, labelled)
    model = fit(parts.X_train, parts.y_train)
    try:
        predict_legal(model, parts.X_train, labelled)
    except ValueError as error:
        raise SystemExit(f"The model fails on a legal record: nothing is saved.\n{error}") from None
    metrics = evaluate(model, parts)
    dummy = evaluate(DummyRegressor().fit(parts.X_train, parts.y_train), parts)
    table = pd.DataFrame({"model": metrics, "always the mean": dummy})
    print(table.to_string(float_format="{:.4f}".format))
    schema = labelled.model_json_schema()["properties"][parts.y_train.name]
    target = {"name": parts.y_train.name, **{key: schema[key] for key in ("description", "unit")}}
    print(f"Saved {save(options.name, model, parts.X_train, metrics, target, source).tag}")
