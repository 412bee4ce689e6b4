"""Add nodes to an ONNX graph; shared by the converters.

skl2onnx calls a converter for each step of a pipeline. It passes `scope`, which makes unique names,
`container`, which collects the nodes, and `operator`, with the inputs, the outputs and the fitted
step (`raw_operator`). A converter is registered for a class, under a name of its own (`alias`).
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.numpy_helper import from_array
from skl2onnx.common.data_types import StringTensorType

# Options of a node that has an operator of ai.onnx.ml. skl2onnx accepts no version above that of
# CONVERTED_OPSETS; `finish` in convert.py then declares the real one, 5.
ML_NODE: dict[str, Any] = {"op_domain": "ai.onnx.ml", "op_version": 3}


class Graph:
    """Adds nodes to an ONNX graph, through the `scope` and the `container` of a converter."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container

    def constant(self, value: np.ndarray) -> str:
        """Add a constant of numbers or strings; return its name."""
        name = self.scope.get_unique_variable_name("constant")
        if value.dtype == object:  # skl2onnx would lose the strings of a tensor
            strings = value.ravel().tolist()
            self.container.add_initializer(name, TensorProto.STRING, value.shape, strings)
            return name
        self.container.add_initializer(name, None, None, from_array(value, name))
        return name

    def node(self, op_type: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        """Add a node; return the name of its output."""
        output = output or self.scope.get_unique_variable_name(op_type.lower())
        name = self.scope.get_unique_operator_name(op_type)
        self.container.add_node(op_type, list(inputs), output, name=name, **options)
        return output

    def concat(self, names: list[str], axis: int) -> str:
        """Concatenate tensors along an axis; return the name of the result."""
        return self.node("Concat", *names, axis=axis) if len(names) > 1 else names[0]

    def columns(self, inputs: list[Any]) -> list[tuple[str, bool]]:
        """Return the name of each column (n_samples, 1), and whether it holds strings."""
        columns = []
        for variable in inputs:
            width, is_string = variable.type.shape[1], isinstance(variable.type, StringTensorType)
            for i in range(width):
                name = variable.full_name
                if width > 1:
                    name = self.node("Gather", name, self.constant(np.array([i])), axis=1)
                columns.append((name, is_string))
        return columns


def first_line(error: Exception) -> str:
    """Return the first line of an error's message: those of ONNX Runtime are long."""
    return str(error).strip().partition("\n")[0]
