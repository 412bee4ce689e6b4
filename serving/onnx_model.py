"""Predict with an ONNX model; this needs NumPy and ONNX Runtime, but no scikit-learn."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnxruntime

# Stands for a gap among strings, since a tensor of strings has no None.
GAP = "\0gap"
SILENT = 4  # ONNX Runtime prints each failing run otherwise


class OnnxModel:
    """An exported regressor, with rows of feature values as input; threads may share it.

    The file has one input for all features, double (n_samples, n_features), or one input
    (n_samples, 1) per feature in the order of the features, double or string.
    """

    def __init__(self, content: bytes) -> None:
        """Load the content of a file; raise an exception of ONNX Runtime if it is invalid."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = SILENT
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        inputs = self.session.get_inputs()
        is_matrix = len(inputs) == 1 and inputs[0].type == "tensor(double)"
        self.matrix = inputs[0].name if is_matrix else None
        self.columns: list[tuple[str, Any]] = [
            (column.name, object if column.type == "tensor(string)" else np.float64)
            for column in inputs
        ]
        self.outputs = [self.session.get_outputs()[0].name]

    def predict(self, rows: Sequence[tuple[Any, ...]] | np.ndarray) -> np.ndarray:
        """Predict the targets (n_samples, 1) or (n_samples,) of rows (n_samples, n_features).

        A gap is None. Raise an exception of ONNX Runtime if the run fails, such as for a
        category that the model does not know.
        """
        if self.matrix:
            if isinstance(rows, np.ndarray):
                values = np.ascontiguousarray(rows)
            else:
                values = np.fromiter(chain.from_iterable(rows), np.float64)  # faster than np.array
            feed = {self.matrix: values.reshape(len(rows), -1)}
        else:
            feed = {
                name: np.array(fill_gaps(values, dtype), dtype=dtype).reshape(-1, 1)
                for (name, dtype), values in zip(self.columns, zip(*rows, strict=True), strict=True)
            }
        return self.session.run(self.outputs, feed)[0]


def fill_gaps(values: Sequence[Any], dtype: Any) -> Sequence[Any]:
    """Return the values of a column with GAP in place of None among strings."""
    if dtype is object and None in values:
        return [GAP if value is None else value for value in values]
    return values
