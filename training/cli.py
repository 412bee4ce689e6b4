"""The command line of train.py: from the data to a model in the store."""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import bentoml
import pandas as pd
from bentoml.exceptions import BentoMLException, NotFound
from pydantic import BaseModel
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor

from serving.model import check_record_type
from training.data import InvalidData, Split, load, split
from training.model import Unservable, evaluate, predict_legal, save

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
    try:
        train(fit, labelled, options.name, options.data)
    except (BentoMLException, Unservable) as error:
        raise SystemExit(f"Nothing is saved. {error}") from None


def train(fit: Fit, labelled: type[BaseModel], name: str, data: Path) -> None:
    """Save a model of the data; raise BentoMLException or `Unservable` if it can't be served."""
    *_, target = labelled.model_fields
    check_record_type(labelled, target)
    source, parts = read(data, labelled)
    model = fit(parts.X_train, parts.y_train)
    predict_legal(model, parts.X_train, labelled)
    metrics = evaluate(model, parts)
    dummy = evaluate(DummyRegressor().fit(parts.X_train, parts.y_train), parts)
    table = pd.DataFrame({"model": metrics, "always the mean": dummy})
    print(table.to_string(float_format="{:.4f}".format))
    schema = labelled.model_json_schema()["properties"][target]
    about = {"name": target, "description": schema["description"], "unit": schema["unit"]}
    print(f"Saved {save(name, model, parts.X_train, metrics, about, source).tag}")
