"""Prove that an exported ONNX model predicts what scikit-learn does."""

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
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
from serving.sklearn_model import InputFormat
from training.errors import NotExportableError
from training.export.rows import FLOAT32_MAX, data_rows, edge_rows, random_rows, split_rows
from training.export.trees import TREE_ENSEMBLES, read_ensemble
from training.fitting.evaluation import takes_frame

TOLERANCE = 1e-12  # times the prediction, or the target's standard deviation if that is greater
N_RANDOM_ROWS = 10_000
N_SINGLE_ROWS = 1000  # of each set, that the export predicts one by one
MAX_SPLIT_ROWS = 100_000
# Rows at thresholds times trees: 500 trees get 50,000 rows, which takes both runtimes some seconds.
MAX_TREE_VISITS = 25_000_000
COMMITTEES = (VotingRegressor, BaggingRegressor, AdaBoostRegressor, StackingRegressor)
MAX_REFUSED_ROWS = 100  # of each set, that scikit-learn has to refuse one by one
BATCH_SIZES = (1, 64)  # for the times
TIMED_SECONDS = 0.2  # for each time


class ExportCheck(NamedTuple):
    """What was compared, and how both runtimes did."""

    n_rows: int  # records of the service's, predicted by both
    n_refused: int  # records that both refuse, such as for an unknown category
    n_split_rows: int  # rows at the thresholds of the last step's trees
    largest_difference: float  # relative, as TOLERANCE is
    sklearn_seconds: dict[int, float]  # median time, by number of rows
    onnx_seconds: dict[int, float]


class Reference:
    """Predicts with scikit-learn, as `serving.regressor` does without an export."""

    def __init__(self, estimator: Any, X: pd.DataFrame) -> None:
        self.estimator = estimator
        dtypes = {name: str(dtype) for name, dtype in X.dtypes.items()}
        self.input_format = InputFormat(dtypes, as_frame=takes_frame(estimator, X))

    def predict(self, rows: Sequence[Row] | np.ndarray) -> np.ndarray:
        """Predict the targets (n_samples,); raise ValueError if scikit-learn refuses a row."""
        return predict_quietly(self.estimator, self.input_format.to_input(rows), has_gaps(rows))


def predict_quietly(estimator: Any, X: Any, has_gaps: bool) -> np.ndarray:
    """Predict without warnings; let scikit-learn refuse gaps, but not what float32 can't hold."""
    finite = sklearn.config_context(assume_finite=not has_gaps)
    with finite, np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(estimator.predict(X)).ravel()


def has_gaps(rows: Sequence[Row] | np.ndarray) -> bool:
    """Tell whether a value is missing."""
    return any(value is None or value != value for row in rows for value in row)


def verify(
    estimator: Any,
    content: bytes,
    X: pd.DataFrame,
    y: pd.Series,
    record_type: type[BaseModel],
    seed: int = 0,
) -> ExportCheck:
    """Compare an export with scikit-learn on data X, y and on legal records drawn with a seed.

    Raise NotExportableError if a prediction differs by more than TOLERANCE, or if only one of them
    refuses a record.
    """
    # Both get one thread. More make scikit-learn slower on a few rows, most on a busy machine.
    with threadpool_limits(1):
        return compare_all(Reference(estimator, X), content, X, y, record_type, seed)


def compare_all(
    reference: Reference,
    content: bytes,
    X: pd.DataFrame,
    y: pd.Series,
    record_type: type[BaseModel],
    seed: int,
) -> ExportCheck:
    """Compare all rows, as `verify` says."""
    model, rng = load(content), np.random.default_rng(seed)
    scale = float(np.std(y))
    data = data_rows(record_type, X)
    groups = [data, edge_rows(record_type, X, rng)]
    groups.append(random_rows(record_type, X, rng, N_RANDOM_ROWS))
    difference, n_rows, n_refused = 0.0, 0, 0
    for rows in map(comparable, groups):
        largest, refused = compare_rows(reference, model, rows, scale)
        difference, n_refused = max(difference, largest), n_refused + refused
        n_rows += len(rows) - refused
    largest, n_split_rows = compare_splits(reference, content, data, scale, rng)
    return ExportCheck(
        n_rows,
        n_refused,
        n_split_rows,
        max(difference, largest),
        median_seconds(reference.predict, data),
        median_seconds(model.predict, data),
    )


