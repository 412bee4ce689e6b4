"""Check that an exported ONNX model makes the same predictions as scikit-learn."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from onnx import ModelProto, TensorProto, helper, load_from_string
from pydantic import BaseModel
from scipy.sparse import issparse
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits

from serving.onnx_model import OnnxModel
from serving.records import Row
from training.errors import NotExportableError
from training.export.graph import first_line
from training.export.reference import SklearnReference, has_missing, predict_quietly
from training.export.rows import FLOAT32_MAX, data_rows, edge_rows, random_rows, threshold_rows
from training.export.trees import TREE_ENSEMBLES, read_ensemble

# The largest accepted difference, relative to max(|prediction|, standard deviation of the target).
TOLERANCE = 1e-12
N_RANDOM_ROWS = 10_000
# `compare_rows` divides each set of rows into two groups, with and without missing values. The
# export predicts the first rows of a group one at a time, the others in chunks.
N_SINGLE_ROWS = 1000
CHUNK_ROWS = 64
MAX_THRESHOLD_ROWS = 100_000
# Rows at thresholds times trees: 500 trees get 50,000 rows, which takes both runtimes some seconds.
MAX_TREE_VISITS = 25_000_000
META_ENSEMBLES = (VotingRegressor, BaggingRegressor, AdaBoostRegressor, StackingRegressor)
# Of the rows that the export rejects, at most this many of each group are tried with scikit-learn.
MAX_CHECKED_REJECTIONS = 100
ONE_ROW, MANY_ROWS = 1, 64  # numbers of rows for which the time of a prediction is measured
TIMED_SECONDS = 0.2  # for each number of rows


class ExportCheck(NamedTuple):
    """The result of a comparison of an export with scikit-learn."""

    n_rows: int  # valid records that both predict
    # Valid records that the export rejects, such as for an unknown category. scikit-learn rejects
    # those of them that were tried.
    n_rejected: int
    n_threshold_rows: int  # rows at the thresholds of the last step's trees
    largest_difference: float  # relative, like TOLERANCE
    sklearn_seconds: dict[int, float]  # median time of a prediction, by number of rows
    onnx_seconds: dict[int, float]


def verify(
    estimator: Any,
    content: bytes,
    X: pd.DataFrame,
    y: pd.Series,
    record_type: type[BaseModel],
    seed: int = 0,
) -> ExportCheck:
    """Compare an export with scikit-learn on the data X, y, on edge values and on random records.

    Raise NotExportableError if a prediction differs by more than TOLERANCE, or if one of both
    rejects a record that the other predicts. Of the records that the export rejects, only a sample
    is tried with scikit-learn. The same seed gives the same random records.
    """
    reference, model = SklearnReference(estimator, X), load(content)
    rng, scale = np.random.default_rng(seed), float(np.std(y))
    data = data_rows(record_type, X)
    sets = [data, edge_rows(record_type, X, rng), random_rows(record_type, X, rng, N_RANDOM_ROWS)]
    # Both runtimes get one thread: more make scikit-learn slower on a few rows, especially on a
    # busy machine.
    with threadpool_limits(1):
        compared = [compare_rows(reference, model, comparable(rows), scale) for rows in sets]
        difference, n_threshold_rows = compare_at_thresholds(reference, content, data, scale, rng)
        return ExportCheck(
            n_rows=sum(each.n_rows for each in compared),
            n_rejected=sum(each.n_rejected for each in compared),
            n_threshold_rows=n_threshold_rows,
            largest_difference=max(difference, *(each.difference for each in compared)),
            sklearn_seconds=median_seconds(reference.predict, data),
            onnx_seconds=median_seconds(model.predict, data),
        )


def load(content: bytes) -> OnnxModel:
    """Load an export; raise NotExportableError if ONNX Runtime can't."""
    try:
        return OnnxModel(content)
    except Exception as error:  # the exceptions of ONNX Runtime have no common base class
        raise NotExportableError(
            f"ONNX Runtime can't load the export: {first_line(error)}"
        ) from error


def comparable(rows: list[Row]) -> list[Row]:
    """Exclude the rows that have both a missing value and a number beyond float32.

    For rows with a missing value, scikit-learn's input check is on. It rejects numbers beyond
    float32 and, depending on the estimator, missing values: for a row with both, one could not tell
    which of these it rejects.
    """
    return [
        row
        for row in rows
        if not has_missing([row])
        or not any(isinstance(value, float) and abs(value) > FLOAT32_MAX for value in row)
    ]


