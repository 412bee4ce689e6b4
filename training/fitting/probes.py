"""Predict records at the edges of what the record type allows, before a model is saved."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel

from serving.errors import APIError
from serving.features import declared_values, feature_schemas, is_nullable, kind_of
from serving.records import Prediction, Row
from serving.regressor import LoadedModel, to_predictions
from training.data import to_records
from training.errors import ModelNotServableError
from training.feature_values import EXCLUSIVE_BOUNDS, bounds_of, neighbours, unseen_texts
from training.request_body import make_body_type

MISSING_HINT = (
    "Choose an estimator that accepts missing values, such as HistGradientBoostingRegressor, or "
    "put a SimpleImputer in front of it, or declare the feature without None."
)
CATEGORY_HINT = (
    'If the data lack this value, its encoder needs a setting such as handle_unknown="ignore".'
)
MAX_BASE_RECORDS = 10  # rows of the data that are tried as the base of the probes


class Probe(NamedTuple):
    """A record of the data with one value replaced by another that the record type allows."""

    name: str  # of the feature
    value: Any
    # The model is not saved if it fails on a declared value (category, boolean, number of an
    # enumeration), None or an unseen text. For any other number there is only a warning.
    must_predict: bool
    row: Row


class RequestPredictor:
    """Predicts a record as the service does: from JSON to a row, a prediction and JSON."""

    def __init__(self, model: LoadedModel, record_type: type[BaseModel]) -> None:
        self.body_type = make_body_type(record_type)
        self.model = model

    def parse(self, record: dict[str, Any]) -> Row:
        """Return the row of a record; raise APIError if it is invalid."""
        (row,) = self.body_type.parse(json.dumps(record).encode())
        return row

    def try_predict(self, row: Row) -> Exception | None:
        """Predict a row; return the exception that this raises, or None."""
        try:
            predictions = to_predictions(self.model.predict([row]), 1)
            check_finite(predictions)
            Prediction.to_json(predictions)
        except Exception as error:  # a model may raise any exception
            return error
        return None


def check_finite(predictions: list[float]) -> None:
    """Raise ValueError if a prediction is NaN or infinite: the service responds with 422 to it."""
    if not all(map(math.isfinite, predictions)):
        raise ValueError(f"The prediction is {predictions[0]}")


def check_probes(
    model: LoadedModel,
    reference: LoadedModel,
    record_type: type[BaseModel],
    X: pd.DataFrame,
) -> list[Row]:
    """Predict records of the data X with one value at an edge of what is allowed.

    `model` is what predicts in the service, `reference` is scikit-learn. Return the rows that the
    model must predict, for the golden predictions; raise ModelNotServableError if it fails on one
    of these. Print a warning for each number that it fails on.
    """
    served = RequestPredictor(model, record_type)
    sklearn = RequestPredictor(reference, record_type)
    probes = list(make_probes(served, record_type, X))
    warn_of_unprobed_texts(probes, record_type)
    for probe in probes:
        if error := find_error(probe, served, sklearn):
            report_error(probe, error, record_type.__name__)
    return [probe.row for probe in probes if probe.must_predict]


def find_error(
    probe: Probe, served: RequestPredictor, sklearn: RequestPredictor
) -> Exception | None:
    """Return the exception that the prediction of a probe raises, or None."""
    error = served.try_predict(probe.row)
    # The exceptions of scikit-learn say more than those of ONNX Runtime. A missing value is always
    # tried with `sklearn`, too: only there is scikit-learn's input check on (SklearnReference).
    # Without the check, a model that does not support missing values returns any number for them.
    if error or probe.value is None:
        return sklearn.try_predict(probe.row) or error
    return None


def report_error(probe: Probe, error: Exception, type_name: str) -> None:
    """Raise ModelNotServableError if the model must predict a probe, otherwise print a warning."""
    if probe.must_predict:
        hint = MISSING_HINT if probe.value is None else CATEGORY_HINT
        raise ModelNotServableError(
            f"The model can't predict {probe.name}={probe.value!r}, which {type_name} declares. "
            f"{hint}\n{describe(error)}"
        )
    print(
        f"Warning: the model can't predict {probe.name}={probe.value!r}, which {type_name} allows. "
        f"The service responds with 422 to such a record: narrow the bounds, or fix the pipeline.\n"
        f"{describe(error)}"
    )


def warn_of_unprobed_texts(probes: list[Probe], record_type: type[BaseModel]) -> None:
    """Print a warning for each text feature that has no probe with an unseen text."""
    probed = {probe.name for probe in probes if probe.value is not None}
    for name, schema in feature_schemas(record_type).items():
        if kind_of(schema) == "text" and name not in probed:
            print(
                "Warning: could not make up a text that is not in the data and that "
                f"{record_type.__name__}.{name} allows. Make sure that the model predicts records "
                "with such a text."
            )


def make_probes(
    served: RequestPredictor, record_type: type[BaseModel], X: pd.DataFrame
) -> Iterator[Probe]:
    """Yield the probes that are valid records."""
    base = find_base_record(served, to_records(record_type, X.head(MAX_BASE_RECORDS)))
    for name, schema in feature_schemas(record_type).items():
        is_text = kind_of(schema) == "text"
        choices = unseen_texts(schema, X[name]) if is_text else declared_values(schema)
        numbers = [] if choices or is_text else number_values(schema, X[name])
        nulls = [None] if is_nullable(schema) else []
        values = [(value, True) for value in (*choices, *nulls)]
        values += [(number, False) for number in numbers]
        for value, must_predict in values:
            try:
                row = served.parse(base | {name: value})
            except APIError:  # a bound excludes the value, or a validator of the record type
                continue
            yield Probe(name, value, must_predict, row)


def find_base_record(served: RequestPredictor, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first record that the model predicts; raise ModelNotServableError without one."""
    error: Exception | None = None
    for record in records:
        try:
            error = served.try_predict(served.parse(record))
        except APIError as invalid:
            # A validator that changes values may reject one that it has returned (scaled twice).
            error = invalid
        if not error:
            return record
    raise ModelNotServableError(f"The model can't predict its training data.\n{describe(error)}")


def number_values(schema: dict[str, Any], column: pd.Series) -> list[Any]:
    """Return zero, the extremes of the data and the bounds of a number; some may be invalid.

    For an exclusive bound return the numbers next to it, too.
    """
    values = [0, column.min(), column.max(), *bounds_of(schema)]
    for bound in bounds_of(schema, EXCLUSIVE_BOUNDS):
        values += neighbours(bound, schema)
    to_type = int if schema["type"] == "integer" else float
    return list(dict.fromkeys(map(to_type, values)))


def describe(error: Exception | None) -> str:
    """Return the type and the message of an exception."""
    return f"{type(error).__name__}: {error}"