def load(content: bytes) -> OnnxModel:
    """Load an export; raise NotExportableError if ONNX Runtime can't."""
    try:
        return OnnxModel(content)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        raise NotExportableError(
            f"ONNX Runtime can't load the export: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def comparable(rows: list[Row]) -> list[Row]:
    """Return rows without those that have both a gap and a number beyond float32.

    Whether scikit-learn accepts gaps is known only from its check of finite numbers, which also
    refuses such a number.
    """
    return [
        row
        for row in rows
        if not has_gaps([row])
        or not any(isinstance(value, float) and abs(value) > FLOAT32_MAX for value in row)
    ]


def compare_rows(
    reference: Reference, model: OnnxModel, rows: list[Row], scale: float
) -> tuple[float, int]:
    """Return the largest difference, and the number of rows that both refuse.

    A row is refused if the prediction fails or is NaN. Raise NotExportableError.
    """
    largest, n_refused = 0.0, 0
    for with_gaps in (False, True):
        group = [row for row in rows if has_gaps([row]) == with_gaps]
        if not group:
            continue
        predicted = np.concatenate([predict_or_nan(model.predict, each) for each in batches(group)])
        is_answered = ~np.isnan(predicted)
        answered = [row for row, kept in zip(group, is_answered, strict=True) if kept]
        refused = [row for row, kept in zip(group, is_answered, strict=True) if not kept]
        check_refused(reference, refused)
        n_refused += len(refused)
        if answered:
            expected = expect(reference, answered)
            largest = max(largest, compare(answered, expected, predicted[is_answered], scale))
    return largest, n_refused


def batches(rows: list[Row]) -> list[list[Row]]:
    """Split rows into batches of one, then larger ones: ONNX Runtime computes these otherwise."""
    single, rest = rows[:N_SINGLE_ROWS], rows[N_SINGLE_ROWS:]
    larger = [rest[i : i + BATCH_SIZES[-1]] for i in range(0, len(rest), BATCH_SIZES[-1])]
    return [[row] for row in single] + larger


def predict_or_nan(predict: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> np.ndarray:
    """Predict the targets (n_samples,), NaN for each row that fails."""
    try:
        return np.asarray(predict(rows), dtype=float).ravel()
    except Exception:  # ONNX Runtime's exceptions have no base of their own
        if len(rows) == 1:
            return np.array([np.nan])
    half = len(rows) // 2
    return np.concatenate(
        [predict_or_nan(predict, rows[:half]), predict_or_nan(predict, rows[half:])]
    )


def expect(reference: Reference, rows: list[Row]) -> np.ndarray:
    """Predict with scikit-learn; raise NotExportableError if it refuses a row."""
    try:
        return reference.predict(rows)
    except ValueError as error:
        raise NotExportableError(
            "The export predicts a legal record that scikit-learn refuses: " + first_line(error)
        ) from error


def check_refused(reference: Reference, rows: list[Row]) -> None:
    """Raise NotExportableError if scikit-learn predicts rows that the export refuses."""
    step = -(-len(rows) // MAX_REFUSED_ROWS) or 1
    for row in rows[::step]:
        if not np.isnan(predict_or_nan(reference.predict, [row])).all():
            raise NotExportableError(
                f"The export fails on a record that scikit-learn predicts: {row}"
            )


def compare(
    rows: Sequence[Row] | np.ndarray, expected: np.ndarray, predicted: np.ndarray, scale: float
) -> float:
    """Return the largest relative difference; raise NotExportableError beyond TOLERANCE."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(predicted - expected) / np.maximum(np.abs(expected), scale)
    difference[(predicted == expected) | (np.isnan(predicted) & np.isnan(expected))] = 0.0
    difference[np.isnan(difference)] = np.inf
    worst = int(np.argmax(difference))
    if difference[worst] > TOLERANCE:
        raise NotExportableError(
            f"The export predicts {predicted[worst]} where scikit-learn predicts "
            f"{expected[worst]}, for {tuple(np.array(rows[worst], dtype=object).tolist())}."
        )
    return float(difference[worst])


def compare_splits(
    reference: Reference, content: bytes, data: list[Row], scale: float, rng: np.random.Generator
) -> tuple[float, int]:
    """Compare the last step at the thresholds of its trees; return the difference and the rows.

    The steps before can't be inverted. So the last step's nodes are cut out of the export, and get
    rows that those steps need never produce.
    """
    last, X = reference.estimator, reference.input_format.to_input(data)
    while isinstance(last, Pipeline):
        X, last = transform(last, X), last.steps[-1][1]
    graph_input = trees_input(load_from_string(content))
    if graph_input is None:
        return 0.0, 0
    trees = [tree for ensemble in tree_ensembles(last) for tree in read_ensemble(ensemble).trees]
    if not trees:
        raise NotExportableError(f"The trees in {type(last).__name__} can't be checked.")
    X, last = encode_categories(last, X)
    names = getattr(last, "feature_names_in_", None)
    takes_gaps = get_tags(last).input_tags.allow_nan
    limit = min(MAX_SPLIT_ROWS, MAX_TREE_VISITS // len(trees))
    rows = split_rows(trees, to_array(X), rng, limit, takes_gaps)
    if not len(rows):
        return 0.0, 0
    model = load(cut(content, graph_input, rows.shape[1]))
    as_fitted = rows if names is None else pd.DataFrame(rows, columns=names)
    expected = predict_quietly(last, as_fitted, has_gaps=False)
    return compare(rows, expected, model.predict(rows).ravel(), scale), len(rows)


def tree_ensembles(estimator: Any) -> list[Any]:
    """Return an estimator of trees, or those within an estimator that asks several."""
    if isinstance(estimator, TREE_ENSEMBLES):
        return [estimator]
    members = getattr(estimator, "estimators_", []) if isinstance(estimator, COMMITTEES) else []
    return [member for member in members if isinstance(member, TREE_ENSEMBLES)]


def transform(pipeline: Pipeline, X: Any) -> Any:
    """Return what the last step of a pipeline gets."""
    return pipeline[:-1].transform(X) if len(pipeline.steps) > 1 else X


def encode_categories(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return the features that the trees of histogram gradient boosting get, and only the trees."""
    if getattr(estimator, "_preprocessor", None) is None:
        return X, estimator
    X = estimator._preprocessor.transform(X)  # noqa: SLF001
    estimator = copy.copy(estimator)
    estimator._preprocessor = None  # noqa: SLF001
    return X, estimator


def to_array(X: Any) -> np.ndarray:
    """Return features as a dense array of floats."""
    return np.asarray(X.toarray() if issparse(X) else X, dtype=float)


def trees_input(model: ModelProto) -> str | None:
    """Return the name of the tensor that the trees of an export get before casts, if any.

    Raise NotExportableError if there are several.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    names = [node.input[0] for node in model.graph.node if node.op_type == "TreeEnsemble"]
    sources = set()
    for name in names:
        while name in producers and producers[name].op_type == "Cast":
            name = producers[name].input[0]
        sources.add(name)
    if len(sources) > 1:
        raise NotExportableError("It has trees with different inputs, which can't be checked.")
    return sources.pop() if sources else None


def cut(content: bytes, graph_input: str, n_features: int) -> bytes:
    """Return an export without the nodes before a tensor, which becomes the input."""
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
    """Return the median time of a prediction, by the number of rows."""
    medians = {}
    for size in BATCH_SIZES:
        rows, times = (list(data) * size)[:size], []
        predict(rows)
        end = time.perf_counter() + TIMED_SECONDS
        while (start := time.perf_counter()) < end:
            predict(rows)
            times.append(time.perf_counter() - start)
        medians[size] = float(np.median(times))
    return medians
