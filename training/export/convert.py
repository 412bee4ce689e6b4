"""Convert a fitted scikit-learn regressor to an ONNX model in double precision."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
from onnx import ModelProto, TensorProto
from onnx.compose import add_prefix
from pandas.api.types import infer_dtype
from skl2onnx import convert_sklearn, get_model_alias
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from serving.onnx_model import OnnxModel
from training.errors import NotExportableError
from training.export.graph import first_line
from training.export.preprocessing import PREPROCESSORS, register_preprocessing
from training.export.trees import TREE_ENSEMBLES, register_trees

# The converters use TreeEnsemble and LabelEncoder of ai.onnx.ml 5, which skl2onnx does not accept
# as a target: `finish` declares ML_OPSET after the conversion.
CONVERTED_OPSETS = {"": 21, "ai.onnx.ml": 3}
ML_OPSET = 5
IR_VERSION = 10
CONVERTED_HERE = (*TREE_ENSEMBLES, *PREPROCESSORS)

register_trees()
register_preprocessing()


def export(estimator: Any, X: pd.DataFrame) -> bytes:
    """Return the content of an ONNX file that makes the predictions of a fitted estimator.

    `serving.onnx_model.OnnxModel` documents the names and types of its inputs. Its metadata has
    the `feature_names`, as JSON. Raise NotExportableError if a step has no exact converter.
    """
    for path, step in walk_steps(estimator):
        if reason := unsupported_reason(step):
            raise NotExportableError(f"{path}{type(step).__name__} {reason}.")
    try:
        content = convert(with_column_indices(estimator), input_types(X), list(X))
    except NotExportableError:
        raise
    # The exceptions of skl2onnx, onnx and ONNX Runtime have no common base class.
    except Exception as error:
        step = failing_step(estimator)
        reason = first_line(error)
        raise NotExportableError(f"{step} can't be converted exactly: {reason}") from error
    return content


def convert(estimator: Any, inputs: list[tuple[str, Any]], feature_names: list[str]) -> bytes:
    """Return the content of an ONNX file that ONNX Runtime can load.

    Raise any exception: those of skl2onnx, onnx and ONNX Runtime have no common base class.
    """
    model = convert_sklearn(estimator, "regressor", inputs, target_opset=CONVERTED_OPSETS)
    content = finish(model, feature_names)
    OnnxModel(content)  # raises an exception if ONNX Runtime can't load it
    return content


def failing_step(estimator: Any) -> str:
    """Return the first step that can't be converted alone, or the whole estimator's name."""
    for path, step in walk_steps(estimator):
        # These raise NotExportableError themselves; an encoder of strings would fail on numbers.
        if isinstance(step, CONVERTED_HERE):
            continue
        try:
            convert(step, [("features", DoubleTensorType([None, step.n_features_in_]))], [])
        except Exception:  # see `convert`
            return f"{path}{type(step).__name__}"
    return type(estimator).__name__


def walk_steps(estimator: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each estimator inside pipelines, column transformers and unions, with its path.

    The path is a text, such as "step columntransformer, step log, ".
    """
    if isinstance(estimator, Pipeline):
        steps = estimator.steps
    elif isinstance(estimator, ColumnTransformer):
        steps = [(name, step) for name, step, _ in estimator.transformers_]
    elif isinstance(estimator, FeatureUnion):
        steps = estimator.transformer_list
    else:
        yield path, estimator
        return
    for name, step in steps:
        if not isinstance(step, str):  # "drop" or "passthrough"
            yield from walk_steps(step, f"{path}step {name}, ")


def unsupported_reason(step: Any) -> str | None:
    """Return the reason why a step can't be exported, or None."""
    if isinstance(step, FunctionTransformer):
        return None if step.func is None else "calls a function, which ONNX does not know"
    try:
        get_model_alias(type(step))
    except RuntimeError:
        return "has no converter"
    return None


def input_types(X: pd.DataFrame) -> list[tuple[str, Any]]:
    """Return the names and types of the inputs.

    There is one for all features if all are numbers, otherwise one per feature.
    """
    holds_strings = [infer_dtype(column.astype(object)) == "string" for _, column in X.items()]
    if not any(holds_strings):
        return [("features", DoubleTensorType([None, X.shape[1]]))]
    return [
        (f"feature{i}", (StringTensorType if is_string else DoubleTensorType)([None, 1]))
        for i, is_string in enumerate(holds_strings)
    ]


def with_column_indices(estimator: Any) -> Any:
    """Return a copy of an estimator in whose steps ColumnTransformers select columns by index.

    skl2onnx does not find a column by its feature's name, and supports no masks, no callables and
    only some slices.
    """
    estimator = copy.copy(estimator)
    if isinstance(estimator, Pipeline):
        estimator.steps = [(name, with_column_indices(step)) for name, step in estimator.steps]
    elif isinstance(estimator, ColumnTransformer):
        indices = estimator._transformer_to_input_indices  # noqa: SLF001
        estimator.transformers_ = [
            (name, restore_passthrough(with_column_indices(step)), list(map(int, indices[name])))
            for name, step, _ in estimator.transformers_
        ]
    elif isinstance(estimator, FeatureUnion):
        estimator.transformer_list = [
            (name, with_column_indices(step)) for name, step in estimator.transformer_list
        ]
    return estimator


def restore_passthrough(step: Any) -> Any:
    """Return "passthrough" for a FunctionTransformer, and any other step as it is.

    A fitted ColumnTransformer has a FunctionTransformer without a function in place of
    "passthrough". `unsupported_reason` has excluded those with a function.
    """
    return "passthrough" if isinstance(step, FunctionTransformer) else step


def finish(model: ModelProto, feature_names: list[str]) -> bytes:
    """Add versions and feature names; return the content of the ONNX file.

    Raise NotExportableError unless the output is double.
    """
    output = model.graph.output[0].type.tensor_type
    if len(model.graph.output) != 1 or output.elem_type != TensorProto.DOUBLE:
        raise NotExportableError("The converted estimator does not predict in double precision.")
    for opset in model.opset_import:
        if opset.domain == "ai.onnx.ml":
            opset.version = ML_OPSET
    model.ir_version = IR_VERSION
    if len(model.graph.input) > 1:
        model = with_input_names(model, feature_names)
    names = model.metadata_props.add()
    names.key, names.value = "feature_names", json.dumps(feature_names)
    return model.SerializeToString()


def with_input_names(model: ModelProto, feature_names: list[str]) -> ModelProto:
    """Name the inputs after the features.

    `input_types` numbers them, since skl2onnx changes names that are no identifiers.
    """
    model = add_prefix(model, "regressor/")  # no inner tensor may have the name of a feature
    new_names = dict(zip((each.name for each in model.graph.input), feature_names, strict=True))
    for each in model.graph.input:
        each.name = new_names[each.name]
    for node in model.graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]
    return model
