"""Convert encoders of categories and SimpleImputer, exactly and in double."""

from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto
from onnx.numpy_helper import from_array
from skl2onnx import get_model_alias, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from serving.onnx_model import MISSING
from training.errors import NotExportableError
from training.export.graph import Graph

ENCODERS = (OneHotEncoder, OrdinalEncoder)
PREPROCESSORS = (*ENCODERS, SimpleImputer)


class Encoding(NamedTuple):
    """How an encoder encodes one column."""

    categories: list[Any]
    table: np.ndarray  # (n_categories, width); one more row, if unknown values are encoded


def encodings(encoder: OneHotEncoder | OrdinalEncoder) -> list[Encoding]:
    """Return the encoding of each column of a fitted encoder."""
    encode = one_hot_table if isinstance(encoder, OneHotEncoder) else ordinal_table
    return [
        Encoding(categories.tolist(), encode(encoder, column))
        for column, categories in enumerate(encoder.categories_)
    ]


def one_hot_table(encoder: OneHotEncoder, column: int) -> np.ndarray:
    """Return the encoding of each category, and last that of an unknown value, if there is one."""
    numbers, n_frequent = number_categories(encoder, column, encoder.categories_[column])
    table = np.eye(max(numbers, default=-1) + 1)[numbers]
    unknown = np.zeros((1, table.shape[1]))
    if encoder.handle_unknown != "ignore" and n_frequent in numbers:
        unknown[0, n_frequent] = 1.0  # counts as infrequent
    if encoder.handle_unknown != "error":
        table = np.vstack([table, unknown])
    drop = None if encoder.drop_idx_ is None else encoder.drop_idx_[column]
    return table if drop is None else np.delete(table, numbers[drop], axis=1)


def ordinal_table(encoder: OrdinalEncoder, column: int) -> np.ndarray:
    """Return the code of each category, and last that of an unknown value, if there is one."""
    categories = encoder.categories_[column]
    # To this encoder, None is a category as any other.
    is_missing = np.array([category != category for category in categories], dtype=bool)
    numbers, _ = number_categories(encoder, column, categories)
    codes = np.array(numbers, dtype=float)
    codes[is_missing] = encoder.encoded_missing_value
    if encoder.handle_unknown == "use_encoded_value":
        codes = np.append(codes, encoder.unknown_value)
    return codes.reshape(-1, 1)


def number_categories(encoder: Any, column: int, categories: np.ndarray) -> tuple[list[int], int]:
    """Return the number of each category, and how many are frequent; all infrequent share one."""
    groups = getattr(encoder, "infrequent_categories_", None)  # only if they are enabled
    infrequent = None if groups is None else groups[column]
    if infrequent is None:
        return list(range(len(categories))), len(categories)
    is_infrequent = np.array([any(is_same(a, b) for b in infrequent) for a in categories])
    n_frequent = len(categories) - len(infrequent)
    return np.where(is_infrequent, n_frequent, np.cumsum(~is_infrequent) - 1).tolist(), n_frequent


def is_gap(category: Any) -> bool:
    """Tell whether a category stands for a missing value."""
    return category is None or category != category


def is_same(a: Any, b: Any) -> bool:
    """Tell whether two categories are equal; a missing value equals itself."""
    return a == b or (is_gap(a) and is_gap(b))


def unknown_index(encoding: Encoding) -> int:
    """Return the row of the table for an unknown value.

    If the encoder refuses it, that row is outside of the table: the run fails, as scikit-learn's
    would. A row of NaN would not do, for some estimators accept that.
    """
    n_categories, n_rows = len(encoding.categories), len(encoding.table)
    return n_categories if n_rows > n_categories else n_rows + 1


def add_encoding(graph: Graph, column: str, is_string: bool, encoding: Encoding) -> str:
    """Add the nodes that encode a column; return their output (n_samples, 1, width).

    A row never holds a category of another type, such as a number in a column of strings; a gap
    among strings is MISSING.
    """
    kind = str if is_string else (bool, int, float)
    categories = [MISSING if is_string and is_gap(key) else key for key in encoding.categories]
    reachable = {key: i for i, key in enumerate(categories) if isinstance(key, kind)}
    keys = list(reachable) if is_string else np.array(list(reachable), dtype=float)
    # ONNX Runtime maps doubles to doubles only.
    index_type = np.int64 if is_string else np.float64
    values = np.array(list(reachable.values()), dtype=index_type)
    attributes = {
        "default_tensor": from_array(np.array([unknown_index(encoding)], dtype=index_type)),
        "values_tensor": from_array(values),
        "keys_tensor": from_array(np.array(keys, dtype=object if is_string else float)),
    }
    index = graph.node("LabelEncoder", column, op_domain="ai.onnx.ml", op_version=2, **attributes)
    if not is_string:
        index = graph.node("Cast", index, to=TensorProto.INT64)
    return graph.node("Gather", graph.constant(encoding.table), index, axis=0)


