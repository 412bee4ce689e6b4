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

from training.data import InvalidData, load, split
from training.model import evaluate, save

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


def main(description: str, fit: Fit, labelled: type[BaseModel], name: str, data: Path) -> None:
    """Load the data, fit, evaluate and save, as the command line says.

    The last field of `labelled` is the target, and those before it are the features.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=data, help="CSV file (default: %(default)s)")
    parser.add_argument("--name", type=model_name, default=name, help="default: %(default)s")
    parser.add_argument("--if-missing", action="store_true", help="only if there is no model yet")
    options = parser.parse_args()
    if options.if_missing and is_trained(options.name):
        return
    try:
        source = options.data.read_bytes()
        parts = split(load(source.decode("utf-8-sig"), labelled))
    except (InvalidData, OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{options.data}: nothing is saved.\n{error}") from None
    model = fit(parts.X_train, parts.y_train)
    metrics = evaluate(model, parts)
    dummy = evaluate(DummyRegressor().fit(parts.X_train, parts.y_train), parts)
    table = pd.DataFrame({"model": metrics, "always the mean": dummy})
    print(table.to_string(float_format="{:.4f}".format))
    schema = labelled.model_json_schema()["properties"][parts.y_train.name]
    target = {"name": parts.y_train.name} | {key: schema[key] for key in ("description", "unit")}
    saved = save(options.name, model, parts.X_train, metrics, target, source)
    print(f"Saved {saved.tag}")
