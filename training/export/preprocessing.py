"""Convert OneHotEncoder, OrdinalEncoder and SimpleImputer to ONNX, exactly and in double."""

from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto
from onnx.numpy_helper import from_array
from skl2onnx import get_model_alias, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from serving.onnx_model import MISSING
from training.data import is_missing
from training.errors import NotExportableError
from training.export.graph import ML_NODE, Graph

ENCODERS = (OneHotEncoder, OrdinalEncoder)
PREPROCESSORS = (*ENCODERS, SimpleImputer)


class Encoding(NamedTuple):
    """The encoding of one column as a table."""

    categories: list[Any]
    table: np.ndarray  # (n_categories, width), and a last row if unknown values are encoded


def encodings(encoder: OneHotEncoder | OrdinalEncoder) -> list[Encoding]:
    """Return the encoding of each column of a fitted encoder."""
    encode = one_hot_table if isinstance(encoder, OneHotEncoder) else ordinal_table
    return [
        Encoding(categories.tolist(), encode(encoder, column))
        for column, categories in enumerate(encoder.categories_)
    ]


def one_hot_table(encoder: OneHotEncoder, column: int) -> np.ndarray:
    """Return the one-hot encoding of each category, and a last row for unknown values.

    There is no last row with `handle_unknown="error"`.
    """
    codes, n_frequent = category_codes(encoder, column)
    table = np.eye(max(codes, default=-1) + 1)[codes]
    if encoder.handle_unknown != "error":
        unknown = np.zeros((1, table.shape[1]))
        # "infrequent_if_exist" and "warn" encode an unknown value like an infrequent one.
        if encoder.handle_unknown != "ignore" and n_frequent in codes:
            unknown[0, n_frequent] = 1.0
        table = np.vstack([table, unknown])
    drop = None if encoder.drop_idx_ is None else encoder.drop_idx_[column]
    return table if drop is None else np.delete(table, codes[drop], axis=1)


def ordinal_table(encoder: OrdinalEncoder, column: int) -> np.ndarray:
    """Return the code of each category, and a last row for unknown values if they have a code."""
    # OrdinalEncoder treats None like any other category.
    is_nan = np.array([each != each for each in encoder.categories_[column]], dtype=bool)
    codes = np.array(category_codes(encoder, column)[0], dtype=float)
    codes[is_nan] = encoder.encoded_missing_value
    if encoder.handle_unknown == "use_encoded_value":
        codes = np.append(codes, encoder.unknown_value)
    return codes.reshape(-1, 1)


def category_codes(encoder: Any, column: int) -> tuple[list[int], int]:
    """Return the code of each category, and the number of frequent categories.

    All infrequent categories have the same code, the one after those of the frequent ones.
    """
    categories = encoder.categories_[column]
    # The encoder has this attribute only if it groups infrequent categories.
    groups = getattr(encoder, "infrequent_categories_", None)
    infrequent = None if groups is None else groups[column]
    if infrequent is None:
        return list(range(len(categories))), len(categories)
    is_infrequent = np.array([any(is_same(a, b) for b in infrequent) for a in categories])
    n_frequent = len(categories) - len(infrequent)
    return np.where(is_infrequent, n_frequent, np.cumsum(~is_infrequent) - 1).tolist(), n_frequent


def is_same(a: Any, b: Any) -> bool:
    """Return whether two categories are equal; None and NaN count as equal."""
    return a == b or (is_missing(a) and is_missing(b))


def unknown_index(encoding: Encoding) -> int:
    """Return the index of the table's row for an unknown value: the one after the categories.

    With `handle_unknown="error"` there is no such row, so that Gather fails where scikit-learn
    raises an exception. A row of NaN would not do: some estimators accept it.
    """
    return len(encoding.categories)