class Compared(NamedTuple):
    """The result for some rows."""

    n_rows: int  # predicted by both
    n_rejected: int  # by the export
    difference: float  # the largest, relative, like TOLERANCE


def compare_rows(
    reference: SklearnReference, model: OnnxModel, rows: list[Row], scale: float
) -> Compared:
    """Compare an export with scikit-learn on valid records; raise NotExportableError.

    A row is rejected if the prediction fails or is NaN.
    """
    difference, n_rejected = 0.0, 0
    # In separate calls: if a row has a missing value, `SklearnReference` switches scikit-learn's
    # input check on for all rows of the call.
    for with_missing in (False, True):
        group = [row for row in rows if has_missing([row]) == with_missing]
        if not group:
            continue
        predicted = np.concatenate([predict_or_nan(model.predict, each) for each in chunks(group)])
        is_predicted = ~np.isnan(predicted)
        kept = [row for row, is_kept in zip(group, is_predicted, strict=True) if is_kept]
        rejected = [row for row, is_kept in zip(group, is_predicted, strict=True) if not is_kept]
        check_rejected(reference, rejected)
        n_rejected += len(rejected)
        if kept:
            expected = predict_expected(reference, kept)
            largest = max_relative_difference(kept, expected, predicted[is_predicted], scale)
            difference = max(difference, largest)
    return Compared(len(rows) - n_rejected, n_rejected, difference)


def chunks(rows: list[Row]) -> list[list[Row]]:
    """Return chunks of one row, then of CHUNK_ROWS.

    ONNX Runtime has different code for one row and for many rows: check both.
    """
    single, rest = rows[:N_SINGLE_ROWS], rows[N_SINGLE_ROWS:]
    larger = [rest[i : i + CHUNK_ROWS] for i in range(0, len(rest), CHUNK_ROWS)]
    return [[row] for row in single] + larger


