"""Convert tree ensembles to the ONNX operator TreeEnsemble, which computes in double.

skl2onnx's own converters use TreeEnsembleRegressor, whose output is float32.
"""

# ruff: noqa: SLF001 - the trees and encoders of histogram gradient boosting are private attributes

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto
from onnx.numpy_helper import from_array
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.preprocessing import OrdinalEncoder
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor
from sklearn.utils import get_tags

from training.errors import NotExportableError
from training.export.graph import ML_NODE, Graph
from training.export.preprocessing import encode_columns

DECISION_TREES = (DecisionTreeRegressor, ExtraTreeRegressor)
FORESTS = (RandomForestRegressor, ExtraTreesRegressor)
# Modes of a node of TreeEnsemble: the left child is for values up to the threshold, or for the
# members of a set.
LEQ, MEMBER = np.uint8(0), np.uint8(6)
TREE_ENSEMBLES = (
    *DECISION_TREES,
    *FORESTS,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
)


class Tree(NamedTuple):
    """The nodes of one tree, as arrays (n_nodes,); the root is node 0."""

    is_leaf: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray  # a sample goes left if its feature is <= threshold
    left: np.ndarray  # index of the left child
    right: np.ndarray
    missing_left: np.ndarray  # a sample without a value of the feature goes left
    value: np.ndarray  # predicted by a leaf
    codes: np.ndarray  # of each split by category: the codes that go left; of other nodes: None


class Ensemble(NamedTuple):
    """A tree ensemble; it predicts link((start + scale * tree + scale * tree + ...) / divisor).

    Only forests have a divisor, and only histogram gradient boosting has a link.
    """

    trees: list[Tree]
    start: float = 0.0
    scale: float = 1.0
    divisor: int = 1
    float32: bool = True  # features are compared in float32
    log_link: bool = False  # the prediction is exp of the sum


def read_ensemble(estimator: Any) -> Ensemble:
    """Return the trees of a fitted estimator; raise NotExportableError for an unknown variant."""
    name = type(estimator).__name__
    if getattr(estimator, "n_outputs_", 1) > 1:
        raise NotExportableError(f"{name} predicts more than one target.")
    if isinstance(estimator, HistGradientBoostingRegressor):
        return read_hist_gradient_boosting(estimator)
    if isinstance(estimator, GradientBoostingRegressor):
        trees = [read_tree(tree.tree_) for tree in estimator.estimators_[:, 0]]
        return Ensemble(trees, start=read_start(estimator), scale=estimator.learning_rate)
    if isinstance(estimator, FORESTS):
        trees = [read_tree(tree.tree_) for tree in estimator.estimators_]
        return Ensemble(trees, divisor=len(trees))
    return Ensemble([read_tree(estimator.tree_)])


def read_tree(tree: Any) -> Tree:
    """Return the nodes of a tree of `sklearn.tree`."""
    return Tree(
        is_leaf=tree.children_left == -1,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left,
        value=tree.value[:, 0, 0],
        codes=np.full(tree.node_count, None, dtype=object),
    )


def read_start(estimator: GradientBoostingRegressor) -> float:
    """Return what gradient boosting predicts before its first tree."""
    if estimator.init == "zero":
        return 0.0
    if estimator.init is not None:
        raise NotExportableError("GradientBoostingRegressor starts from an estimator (init).")
    return float(estimator.init_.constant_[0, 0])


def read_hist_gradient_boosting(estimator: HistGradientBoostingRegressor) -> Ensemble:
    """Return the trees of histogram gradient boosting.

    The indices of features are those after its encoder, which puts the categories first.
    """
    return Ensemble(
        [read_hist_tree(trees[0]) for trees in estimator._predictors],
        start=float(estimator._baseline_prediction[0, 0]),
        float32=False,
        log_link=estimator.loss in ("poisson", "gamma"),
    )


def hist_encoder(estimator: HistGradientBoostingRegressor) -> OrdinalEncoder:
    """Return the built-in encoder of categories."""
    return estimator._preprocessor.named_transformers_["encoder"]


def read_hist_tree(predictor: Any) -> Tree:
    """Return the nodes of a tree of histogram gradient boosting."""
    nodes = predictor.nodes
    codes = np.full(len(nodes), None, dtype=object)
    for node in np.flatnonzero((nodes["is_categorical"] == 1) & (nodes["is_leaf"] == 0)):
        bitset = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]  # 32 codes per integer
        codes[node] = np.flatnonzero(np.unpackbits(bitset.view(np.uint8), bitorder="little"))
    return Tree(
        is_leaf=nodes["is_leaf"] == 1,
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"],
        value=nodes["value"],
        codes=codes,
    )


