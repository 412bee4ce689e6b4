"""Choose the runtime of the service: ONNX Runtime if its predictions are equal and faster."""

from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from serving.imports import find_imports
from serving.model import Inference, InputType
from serving.records import Row
from training.data import Split, to_rows
from training.errors import NotExportableError
from training.export import ExportCheck, export, verify
from training.export.check import MANY_ROWS, ONE_ROW, median_seconds
from training.export.reference import SklearnReference
from training.fitting.evaluation import takes_frame

MAX_GOLDEN_ROWS = 48  # of the training data; `golden_predictions` adds rows of the probes


def choose_inference(
    estimator: Any, modules: Iterable[str], data: Split, record_type: type[BaseModel]
) -> tuple[Inference, bytes | None]:
    """Return the description of the runtime and, for ONNX Runtime, the content of the export.

    Print which runtime was chosen, why if it is scikit-learn, and the time of a prediction.
    `modules` are those that the pickle of the estimator names.
    """
    X, y = data.X, data.y  # all rows, also those of the test part
    try:
        content = export(estimator, X)
        check = verify(estimator, content, X, y, record_type)
        check_speed(check)
    except NotExportableError as error:
        reason = str(error).rstrip(".") + "."
        inference = describe_sklearn_inference(estimator, modules, X, record_type, reason)
        times = inference.milliseconds["scikit-learn"]
        print(
            f"Served by scikit-learn, without an export to ONNX: {reason} "
            f"A prediction takes {times[ONE_ROW]:.3g} ms for {ONE_ROW} row, "
            f"{times[MANY_ROWS]:.3g} ms for {MANY_ROWS}."
        )
        return inference, None
    inference = describe_onnx_inference(check, input_type(estimator, X))
    times = inference.milliseconds["onnxruntime"]
    sklearn_times = inference.milliseconds["scikit-learn"]
    print(
        f"Served by ONNX Runtime: {inference.n_rows_compared:,} predictions differ from "
        f"scikit-learn's by {inference.largest_difference:.1g} at most. A prediction takes "
        f"{times[ONE_ROW]:.3g} ms for {ONE_ROW} row, {times[MANY_ROWS]:.3g} ms for {MANY_ROWS}; "
        f"with scikit-learn {sklearn_times[ONE_ROW]:.3g} and {sklearn_times[MANY_ROWS]:.3g} ms."
    )
    return inference, content


def check_speed(check: ExportCheck) -> None:
    """Raise NotExportableError if ONNX Runtime takes longer for one row than scikit-learn."""
    if check.onnx_seconds[ONE_ROW] > check.sklearn_seconds[ONE_ROW]:
        raise NotExportableError("ONNX Runtime takes longer for one row.")


def input_type(estimator: Any, X: pd.DataFrame) -> InputType:
    """Return the type of the features that the estimator takes."""
    return "frame" if takes_frame(estimator, X) else "array"


def describe_onnx_inference(check: ExportCheck, estimator_input: InputType) -> Inference:
    """Return the metadata of a model that ONNX Runtime serves."""
    return Inference(
        runtime="onnxruntime",
        reason="",
        input=estimator_input,
        n_rows_compared=check.n_rows + check.n_threshold_rows,
        largest_difference=check.largest_difference,
        milliseconds={
            "onnxruntime": to_milliseconds(check.onnx_seconds),
            "scikit-learn": to_milliseconds(check.sklearn_seconds),
        },
    )


def describe_sklearn_inference(
    estimator: Any,
    modules: Iterable[str],
    X: pd.DataFrame,
    record_type: type[BaseModel],
    reason: str,
) -> Inference:
    """Return the metadata of a model that scikit-learn serves; `reason` says why."""
    rows = to_rows(X, record_type)
    seconds = median_seconds(SklearnReference(estimator, X).predict, rows)
    # After the predictions: find_imports sees only loaded modules, and a function may import one
    # only when it is called.
    project_files, imported = find_imports(modules)
    installed = packages_distributions()
    packages = {"scikit-learn", *chain(*(installed.get(name, []) for name in imported))}
    estimator_input = input_type(estimator, X)
    if estimator_input == "frame":
        packages.add("pandas")
    return Inference(
        runtime="scikit-learn",
        reason=reason,
        n_rows_compared=0,
        milliseconds={"scikit-learn": to_milliseconds(seconds)},
        packages=exact_requirements(packages),
        input=estimator_input,
        project_files=sorted(project_files),
    )


def to_milliseconds(seconds: dict[int, float]) -> dict[int, float]:
    """Return times in milliseconds, rounded to three significant digits."""
    return {n_rows: float(f"{1000 * time:.3g}") for n_rows, time in seconds.items()}


def exact_requirements(packages: Iterable[str]) -> list[str]:
    """Pin packages, and all packages that they require, to the installed versions."""
    versions: dict[str, str] = {}
    pending = list(packages)
    while pending:
        name = canonicalize_name(pending.pop())
        if name in versions:
            continue
        with suppress(PackageNotFoundError):  # an optional requirement that is not installed
            package = distribution(name)
            versions[name] = package.version
            requirements = map(Requirement, package.requires or [])
            pending += [r.name for r in requirements if not r.marker or r.marker.evaluate()]
    return sorted(f"{name}=={version}" for name, version in versions.items())


def golden_predictions(
    estimator: Any, X: pd.DataFrame, record_type: type[BaseModel], probe_rows: list[Row]
) -> dict[str, Any]:
    """Return the golden rows and scikit-learn's predictions; each worker repeats them at its start.

    The rows are up to MAX_GOLDEN_ROWS of the data, at even distances, and `probe_rows`.
    """
    indices = np.linspace(0, len(X) - 1, min(len(X), MAX_GOLDEN_ROWS), dtype=int)
    rows = to_rows(X.iloc[indices], record_type) + probe_rows
    return {"rows": rows, "predictions": SklearnReference(estimator, X).predict(rows).tolist()}