def add_encoding(graph: Graph, column: str, is_string: bool, encoding: Encoding) -> str:
    """Add the nodes that encode a column; return the name of their output (n_samples, 1, width).

    A missing string is MISSING. A category of another type than the column, such as a number in a
    column of strings, is skipped: no row can have it.
    """
    types = str if is_string else (bool, int, float)
    categories = [MISSING if is_string and is_missing(key) else key for key in encoding.categories]
    reachable = {key: i for i, key in enumerate(categories) if isinstance(key, types)}
    keys = list(reachable) if is_string else np.array(list(reachable), dtype=float)
    # LabelEncoder of ONNX Runtime maps doubles only to doubles.
    index_type = np.int64 if is_string else np.float64
    values = np.array(list(reachable.values()), dtype=index_type)
    attributes = {
        "default_tensor": from_array(np.array([unknown_index(encoding)], dtype=index_type)),
        "values_tensor": from_array(values),
        "keys_tensor": from_array(np.array(keys, dtype=object if is_string else float)),
    }
    index = graph.node("LabelEncoder", column, **attributes, **ML_NODE)
    if not is_string:
        index = graph.node("Cast", index, to=TensorProto.INT64)
    return graph.node("Gather", graph.constant(encoding.table), index, axis=0)


def encode_columns(graph: Graph, columns: list[tuple[str, bool]], encoder: Any) -> str:
    """Add the nodes that encode columns; return the name of their output.

    Its shape is (n_samples, 1, total width).
    """
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
    return np.flatnonzero([not is_missing(value) for value in imputer.statistics_])


def indicator_features(imputer: SimpleImputer) -> np.ndarray:
    """Return the indices of the features that have a missing-value indicator."""
    return imputer.indicator_.features_ if imputer.add_indicator else np.array([], dtype=int)


def convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of SimpleImputer to the ONNX graph.

    A missing string is MISSING. Raise NotExportableError if the imputer replaces another string, or
    has an indicator for strings.
    """
    graph, imputer = Graph(scope, container), operator.raw_operator
    X = graph.concat([variable.full_name for variable in operator.inputs], axis=1)
    if imputes_strings(operator):
        if isinstance(imputer.missing_values, str) or imputer.add_indicator:
            raise NotExportableError("SimpleImputer has no exact converter for these strings.")
        if imputer.missing_values is not None:  # NaN: it does not match None, the missing string
            graph.node("Identity", X, output=operator.outputs[0].full_name)
            return
        mask = graph.node("Equal", X, graph.constant(np.array([MISSING], dtype=object)))
        statistics = graph.constant(imputer.statistics_.astype(object))
        graph.node("Where", mask, statistics, X, output=operator.outputs[0].full_name)
        return
    missing = float(imputer.missing_values)
    if np.isnan(missing):
        mask = graph.node("IsNaN", X)
    else:
        mask = graph.node("Equal", X, graph.constant(np.array(missing)))
    statistics = graph.constant(imputer.statistics_.astype(float))
    imputed = graph.node("Where", mask, statistics, X)
    kept, indicated = imputed_features(imputer), indicator_features(imputer)
    if len(kept) < imputer.n_features_in_:
        imputed = graph.node("Gather", imputed, graph.constant(kept), axis=1)
    parts = [imputed]
    if len(indicated):
        flags = graph.node("Gather", mask, graph.constant(indicated), axis=1)
        parts.append(graph.node("Cast", flags, to=TensorProto.DOUBLE))
    graph.node("Concat", *parts, axis=1, output=operator.outputs[0].full_name)


def imputes_strings(operator: Any) -> bool:
    """Return whether the inputs of the imputer are strings."""
    return isinstance(operator.inputs[0].type, StringTensorType)


def set_imputed_type(operator: Any) -> None:
    """Declare the output: double or string (n_samples, n_kept_features + n_indicators)."""
    imputer = operator.raw_operator
    width = len(imputed_features(imputer)) + len(indicator_features(imputer))
    tensor_type = StringTensorType if imputes_strings(operator) else DoubleTensorType
    operator.outputs[0].type = tensor_type([operator.inputs[0].get_first_dimension(), width])


def register_preprocessing() -> None:
    """Make skl2onnx use these converters for the encoders and SimpleImputer."""
    for encoder in ENCODERS:
        alias = f"Double{encoder.__name__}"
        update_registered_converter(
            encoder, alias, set_encoded_type, convert_encoder, parser=parse_encoder
        )
    update_registered_converter(
        SimpleImputer, "DoubleSimpleImputer", set_imputed_type, convert_imputer
    )