def stump(feature: int, threshold: float, left: float, right: float) -> Tree:
    """Return a tree with one split; a sample without a value of the feature goes right."""
    return Tree(
        is_leaf=np.array([False, True, True]),
        feature=np.array([feature, -2, -2]),
        threshold=np.array([threshold, 0.0, 0.0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        missing_left=np.array([0, 0, 0]),
        value=np.array([0.0, left, right]),
        codes=np.full(3, None, dtype=object),
    )


def to_onnx_trees(estimator: Any, ensemble: Ensemble) -> list[Tree]:
    """Return the trees whose sum is the prediction before division and link.

    The start is the first tree: floats are then added in scikit-learn's order. If the estimator
    rejects missing values, an extra stump per feature returns NaN for a missing value, and so makes
    the sum NaN.
    """
    trees = [stump(0, 0.0, ensemble.start, ensemble.start)] if ensemble.start else []
    for tree in ensemble.trees:
        value = ensemble.scale * tree.value
        if tree.is_leaf[0]:  # TreeEnsemble does not support a tree without a split
            trees.append(stump(0, 0.0, value[0], value[0]))
        else:
            trees.append(tree._replace(value=value))
    if not get_tags(estimator).input_tags.allow_nan:
        trees += [stump(i, np.inf, 0.0, np.nan) for i in range(estimator.n_features_in_)]
    return trees


def tree_attributes(trees: Iterable[Tree]) -> dict[str, Any]:
    """Return the attributes of the ONNX operator TreeEnsemble.

    It has the splits of all trees in one array and the leaves in another.
    """
    trees = list(trees)
    nodes = Tree(*map(np.concatenate, zip(*trees, strict=True)))  # of all trees
    sizes = np.array([len(tree.is_leaf) for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    is_split = ~nodes.is_leaf
    # Of a split its index in the array of splits, of a leaf its index in the array of leaves.
    index = np.where(is_split, np.cumsum(is_split), np.cumsum(nodes.is_leaf)) - 1
    # The children of a node are counted from the root of its tree.
    root_of_node = np.repeat(roots, sizes)
    left, right = ((root_of_node + child)[is_split] for child in (nodes.left, nodes.right))
    modes = [LEQ if codes is None else MEMBER for codes in nodes.codes[is_split]]
    # The sets of the splits by category, one after the other, each ended by NaN.
    members = [x for codes in nodes.codes if codes is not None for x in (*codes, np.nan)]
    return {
        "n_targets": 1,
        "tree_roots": index[roots].tolist(),
        "nodes_modes": from_array(np.array(modes)),
        "membership_values": from_array(np.array(members)),
        "nodes_featureids": nodes.feature[is_split].tolist(),
        "nodes_splits": from_array(nodes.threshold[is_split]),
        "nodes_missing_value_tracks_true": nodes.missing_left[is_split].tolist(),
        "nodes_truenodeids": index[left].tolist(),
        "nodes_trueleafs": nodes.is_leaf[left].astype(int).tolist(),
        "nodes_falsenodeids": index[right].tolist(),
        "nodes_falseleafs": nodes.is_leaf[right].astype(int).tolist(),
        "leaf_weights": from_array(nodes.value[nodes.is_leaf]),
        "leaf_targetids": [0] * int(nodes.is_leaf.sum()),
    }


def convert_trees(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of a tree ensemble to the ONNX graph."""
    graph, estimator = Graph(scope, container), operator.raw_operator
    ensemble = read_ensemble(estimator)
    value = tree_input(graph, operator.inputs, estimator)
    if ensemble.float32:
        value = graph.node("Cast", value, to=TensorProto.FLOAT)
        value = graph.node("Cast", value, to=TensorProto.DOUBLE)
    attributes = tree_attributes(to_onnx_trees(estimator, ensemble)) | ML_NODE
    output = operator.outputs[0].full_name
    if ensemble.log_link:
        graph.node("Exp", graph.node("TreeEnsemble", value, **attributes), output=output)
    elif ensemble.divisor > 1:
        value = graph.node("TreeEnsemble", value, **attributes)
        divisor = graph.constant(np.array([float(ensemble.divisor)]))
        graph.node("Div", value, divisor, output=output)
    else:
        graph.node("TreeEnsemble", value, output=output, **attributes)


def tree_input(graph: Graph, inputs: list[Any], estimator: Any) -> str:
    """Return the name of the input of the trees (n_samples, n_features).

    If histogram gradient boosting encodes categories, add the nodes that do so.
    """
    if getattr(estimator, "_preprocessor", None) is None:
        return graph.concat([variable.full_name for variable in inputs], axis=1)
    columns = list(zip(graph.columns(inputs), estimator.is_categorical_, strict=True))
    categories = [column for column, is_categorical in columns if is_categorical]
    numbers = [name for (name, _), is_categorical in columns if not is_categorical]
    encoded = encode_columns(graph, categories, hist_encoder(estimator))
    encoded = graph.node("Squeeze", encoded, graph.constant(np.array([1])))
    return graph.concat([encoded, *numbers], axis=1)


def set_prediction_type(operator: Any) -> None:
    """Declare the output: double (n_samples, 1)."""
    operator.outputs[0].type = DoubleTensorType([operator.inputs[0].get_first_dimension(), 1])


def register_trees() -> None:
    """Make skl2onnx use these converters for all tree ensembles."""
    for estimator_type in TREE_ENSEMBLES:
        alias = f"Double{estimator_type.__name__}"
        update_registered_converter(estimator_type, alias, set_prediction_type, convert_trees)
