"""Predict with an ONNX model, without scikit-learn."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnxruntime

# Stands for a missing string, because a tensor of strings can't hold None.
MISSING = "\0gap"
# The highest log level: at a lower one ONNX Runtime prints every failed run to standard error.
FATAL = 4


class OnnxModel:
    """An exported regressor that predicts rows of feature values; threads may share it.

    The ONNX graph has either one double input (n_samples, n_features) for all features, or one
    double or string input (n_samples, 1) for each feature, in the order of the features.
    """

    def __init__(self, content: bytes) -> None:
        """Load the content of an ONNX file; raise ONNX Runtime's exception if it is invalid."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        inputs = self.session.get_inputs()
        is_matrix = len(inputs) == 1 and inputs[0].type == "tensor(double)"
        self.matrix = inputs[0].name if is_matrix else None
        self.columns: list[tuple[str, Any]] = [
            (tensor.name, object if tensor.type == "tensor(string)" else np.float64)
            for tensor in inputs
        ]
        self.outputs = [self.session.get_outputs()[0].name]

    def predict(self, rows: Sequence[tuple[Any, ...]] | np.ndarray) -> np.ndarray:
        """Predict the targets (n_samples, 1) or (n_samples,) of rows (n_samples, n_features).

        A missing value is None. Raise ONNX Runtime's exception if the run fails, such as for a
        category that the model does not know.
        """
        if self.matrix:
            if isinstance(rows, np.ndarray):
                values = np.ascontiguousarray(rows)
            else:
                # For 64 rows, np.array(rows) would take 1.5 times as long.
                values = np.fromiter(chain.from_iterable(rows), np.float64)
            feed = {self.matrix: values.reshape(len(rows), -1)}
        else:
            feed = {
                name: np.array(encode_missing(values, dtype), dtype=dtype).reshape(-1, 1)
                for (name, dtype), values in zip(self.columns, zip(*rows, strict=True), strict=True)
            }
        return self.session.run(self.outputs, feed)[0]


def encode_missing(values: Sequence[Any], dtype: Any) -> Sequence[Any]:
    """Return the values of a column, with MISSING in place of None if they are strings."""
    if dtype is object and None in values:
        return [MISSING if value is None else value for value in values]
    return values
