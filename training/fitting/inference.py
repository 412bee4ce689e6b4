"""Choose what predicts in the service: an equal and faster ONNX export, or scikit-learn."""

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
from training.export.check import Reference, median_seconds
from training.fitting.evaluation import takes_frame

MAX_GOLDEN_ROWS = 48  # of the data; rows with each category and boolean come in addition


def choose_inference(
    estimator: Any, modules: Iterable[str], data: Split, record_type: type[BaseModel]
) -> tuple[Inference, bytes | None]:
    """Return how the service predicts, and the ONNX file if it uses that; print why, and times.

    `modules` are those that the pickle of the estimator names.
    """
    X = pd.concat([data.X_train, data.X_test])
    y = pd.concat([data.y_train, data.y_test])
    try:
        content = export(estimator, X)
        check = verify(estimator, content, X, y, record_type)
        if check.onnx_seconds[1] > check.sklearn_seconds[1]:
            raise NotExportableError("ONNX Runtime takes longer for one row.")
    except NotExportableError as error:
        reason = str(error).rstrip(".") + "."
        inference = without_export(estimator, modules, X, record_type, reason)
        times = inference.milliseconds["scikit-learn"]
        print(
            f"Served by scikit-learn, without an export to ONNX: {error} "
            f"A prediction takes {times[1]:.3g} ms for 1 row, {times[64]:.3g} ms for 64."
        )
        return inference, None
    inference = with_export(check, input_type(estimator, X))
    times = inference.milliseconds["onnxruntime"]
    sklearn_times = inference.milliseconds["scikit-learn"]
    print(
        f"Served by ONNX Runtime: {inference.n_rows_compared:,} predictions differ from "
        f"scikit-learn's by {inference.largest_difference:.1g} at most. A prediction takes "
        f"{times[1]:.3g} ms for 1 row, {times[64]:.3g} ms for 64; with scikit-learn "
        f"{sklearn_times[1]:.3g} and {sklearn_times[64]:.3g} ms."
    )
    return inference, content


def input_type(estimator: Any, X: pd.DataFrame) -> InputType:
    """Return what the estimator takes."""
    return "frame" if takes_frame(estimator, X) else "array"


def with_export(check: ExportCheck, estimator_input: InputType) -> Inference:
    """Return the description of a model that ONNX Runtime serves."""
    return Inference(
        runtime="onnxruntime",
        reason="",
        input=estimator_input,
        n_rows_compared=check.n_rows + check.n_split_rows,
        largest_difference=check.largest_difference,
        milliseconds={
            "onnxruntime": to_milliseconds(check.onnx_seconds),
            "scikit-learn": to_milliseconds(check.sklearn_seconds),
        },
    )


def without_export(
    estimator: Any,
    modules: Iterable[str],
    X: pd.DataFrame,
    record_type: type[BaseModel],
    reason: str,
) -> Inference:
    """Return the description of a model that scikit-learn serves."""
    rows = to_rows(X, record_type)
    seconds = median_seconds(Reference(estimator, X).predict, rows)
    # The predictions have loaded what the modules import inside functions, too.
    project_files, imported = find_imports(modules)
    installed = packages_distributions()
    packages = {"scikit-learn", *chain(*(installed.get(name, []) for name in imported))}
    if takes_frame(estimator, X):
        packages.add("pandas")
    return Inference(
        runtime="scikit-learn",
        reason=reason,
        n_rows_compared=0,
        milliseconds={"scikit-learn": to_milliseconds(seconds)},
        packages=exact_requirements(packages),
        input=input_type(estimator, X),
        project_files=sorted(project_files),
    )


def to_milliseconds(seconds: dict[int, float]) -> dict[int, float]:
    """Return times in milliseconds, to three digits."""
    return {n_rows: float(f"{1000 * time:.3g}") for n_rows, time in seconds.items()}


def exact_requirements(packages: Iterable[str]) -> list[str]:
    """Return packages and all that they require, each in the installed version."""
    versions: dict[str, str] = {}
    pending = list(packages)
    while pending:
        name = canonicalize_name(pending.pop())
        if name in versions:
            continue
        with suppress(PackageNotFoundError):  # a requirement that the training did without
            package = distribution(name)
            versions[name] = package.version
            requirements = map(Requirement, package.requires or [])
            pending += [r.name for r in requirements if not r.marker or r.marker.evaluate()]
    return sorted(f"{name}=={version}" for name, version in versions.items())


def golden_predictions(
    estimator: Any, X: pd.DataFrame, record_type: type[BaseModel], declared_rows: list[Row]
) -> dict[str, Any]:
    """Return some dozens of rows with scikit-learn's predictions, which each worker repeats."""
    spread = np.linspace(0, len(X) - 1, min(len(X), MAX_GOLDEN_ROWS), dtype=int)
    rows = to_rows(X.iloc[spread], record_type) + declared_rows
    return {"rows": rows, "predictions": Reference(estimator, X).predict(rows).tolist()}