def encode_columns(graph: Graph, columns: list[tuple[str, bool]], encoder: Any) -> str:
    """Add the nodes that encode columns; return their output (n_samples, 1, total width)."""
    encoded = [
        add_encoding(graph, name, is_string, encoding)
        for (name, is_string), encoding in zip(columns, encodings(encoder), strict=True)
    ]
    return graph.concat(encoded, axis=2)


def convert_encoder(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of OneHotEncoder or OrdinalEncoder to the ONNX graph."""
    graph = Graph(scope, container)
    encoded = encode_columns(graph, graph.columns(operator.inputs), operator.raw_operator)
    output = operator.outputs[0].full_name
    graph.node("Squeeze", encoded, graph.constant(np.array([1])), output=output)


def parse_encoder(
    scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None
) -> list[Any]:
    """Declare an encoder and its output; skl2onnx would declare float32 for strings."""
    operator = scope.declare_local_operator(get_model_alias(type(model)), model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("encoded", DoubleTensorType()))
    return operator.outputs


def set_encoded_type(operator: Any) -> None:
    """Declare the output: double (n_samples, total width of the encodings)."""
    width = sum(encoding.table.shape[1] for encoding in encodings(operator.raw_operator))
    operator.outputs[0].type = DoubleTensorType([operator.inputs[0].get_first_dimension(), width])


def imputed_features(imputer: SimpleImputer) -> np.ndarray:
    """Return the indices of the features that the imputer keeps."""
    if imputer.keep_empty_features:
        return np.arange(imputer.n_features_in_)
    return np.flatnonzero([not is_gap(value) for value in imputer.statistics_])


def indicator_features(imputer: SimpleImputer) -> np.ndarray:
    """Return the indices of the features that have a missing-value indicator."""
    return imputer.indicator_.features_ if imputer.add_indicator else np.array([], dtype=int)


def convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of SimpleImputer to the ONNX graph.

    A gap among strings is MISSING. Raise NotExportableError if another string stands for one.
    """
    graph, imputer = Graph(scope, container), operator.raw_operator
    X = graph.concat([variable.full_name for variable in operator.inputs], axis=1)
    if imputes_strings(operator):
        if isinstance(imputer.missing_values, str) or imputer.add_indicator:
            raise NotExportableError("SimpleImputer has no exact converter for these strings.")
        if imputer.missing_values is not None:  # NaN, which is another gap than None in a row
            graph.node("Identity", X, output=operator.outputs[0].full_name)
            return
        is_missing = graph.node("Equal", X, graph.constant(np.array([MISSING], dtype=object)))
        statistics = graph.constant(imputer.statistics_.astype(object))
        graph.node("Where", is_missing, statistics, X, output=operator.outputs[0].full_name)
        return
    missing = float(imputer.missing_values)
    if np.isnan(missing):
        is_missing = graph.node("IsNaN", X)
    else:
        is_missing = graph.node("Equal", X, graph.constant(np.array(missing)))
    statistics = graph.constant(imputer.statistics_.astype(float))
    imputed = graph.node("Where", is_missing, statistics, X)
    kept, indicated = imputed_features(imputer), indicator_features(imputer)
    if len(kept) < imputer.n_features_in_:
        imputed = graph.node("Gather", imputed, graph.constant(kept), axis=1)
    parts = [imputed]
    if len(indicated):
        flags = graph.node("Gather", is_missing, graph.constant(indicated), axis=1)
        parts.append(graph.node("Cast", flags, to=TensorProto.DOUBLE))
    graph.node("Concat", *parts, axis=1, output=operator.outputs[0].full_name)


def imputes_strings(operator: Any) -> bool:
    """Tell whether the imputer gets strings."""
    return isinstance(operator.inputs[0].type, StringTensorType)


def set_imputed_type(operator: Any) -> None:
    """Declare the output: double or string (n_samples, n_kept_features + n_indicators)."""
    imputer = operator.raw_operator
    width = len(imputed_features(imputer)) + len(indicator_features(imputer))
    tensor_type = StringTensorType if imputes_strings(operator) else DoubleTensorType
    operator.outputs[0].type = tensor_type([operator.inputs[0].get_first_dimension(), width])


def register_preprocessing() -> None:
    """Make skl2onnx use these converters."""
    for encoder in ENCODERS:
        alias = f"Double{encoder.__name__}"
        update_registered_converter(
            encoder, alias, set_encoded_type, convert_encoder, parser=parse_encoder
        )
    update_registered_converter(
        SimpleImputer, "DoubleSimpleImputer", set_imputed_type, convert_imputer
    )