def predict_or_nan(predict: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> np.ndarray:
    """Predict the targets (n_samples,), with NaN for each row that fails."""
    try:
        return np.asarray(predict(rows), dtype=float).ravel()
    except Exception:  # the exceptions of ONNX Runtime have no common base class
        if len(rows) == 1:
            return np.array([np.nan])
    half = len(rows) // 2
    return np.concatenate(
        [predict_or_nan(predict, rows[:half]), predict_or_nan(predict, rows[half:])]
    )


def predict_expected(reference: SklearnReference, rows: list[Row]) -> np.ndarray:
    """Predict with scikit-learn; raise NotExportableError if it rejects a row."""
    try:
        return reference.predict(rows)
    except ValueError as error:
        raise NotExportableError(
            "The export predicts a valid record that scikit-learn rejects: " + first_line(error)
        ) from error


def check_rejected(reference: SklearnReference, rows: list[Row]) -> None:
    """Raise NotExportableError if scikit-learn predicts a row that the export rejects."""
    step = math.ceil(len(rows) / MAX_CHECKED_REJECTIONS) or 1
    for row in rows[::step]:
        if not np.isnan(predict_or_nan(reference.predict, [row])).all():
            raise NotExportableError(
                f"The export fails on a record that scikit-learn predicts: {row}"
            )


def max_relative_difference(
    rows: Sequence[Row] | np.ndarray, expected: np.ndarray, predicted: np.ndarray, scale: float
) -> float:
    """Return the largest relative difference; raise NotExportableError beyond TOLERANCE."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(predicted - expected) / np.maximum(np.abs(expected), scale)
    # The formula gives NaN for equal infinities and for NaN in both: their difference is 0.
    difference[(predicted == expected) | (np.isnan(predicted) & np.isnan(expected))] = 0.0
    # Any other NaN is a difference: NaN or infinity against another value.
    difference[np.isnan(difference)] = np.inf
    worst = int(np.argmax(difference))
    if difference[worst] > TOLERANCE:
        raise NotExportableError(
            f"The export predicts {predicted[worst]} where scikit-learn predicts "
            f"{expected[worst]}, for {tuple(np.array(rows[worst], dtype=object).tolist())}."
        )
    return float(difference[worst])


def compare_at_thresholds(
    reference: SklearnReference,
    content: bytes,
    data: list[Row],
    scale: float,
    rng: np.random.Generator,
) -> tuple[float, int]:
    """Compare the trees of the last step at their thresholds.

    Return the largest difference and the number of rows. A record whose preprocessed value lies
    exactly on a threshold can't be constructed. So take the trees out of the ONNX graph, and
    compare them alone on preprocessed rows, also on some that no record leads to.
    """
    graph_input = trees_input(load_from_string(content))
    if graph_input is None:
        return 0.0, 0
    step, X = last_step(reference, data)
    trees = [tree for ensemble in tree_ensembles(step) for tree in read_ensemble(ensemble).trees]
    if not trees:
        raise NotExportableError(f"The trees in {type(step).__name__} can't be checked.")
    regressor, encoded = without_encoder(step, X)
    allows_missing = get_tags(regressor).input_tags.allow_nan
    max_rows = min(MAX_THRESHOLD_ROWS, MAX_TREE_VISITS // len(trees))
    rows = threshold_rows(trees, to_array(encoded), rng, max_rows, allows_missing)
    if not len(rows):
        return 0.0, 0
    expected = predict_encoded(regressor, rows)
    predicted = load(cut(content, graph_input, rows.shape[1])).predict(rows).ravel()
    return max_relative_difference(rows, expected, predicted, scale), len(rows)


def last_step(reference: SklearnReference, data: list[Row]) -> tuple[Any, Any]:
    """Return the last step of the estimator, and its input for the data."""
    step, X = reference.estimator, reference.input_format.to_input(data)
    while isinstance(step, Pipeline):
        if len(step.steps) > 1:
            X = step[:-1].transform(X)
        step = step.steps[-1][1]
    return step, X


def predict_encoded(regressor: Any, rows: np.ndarray) -> np.ndarray:
    """Predict rows (n_samples, n_features) with scikit-learn; categories are encoded already."""
    names = getattr(regressor, "feature_names_in_", None)
    # scikit-learn needs the fitted names in the fitted order, and uses the position of a column
    # only. The names may be those of other columns, since encoded categories come first.
    X = rows if names is None else pd.DataFrame(rows, columns=names)
    return predict_quietly(regressor, X, check_finite=False)


def tree_ensembles(estimator: Any) -> list[Any]:
    """Return an estimator if it consists of trees, or those of its members that do."""
    if isinstance(estimator, TREE_ENSEMBLES):
        return [estimator]
    members = getattr(estimator, "estimators_", []) if isinstance(estimator, META_ENSEMBLES) else []
    return [member for member in members if isinstance(member, TREE_ENSEMBLES)]


def without_encoder(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Split the built-in category encoder off histogram gradient boosting.

    Return the estimator without it, and the encoded features, with the categories first.
    """
    if getattr(estimator, "_preprocessor", None) is None:
        return estimator, X
    X = estimator._preprocessor.transform(X)  # noqa: SLF001
    estimator = copy.copy(estimator)
    estimator._preprocessor = None  # noqa: SLF001
    return estimator, X


def to_array(X: Any) -> np.ndarray:
    """Return features as a dense array of floats."""
    return np.asarray(X.toarray() if issparse(X) else X, dtype=float)


def trees_input(model: ModelProto) -> str | None:
    """Return the name of the tensor that is the input of the trees, before any cast.

    Return None for an export without trees; raise NotExportableError if the trees have several
    inputs.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    names = [node.input[0] for node in model.graph.node if node.op_type == "TreeEnsemble"]
    sources = set()
    for name in names:
        while name in producers and producers[name].op_type == "Cast":
            name = producers[name].input[0]
        sources.add(name)
    if len(sources) > 1:
        raise NotExportableError("The trees have different inputs, which can't be checked.")
    return sources.pop() if sources else None


def cut(content: bytes, graph_input: str, n_features: int) -> bytes:
    """Return an export that starts at a tensor: the nodes before it are removed."""
    model = load_from_string(content)
    reached, nodes = {graph_input}, []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            nodes.append(node)
    del model.graph.input[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(
        helper.make_tensor_value_info(graph_input, TensorProto.DOUBLE, [None, n_features])
    )
    return model.SerializeToString()


def median_seconds(
    predict: Callable[[Sequence[Row]], Any], data: Sequence[Row]
) -> dict[int, float]:
    """Return the median time of a prediction, by number of rows."""
    medians = {}
    for size in (ONE_ROW, MANY_ROWS):
        rows, times = (list(data) * size)[:size], []
        predict(rows)
        end = time.perf_counter() + TIMED_SECONDS
        while (start := time.perf_counter()) < end:
            predict(rows)
            times.append(time.perf_counter() - start)
        medians[size] = float(np.median(times))
    return medians
