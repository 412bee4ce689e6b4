"""Predict the edges of what the record type allows, before a model is saved."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel

from serving.errors import APIError
from serving.features import declared_values, feature_schemas, is_nullable, kind_of
from serving.observability.prediction_metrics import PredictionMetrics
from serving.records import Prediction, RequestBody, Row
from serving.regressor import LoadedModel, to_predictions
from training.errors import ModelNotServableError
from training.export.rows import BOUNDS, to_records, unknown_texts

GAP_HINT = (
    "Choose an estimator that takes gaps, such as HistGradientBoostingRegressor, or put a "
    "SimpleImputer in front of it, or declare the feature without None."
)
CATEGORY_HINT = (
    'If the data lack this value, its encoder needs handle_unknown="ignore", or the like.'
)
MAX_BASE_RECORDS = 10  # rows of the data that are tried as the base of the probes


class Probe(NamedTuple):
    """A record of the data with one value replaced by one that the record type allows."""

    name: str  # of the feature
    value: Any
    is_declared: bool  # a category, a boolean, a gap or an unknown text, not a number
    row: Row


class Answerer:
    """Answers a record as the service does: from JSON to a row, a prediction, metrics and JSON."""

    def __init__(
        self, model: LoadedModel, probed_type: type[BaseModel], metrics: PredictionMetrics
    ) -> None:
        class Body(RequestBody):
            record_type = probed_type

        self.body_type = Body
        self.model = model
        self.metrics = metrics

    def parse(self, record: dict[str, Any]) -> list[Row]:
        """Return the row of a record; raise APIError if it is invalid."""
        return self.body_type.parse(json.dumps(record).encode())

    def error(self, rows: list[Row]) -> Exception | None:
        """Return the exception that answering raises, or None."""
        try:
            predictions = to_predictions(self.model.predict(rows), len(rows))
            check_finite(predictions)
            self.metrics.observe(rows, predictions)
            Prediction.to_json(predictions)
        except Exception as error:  # a model may raise any
            return error
        return None


def check_finite(predictions: list[float]) -> None:
    """Raise ValueError if a prediction is NaN or infinite: the service answers it with 422."""
    if not all(map(math.isfinite, predictions)):
        raise ValueError(f"The prediction is {predictions[0]}")


class NoHistogram:
    """Takes the place of the histogram of predictions: those for probes are not counted."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Do nothing."""


def check_probes(
    model: LoadedModel,
    reference: LoadedModel,
    record_type: type[BaseModel],
    X: pd.DataFrame,
) -> list[Row]:
    """Predict each bound, zero and extreme of the numbers, each other value and each gap.

    `model` predicts in the service; `reference` is scikit-learn, whose exceptions say more than
    those of ONNX Runtime. Return the rows whose value is declared: a category, a boolean, a gap or
    an unknown text. Print a warning for each number that the model can't predict; raise
    ModelNotServableError if it fails on a declared value.
    """
    metrics = PredictionMetrics(list(X), {}, {}, histogram=NoHistogram())
    answerer = Answerer(model, record_type, metrics)
    probes = list(probe_records(answerer, record_type, X))
    warn_of_unprobed_texts(probes, record_type)
    for probe in probes:
        error = answerer.error([probe.row])
        # In the service scikit-learn does not look for gaps, and a model may predict anything.
        if error or probe.value is None:
            error = Answerer(reference, record_type, metrics).error([probe.row]) or error
        if error and probe.is_declared:
            hint = GAP_HINT if probe.value is None else CATEGORY_HINT
            raise ModelNotServableError(
                f"The model can't predict {probe.name}={probe.value!r}, which "
                f"{record_type.__name__} declares. {hint}\n{describe(error)}"
            )
        if error:
            print(
                f"Warning: the model can't predict {probe.name}={probe.value!r}, which "
                f"{record_type.__name__} allows. The service answers such a record with 422: "
                f"narrow the bounds, or mend the pipeline.\n{describe(error)}"
            )
    return [probe.row for probe in probes if probe.is_declared]


def warn_of_unprobed_texts(probes: list[Probe], record_type: type[BaseModel]) -> None:
    """Print a warning for each text of which no unknown value is known to be legal."""
    probed = {probe.name for probe in probes if probe.value is not None}
    for name, schema in feature_schemas(record_type).items():
        if kind_of(schema) == "text" and name not in probed:
            print(
                f"Warning: no text is known that {record_type.__name__}.{name} allows and the data "
                "lack, so that none was tried. Make sure that the model predicts such a text."
            )


def probe_records(
    answerer: Answerer, record_type: type[BaseModel], X: pd.DataFrame
) -> Iterator[Probe]:
    """Yield the probes that are valid records."""
    base = base_record(answerer, to_records(record_type, X.head(MAX_BASE_RECORDS)))
    for name, schema in feature_schemas(record_type).items():
        declared = declared_values(schema)
        if kind_of(schema) == "text":
            declared = unknown_texts(schema, X[name])
        numbers = [] if declared else number_values(schema, X[name])
        gaps = [None] if is_nullable(schema) else []
        for value in [*declared, *gaps, *numbers]:
            try:
                (row,) = answerer.parse(base | {name: value})
            except APIError:  # a validator of the record type excludes the value
                continue
            yield Probe(name, value, value not in numbers, row)


def base_record(answerer: Answerer, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record that the model predicts; raise ModelNotServableError if there is none."""
    error: Exception | None = None
    for record in records:
        try:
            error = answerer.error(answerer.parse(record))
        except APIError as invalid:  # a validator of the record type refuses its own result
            error = invalid
        if not error:
            return record
    raise ModelNotServableError(f"The model can't predict its training data.\n{describe(error)}")


def number_values(schema: dict[str, Any], column: pd.Series) -> list[Any]:
    """Return zero, the extremes of the data and the values at the bounds, legal or not."""
    as_number = int if schema["type"] == "integer" else float
    values = [0, column.min(), column.max()]
    values += [schema[key] for key in BOUNDS if key in schema]
    if as_number is float:  # the values beside an exclusive bound
        bounds = [schema[key] for key in BOUNDS[2:] if key in schema]
        values += [
            math.nextafter(bound, side) for bound in bounds for side in (-math.inf, math.inf)
        ]
    else:
        values += [schema[key] + step for key in BOUNDS[2:] if key in schema for step in (-1, 1)]
    return list(dict.fromkeys(map(as_number, values)))


def describe(error: Exception | None) -> str:
    """Return the type and the text of an exception."""
    return f"{type(error).__name__}: {error}"
