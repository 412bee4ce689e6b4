"""Convert tree ensembles to the ONNX operator TreeEnsemble, which computes in double.

skl2onnx's own converters use TreeEnsembleRegressor, which answers in float32.
"""

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
from training.export.graph import Graph
from training.export.preprocessing import encode_columns

DECISION_TREES = (DecisionTreeRegressor, ExtraTreeRegressor)
FORESTS = (RandomForestRegressor, ExtraTreesRegressor)
# Modes of a node of TreeEnsemble: whether the left child is for values up to the threshold, or for
# the members of a set.
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
    threshold: np.ndarray  # a sample goes left if its feature is not above
    left: np.ndarray  # index of the child
    right: np.ndarray
    missing_left: np.ndarray  # a sample that lacks the feature goes left
    value: np.ndarray  # of a leaf
    codes: np.ndarray  # of a split by category, those of the categories that go left; else None


class Ensemble(NamedTuple):
    """How scikit-learn predicts: link((start + scale * tree + scale * tree + ...) / divisor).

    Only forests have a divisor, and only histogram gradient boosting has a link.
    """

    trees: list[Tree]
    start: float = 0.0
    scale: float = 1.0
    divisor: int = 1
    float32: bool = True  # features are compared in float32
    log_link: bool = False


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


# The nodes, the start and the encoder of histogram gradient boosting are in private attributes.
# ruff: noqa: SLF001
def read_hist_gradient_boosting(estimator: HistGradientBoostingRegressor) -> Ensemble:
    """Return the trees of histogram gradient boosting; features are as its encoder orders them."""
    return Ensemble(
        [read_hist_tree(trees[0]) for trees in estimator._predictors],
        start=float(estimator._baseline_prediction[0, 0]),
        float32=False,
        log_link=estimator.loss in ("poisson", "gamma"),
    )


def hist_encoder(estimator: HistGradientBoostingRegressor) -> OrdinalEncoder:
    """Return the encoder of the categories, which it puts before the numbers."""
    return estimator._preprocessor.named_transformers_["encoder"]


def read_hist_tree(predictor: Any) -> Tree:
    """Return the nodes of a tree of histogram gradient boosting."""
    nodes = predictor.nodes
    codes = np.full(len(nodes), None, dtype=object)
    for node in np.flatnonzero((nodes["is_categorical"] == 1) & (nodes["is_leaf"] == 0)):
        words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]  # of 32 codes each
        codes[node] = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
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
    """Return a tree with one split; a sample that lacks the feature goes right."""
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

    The start comes first: floats are then added in scikit-learn's order. An estimator that refuses
    missing values gets one tree per feature that makes the sum NaN.
    """
    trees = [stump(0, 0.0, ensemble.start, ensemble.start)] if ensemble.start else []
    for tree in ensemble.trees:
        value = ensemble.scale * tree.value
        if tree.is_leaf[0]:  # TreeEnsemble knows no tree without a split
            trees.append(stump(0, 0.0, value[0], value[0]))
        else:
            trees.append(tree._replace(value=value))
    if not get_tags(estimator).input_tags.allow_nan:
        trees += [stump(i, np.inf, 0.0, np.nan) for i in range(estimator.n_features_in_)]
    return trees


def tree_attributes(trees: Iterable[Tree]) -> dict[str, Any]:
    """Return the attributes of TreeEnsemble, which numbers splits and leaves separately."""
    trees = list(trees)
    sizes = np.array([len(tree.is_leaf) for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    first = np.repeat(roots, sizes)  # of its tree, for each node
    nodes = Tree(*map(np.concatenate, zip(*trees, strict=True)))
    is_split = ~nodes.is_leaf
    number = np.where(is_split, np.cumsum(is_split), np.cumsum(nodes.is_leaf)) - 1
    sets = [codes for codes in nodes.codes if codes is not None]
    modes = [LEQ if codes is None else MEMBER for codes in nodes.codes[is_split]]
    left, right = ((first + child)[is_split] for child in (nodes.left, nodes.right))
    return {
        "n_targets": 1,
        "tree_roots": number[roots].tolist(),
        "nodes_modes": from_array(np.array(modes)),
        "membership_values": from_array(np.array([x for each in sets for x in (*each, np.nan)])),
        "nodes_featureids": nodes.feature[is_split].tolist(),
        "nodes_splits": from_array(nodes.threshold[is_split]),
        "nodes_missing_value_tracks_true": nodes.missing_left[is_split].tolist(),
        "nodes_truenodeids": number[left].tolist(),
        "nodes_trueleafs": nodes.is_leaf[left].astype(int).tolist(),
        "nodes_falsenodeids": number[right].tolist(),
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
    attributes = tree_attributes(to_onnx_trees(estimator, ensemble))
    attributes |= {"op_domain": "ai.onnx.ml", "op_version": 3}
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
    """Add the nodes that encode the categories of histogram gradient boosting, if it has any."""
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
