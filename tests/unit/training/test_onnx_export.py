"""The ONNX export: its predictions equal those of scikit-learn, or there is none."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
import onnx
import pandas as pd
import pytest
from pydantic import BaseModel, Field, create_model
from sklearn.base import clone
from sklearn.compose import (
    ColumnTransformer,
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import GammaRegressor, LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
)
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

from house import EXAMPLE, House
from serving.onnx_model import OnnxModel
from tests.helpers import car
from tests.helpers.commands import ROOT
from tests.helpers.tutorial import TUTORIAL_PREDICTION
from train import PROJECT, fit
from training.data import load_training_data
from training.errors import NotExportableError
from training.export import check, export, preprocessing, trees, verify
from training.export.rows import edge_rows, random_rows

PAGE = ROOT / "docs/export.md"
TABLE_HEAD = (
    "| estimator, steps | served by | largest difference | scikit-learn, ms | ONNX Runtime, ms |\n"
)
ONNX, SKLEARN = "ONNX Runtime", "scikit-learn"
RESULTS, REASONS = {}, {}  # of the cases that have run, for the table
NULLABLE = ["body", "mileage", "owners", "accident_free"]
CATEGORIES, NUMBERS = ["brand", "fuel", "body"], ["age", "mileage", "power", "owners"]


class Data(NamedTuple):
    """Features, targets and the type of their records."""

    X: pd.DataFrame
    y: pd.Series
    record_type: type[BaseModel]


HouseWithGaps = create_model(
    "HouseWithGaps",
    __config__=House.model_config,
    **{
        name: (field.annotation if name == "CHAS" else field.annotation | None, field)
        for name, field in House.model_fields.items()
    },
)


CompleteCar = create_model(
    "CompleteCar",
    __config__=car.Car.model_config,
    **{
        name: (
            get_args(field.annotation)[0] if name in NULLABLE else field.annotation,
            field,
        )
        for name, field in car.Car.model_fields.items()
        if name != "trim"
    },
)


class Square(BaseModel):
    """A record whose numbers are bounded on both sides."""

    model_config = House.model_config

    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)


class Shop(BaseModel):
    """A record with categories that are numbers."""

    model_config = House.model_config

    size: float = Field(ge=0, le=100)
    district: float = Field(ge=1, le=9)  # 1, 2, 3 or 7 in the data


def read(path, labelled_type, record_type):
    """Return the rows of a CSV file."""
    data, _ = load_training_data(path, labelled_type)
    return Data(data.X, data.y, record_type)


def make_data():
    """Return the data sets, by name; those that end in "frame" are fitted as DataFrames."""
    rng = np.random.default_rng(0)
    house = read(PROJECT.data, PROJECT.labelled_type, House)
    cars_with_gaps = read(car.PATH, car.LabelledCar, car.Car)
    cars = without_gaps(cars_with_gaps)
    is_gap = rng.random(house.X.shape) < 0.05
    is_gap[:, house.X.columns.get_loc("CHAS")] = False
    square = pd.DataFrame(rng.random((300, 2)), columns=["x", "y"])
    district = rng.choice([1.0, 2.0, 3.0, 7.0], 300)
    shop = pd.DataFrame({"size": rng.uniform(0, 100, 300), "district": district})
    return {
        "house": house,
        "house frame": house,
        "gaps": Data(house.X.mask(is_gap), house.y, HouseWithGaps),
        "cars with gaps": cars_with_gaps,
        "cars": cars,
        "cars frame": cars,
        "square": Data(square, square.x * square.y + rng.normal(size=300), Square),
        "shop": Data(shop, shop["size"] + 10 * shop.district, Shop),
    }


def without_gaps(cars):
    """Return the cars without gaps, and without their texts."""
    X = cars.X.drop(columns="trim").dropna()
    X = X.astype({"owners": "int64", "accident_free": "bool"})
    return Data(X, cars.y[X.index], CompleteCar)


DATA = make_data()


@pytest.fixture(autouse=True)
def fewer_rows(monkeypatch):
    """Compare fewer rows than `python train.py` does, to save time."""
    monkeypatch.setattr(check, "N_RANDOM_ROWS", 1000)
    monkeypatch.setattr(check, "MAX_THRESHOLD_ROWS", 10_000)
    monkeypatch.setattr(check, "TIMED_SECONDS", 0.01)


def fit_on(estimator, name):
    """Fit an estimator on a data set, as an array or as a DataFrame."""
    X, y, _ = DATA[name]
    return clone(estimator).fit(X if name.endswith("frame") else X.to_numpy(), y)


def export_and_verify(estimator, name):
    """Export a fitted estimator and compare it with scikit-learn."""
    X, y, record_type = DATA[name]
    content = export(estimator, X)
    return content, verify(estimator, content, X, y, record_type)


def encode(encoder, estimator, columns=slice(0, 3), rest="passthrough"):
    """Return a pipeline that encodes some columns."""
    transformer = ColumnTransformer([("encoder", encoder, columns)], remainder=rest)
    return make_pipeline(transformer, estimator)


started = GradientBoostingRegressor(init=LinearRegression(), n_estimators=3)
boosting = GradientBoostingRegressor(n_estimators=30, random_state=0)
hist = HistGradientBoostingRegressor(max_iter=30, random_state=0)
forest = RandomForestRegressor(n_estimators=20, random_state=0)
ignoring = OneHotEncoder(handle_unknown="ignore")
ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)

# Estimators that are exported: name, estimator, data, and the greatest difference expected.
EXPORTED = [
    ("GradientBoostingRegressor", boosting, "house", 0),
    (
        'GradientBoostingRegressor(loss="absolute_error")',
        clone(boosting).set_params(loss="absolute_error"),
        "house",
        0,
    ),
    (
        'GradientBoostingRegressor(loss="huber")',
        clone(boosting).set_params(loss="huber"),
        "house",
        0,
    ),
    (
        'GradientBoostingRegressor(loss="quantile")',
        clone(boosting).set_params(loss="quantile"),
        "house",
        0,
    ),
    ('GradientBoostingRegressor(init="zero")', clone(boosting).set_params(init="zero"), "house", 0),
    ("GradientBoostingRegressor on a DataFrame", boosting, "house frame", 0),
    ("HistGradientBoostingRegressor", hist, "house", 0),
    ("HistGradientBoostingRegressor, missing values", hist, "gaps", 0),
    (
        'HistGradientBoostingRegressor(loss="poisson"), missing values',
        clone(hist).set_params(loss="poisson"),
        "gaps",
        1e-15,
    ),
    (
        'HistGradientBoostingRegressor(loss="gamma")',
        clone(hist).set_params(loss="gamma"),
        "house",
        1e-15,
    ),
    (
        "HistGradientBoostingRegressor(categorical_features=...), strings",
        clone(hist).set_params(categorical_features=CATEGORIES),
        "cars frame",
        0,
    ),
    (
        "HistGradientBoostingRegressor(categorical_features=...), numbers",
        clone(hist).set_params(categorical_features=[3, 8]),
        "gaps",
        0,
    ),
    ("RandomForestRegressor", forest, "house", 0),
    ("RandomForestRegressor, missing values", forest, "gaps", 0),
    ("ExtraTreesRegressor", ExtraTreesRegressor(20, random_state=0), "house", 0),
    ("ExtraTreesRegressor, missing values", ExtraTreesRegressor(20, random_state=0), "gaps", 0),
    ("DecisionTreeRegressor", DecisionTreeRegressor(random_state=0), "house", 0),
    ("DecisionTreeRegressor, missing values", DecisionTreeRegressor(random_state=0), "gaps", 0),
    (
        "DecisionTreeRegressor without a split",
        DecisionTreeRegressor(min_samples_leaf=400),
        "house",
        0,
    ),
    ("ExtraTreeRegressor", ExtraTreeRegressor(random_state=0), "house", 0),
    (
        "VotingRegressor of GradientBoostingRegressor and Ridge",
        VotingRegressor([("a", boosting), ("b", Ridge())]),
        "house",
        1e-14,
    ),
    ("BaggingRegressor", BaggingRegressor(random_state=0), "house", 1e-14),
    (
        'SimpleImputer(strategy="median"), GradientBoostingRegressor',
        make_pipeline(SimpleImputer(strategy="median"), boosting),
        "gaps",
        0,
    ),
    (
        "SimpleImputer, StandardScaler, Ridge",
        make_pipeline(SimpleImputer(), StandardScaler(), Ridge()),
        "gaps",
        1e-13,
    ),
    (
        "SimpleImputer(add_indicator=True), Ridge",
        make_pipeline(SimpleImputer(strategy="most_frequent", add_indicator=True), Ridge()),
        "gaps",
        1e-13,
    ),
    (
        'SimpleImputer(strategy="constant"), RandomForestRegressor',
        make_pipeline(SimpleImputer(strategy="constant"), forest),
        "gaps",
        0,
    ),
    ("LinearRegression", LinearRegression(), "house", 1e-13),
    (
        "StandardScaler, GammaRegressor",
        make_pipeline(StandardScaler(), GammaRegressor()),
        "house",
        1e-13,
    ),
    (
        "MinMaxScaler, RandomForestRegressor",
        make_pipeline(MinMaxScaler(clip=True), forest),
        "house",
        0,
    ),
    (
        "StandardScaler, MLPRegressor",
        make_pipeline(StandardScaler(), MLPRegressor(max_iter=300, tol=1)),
        "house",
        1e-13,
    ),
    ("KNeighborsRegressor, bounded features", KNeighborsRegressor(), "square", 1e-14),
    (
        'OneHotEncoder(handle_unknown="ignore"), RandomForestRegressor',
        encode(ignoring, forest),
        "cars",
        0,
    ),
    (
        "OneHotEncoder of columns by name, GradientBoostingRegressor",
        encode(ignoring, boosting, CATEGORIES),
        "cars frame",
        0,
    ),
    (
        "OneHotEncoder, StandardScaler, Ridge",
        encode(ignoring, Ridge(), rest=StandardScaler()),
        "cars frame",
        1e-13,
    ),
    (
        "OneHotEncoder of columns by type, RandomForestRegressor",
        encode(ignoring, forest, make_column_selector(dtype_exclude="number"), "drop"),
        "cars frame",
        0,
    ),
    (
        'OneHotEncoder(handle_unknown="error"), RandomForestRegressor',
        encode(OneHotEncoder(), forest),
        "cars frame",
        0,
    ),
    (
        "OneHotEncoder(max_categories=2), RandomForestRegressor",
        encode(OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2), forest),
        "cars frame",
        0,
    ),
    (
        'OneHotEncoder(drop="first"), Ridge',
        encode(OneHotEncoder(drop="first"), Ridge(), rest="drop"),
        "cars frame",
        1e-13,
    ),
    (
        'OrdinalEncoder(handle_unknown="use_encoded_value"), HistGradientBoostingRegressor',
        encode(ordinal, hist),
        "cars",
        0,
    ),
    (
        'OrdinalEncoder(handle_unknown="error"), HistGradientBoostingRegressor',
        encode(OrdinalEncoder(), hist),
        "cars frame",
        0,
    ),
    (
        "OrdinalEncoder(encoded_missing_value=-2), HistGradientBoostingRegressor",
        encode(clone(ordinal).set_params(encoded_missing_value=-2), hist, [0, 8]),
        "gaps",
        0,
    ),
    (
        'OneHotEncoder(handle_unknown="ignore") of numbers, GradientBoostingRegressor',
        encode(ignoring, boosting, [1]),
        "shop",
        0,
    ),
    (
        'OneHotEncoder(handle_unknown="error") of numbers, RandomForestRegressor',
        encode(OneHotEncoder(), forest, [1]),
        "shop",
        0,
    ),
    (
        "SimpleImputer, OneHotEncoder, RandomForestRegressor",
        encode(make_pipeline(SimpleImputer(strategy="most_frequent"), ignoring), forest),
        "cars",
        0,
    ),
    (
        "nested pipelines with OrdinalEncoder, SimpleImputer, StandardScaler, Ridge",
        make_pipeline(
            ColumnTransformer(
                [
                    ("a", make_pipeline(ordinal, StandardScaler()), CATEGORIES),
                    ("b", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
                ]
            ),
            Ridge(),
        ),
        "cars frame",
        1e-13,
    ),
]

# Estimators without an equal export: name, estimator, data, and the reason.
NOT_EXPORTED = [
    (
        "FunctionTransformer(np.log1p), Ridge",
        make_pipeline(FunctionTransformer(np.log1p), Ridge()),
        "house",
        "step functiontransformer, FunctionTransformer calls a function, which ONNX does not know.",
    ),
    (
        "FunctionTransformer(np.log1p) of columns, Ridge",
        make_pipeline(ColumnTransformer([("log", FunctionTransformer(np.log1p), [0])]), Ridge()),
        "house",
        "step columntransformer, step log, FunctionTransformer calls a function",
    ),
    (
        "TransformedTargetRegressor",
        TransformedTargetRegressor(Ridge()),
        "house",
        "TransformedTargetRegressor has no",
    ),
    (
        "GradientBoostingRegressor(init=LinearRegression())",
        clone(boosting).set_params(init=LinearRegression()),
        "house",
        "starts from an estimator",
    ),
    (
        "StandardScaler, SVR",
        make_pipeline(StandardScaler(), SVR()),
        "house",
        "step svr, SVR can't be",
    ),
    (
        "PowerTransformer, Ridge",
        make_pipeline(PowerTransformer(), Ridge()),
        "house",
        "PowerTransformer can't be",
    ),
    (
        "PolynomialFeatures, Ridge",
        make_pipeline(PolynomialFeatures(), Ridge()),
        "house",
        "PolynomialFeatures can't",
    ),
    # The distances to 1e300 are infinite, and so equal: which neighbours are nearest is chance.
    (
        "KNeighborsRegressor, features without bounds",
        KNeighborsRegressor(),
        "house",
        "where scikit-learn predicts",
    ),
]


@pytest.mark.parametrize(
    ("estimator", "name", "limit"), [case[1:] for case in EXPORTED], ids=[c[0] for c in EXPORTED]
)
def test_export_predicts_what_scikit_learn_does(request, estimator, name, limit):
    """An export is equal on the data, on random records and at thresholds."""
    _, checked = export_and_verify(fit_on(estimator, name), name)
    RESULTS[request.node.callspec.id] = checked
    assert checked.largest_difference <= limit
    assert checked.n_rows + checked.n_rejected > len(DATA[name].X) + 1000 // 2
    assert set(checked.onnx_seconds) == set(checked.sklearn_seconds) == {1, 64}


@pytest.mark.parametrize(
    ("estimator", "name", "reason"),
    [case[1:] for case in NOT_EXPORTED],
    ids=[c[0] for c in NOT_EXPORTED],
)
def test_estimator_without_an_equal_export_is_rejected_with_the_reason(
    request, estimator, name, reason
):
    """One sentence names the step that has no equal export."""
    with pytest.raises(NotExportableError, match=reason.replace(".", r"\.")) as caught:
        export_and_verify(fit_on(estimator, name), name)
    REASONS[request.node.callspec.id] = str(caught.value)


def table_rows():
    """Return a row of the page's table for each case, with what was measured in this run."""
    for name, *_ in EXPORTED:
        result = RESULTS[name]
        times = [
            f"{1000 * seconds[1]:.2g} / {1000 * seconds[64]:.2g}"
            for seconds in (result.sklearn_seconds, result.onnx_seconds)
        ]
        is_slower = result.onnx_seconds[1] > result.sklearn_seconds[1]
        runtime = f"{SKLEARN}: ONNX Runtime takes longer for one row" if is_slower else ONNX
        yield f"| {name} | {runtime} | {result.largest_difference:.1g} | {times[0]} | {times[1]} |"
    for name, *_ in NOT_EXPORTED:
        reason = REASONS[name].partition(", for (")[0].rstrip(".")
        yield f"| {name} | {SKLEARN}: {reason} | | | |"


def test_page_has_the_table_of_these_cases():
    """Each case has a row. With WRITE_TABLE=1 the test writes the table."""
    before, _, table = PAGE.read_text().partition(TABLE_HEAD)
    if "WRITE_TABLE" in os.environ:
        PAGE.write_text(
            "\n".join([before + TABLE_HEAD + "|---|---|---|---|---|", *table_rows(), ""])
        )
        return
    rows = [row.removeprefix("| ").split(" | ") for row in table.splitlines()[1:]]
    assert [row[0] for row in rows] == [name for name, *_ in (*EXPORTED, *NOT_EXPORTED)]
    for _, runtime, difference, *_ in rows[: len(EXPORTED)]:
        assert runtime.startswith((ONNX, SKLEARN))
        assert float(difference) <= check.TOLERANCE
    assert all(row[1].startswith(f"{SKLEARN}: ") for row in rows[len(EXPORTED) :])


def test_house_model_predicts_the_tutorial_price():
    """The model of the tutorial is exported, and predicts its price."""
    X, y, _ = DATA["house"]
    estimator = fit(X[:455], y[:455])
    content, checked = export_and_verify(estimator, "house")
    [prediction] = OnnxModel(content).predict([tuple(EXAMPLE.values())])
    assert prediction == TUTORIAL_PREDICTION
    assert checked.largest_difference < 1e-14
    assert checked.n_threshold_rows > 5_000


def test_cars_example_is_exported():
    """Columns of different types are one input each, in the order of the features."""
    X, y, _ = DATA["cars with gaps"]
    content, checked = export_and_verify(car.fit(X, y), "cars with gaps")
    assert checked.largest_difference == 0
    inputs = onnx.load_from_string(content).graph.input
    assert [each.name for each in inputs] == list(car.FEATURES)
    kinds = [each.type.tensor_type.elem_type for each in inputs]
    assert kinds == [onnx.TensorProto.STRING] * 4 + [onnx.TensorProto.DOUBLE] * 5


def test_numbers_are_one_input_and_the_file_names_the_features():
    """Without strings there is one input, and the metadata has the names."""
    X = DATA["house"].X
    model = onnx.load_from_string(export(fit_on(Ridge(), "house"), X))
    assert [each.name for each in model.graph.input] == ["features"]
    assert model.metadata_props[0].key == "feature_names"
    assert model.metadata_props[0].value == str(list(X)).replace("'", '"')
    assert {each.domain: each.version for each in model.opset_import}["ai.onnx.ml"] == 5
    assert model.ir_version == 10


@pytest.mark.parametrize("feature_name", ["variable", "features", "Größe in m²", "constant"])
def test_feature_may_have_any_name(feature_name):
    """A tensor of skl2onnx may have the same name; it need not be an identifier."""
    X = DATA["cars"].X.rename(columns={"age": feature_name})
    estimator = encode(ignoring, Ridge()).fit(X, DATA["cars"].y)
    model = OnnxModel(export(estimator, X))
    rows = list(X[:20].itertuples(index=False, name=None))
    assert model.predict(rows).ravel() == pytest.approx(estimator.predict(X[:20]), rel=1e-12)
    assert [name for name, _ in model.columns] == list(X)


def test_columns_by_name_in_a_union_are_exported():
    """Also if one transformer selects strings and another selects numbers."""
    numbers = make_column_transformer((StandardScaler(), ["age"]))
    strings = make_column_transformer((ignoring, CATEGORIES))
    estimator = make_pipeline(make_union(numbers, strings), Ridge())
    _, checked = export_and_verify(fit_on(estimator, "cars frame"), "cars frame")
    assert checked.largest_difference <= 1e-13


@pytest.mark.parametrize(
    ("handle_unknown", "district"), [("ignore", 7.5), ("ignore", 4.0), ("error", 7.5), ("error", 4)]
)
def test_number_between_categories_is_unknown(handle_unknown, district):
    """7.5 is not category 7: it is unknown, like 4."""
    encoder = OneHotEncoder(handle_unknown=handle_unknown)
    estimator = fit_on(encode(encoder, forest, [1]), "shop")
    model = OnnxModel(export(estimator, DATA["shop"].X))
    row = (50.0, district)
    if handle_unknown == "ignore":
        assert model.predict([row]) == estimator.predict([row]).tolist()
        assert model.predict([row]) != model.predict([(50.0, 7.0)])
        return
    with pytest.raises(ValueError, match="unknown categories"):
        estimator.predict([row])
    with pytest.raises(Exception, match="out of data bounds"):
        model.predict([row])


def test_unknown_category_that_is_an_error_fails_the_run_silently(capfd):
    """ONNX Runtime prints nothing about a failing run."""
    estimator = fit_on(encode(OneHotEncoder(), forest), "cars frame")
    X = DATA["cars"].X
    model = OnnxModel(export(estimator, X))
    row = X.iloc[0].to_dict() | {"fuel": "hydrogen"}
    with pytest.raises(Exception, match="out of data bounds"):
        model.predict([tuple(row.values())])
    assert capfd.readouterr() == ("", "")


def test_missing_value_that_scikit_learn_rejects_is_not_predicted():
    """The export of an estimator that rejects missing values returns NaN for them."""
    estimator = fit_on(boosting, "house")
    model = OnnxModel(export(estimator, DATA["house"].X))
    row = list(EXAMPLE.values())
    for missing in (None, np.nan):
        assert np.isnan(model.predict([(missing, *row[1:])])).all()
        assert np.isnan(model.predict([(*row[:-1], missing)])).all()


def test_threads_can_share_a_model():
    """Several threads at once get the predictions that one gets."""
    X = DATA["cars"].X
    estimator = fit_on(encode(ignoring, forest), "cars")
    model = OnnxModel(export(estimator, X))
    rows = list(X.itertuples(index=False, name=None))
    expected = model.predict(rows).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: model.predict([row])[0].tolist(), rows))
    assert found == expected


def test_content_that_is_not_a_model_is_an_error():
    """The message says that ONNX Runtime can't load it."""
    with pytest.raises(NotExportableError, match="ONNX Runtime can't load the export"):
        verify(fit_on(Ridge(), "house"), b"no model", *DATA["house"])


def shift(thresholds, ulp_type, side):
    """Return thresholds moved by one ulp of a type."""
    return np.nextafter(thresholds.astype(ulp_type), ulp_type(side)).astype(float)


# Errors that a converter of trees could make: a change of the trees, and an estimator to show it.
WRONG_TREES = {
    "thresholds one float32 ulp down": (
        lambda tree: tree._replace(threshold=shift(tree.threshold, np.float32, -np.inf)),
        boosting,
    ),
    "thresholds one float32 ulp up": (
        lambda tree: tree._replace(threshold=shift(tree.threshold, np.float32, np.inf)),
        forest,
    ),
    "thresholds one ulp down": (
        lambda tree: tree._replace(threshold=shift(tree.threshold, np.float64, -np.inf)),
        hist,
    ),
    "thresholds one ulp up": (
        lambda tree: tree._replace(threshold=shift(tree.threshold, np.float64, np.inf)),
        hist,
    ),
    "missing values to the other side": (
        lambda tree: tree._replace(missing_left=1 - tree.missing_left),
        hist,
    ),
    "leaves in float32": (
        lambda tree: tree._replace(value=tree.value.astype(np.float32).astype(float)),
        forest,
    ),
}


@pytest.mark.parametrize(("change", "estimator"), WRONG_TREES.values(), ids=WRONG_TREES)
def test_wrong_trees_are_detected(monkeypatch, change, estimator):
    """Even if a threshold is wrong by one ulp."""
    convert = trees.to_onnx_trees
    monkeypatch.setattr(
        trees, "to_onnx_trees", lambda *args: [change(tree) for tree in convert(*args)]
    )
    name = "house" if estimator is boosting else "gaps"
    with pytest.raises(NotExportableError, match="scikit-learn predicts"):
        export_and_verify(fit_on(estimator, name), name)


@pytest.mark.parametrize("in_pipeline", [False, True], ids=["alone", "in a pipeline"])
def test_one_threshold_of_many_trees_moved_by_one_ulp_is_detected(monkeypatch, in_pipeline):
    """The rows at thresholds reach each split, also after other steps."""
    convert = trees.to_onnx_trees

    def move_one(*args):
        *others, tree = convert(*args)
        thresholds = tree.threshold.copy()
        split = np.flatnonzero(~tree.is_leaf)[-1]
        thresholds[split] = np.nextafter(thresholds[split], np.inf)
        return [*others, tree._replace(threshold=thresholds)]

    monkeypatch.setattr(trees, "to_onnx_trees", move_one)
    estimator = make_pipeline(StandardScaler(), hist) if in_pipeline else hist
    with pytest.raises(NotExportableError, match="where scikit-learn predicts"):
        export_and_verify(fit_on(estimator, "house"), "house")


@pytest.mark.parametrize("encoder", [ignoring, ordinal], ids=["one-hot", "ordinal"])
def test_swapped_categories_are_detected(monkeypatch, encoder):
    """Each of two categories has the encoding of the other."""
    encodings = preprocessing.encodings

    def swap(encoder):
        first, *others = encodings(encoder)
        swapped = [first.categories[1], first.categories[0], *first.categories[2:]]
        return [first._replace(categories=swapped), *others]

    monkeypatch.setattr(preprocessing, "encodings", swap)
    with pytest.raises(NotExportableError, match="where scikit-learn predicts"):
        export_and_verify(fit_on(encode(encoder, forest), "cars"), "cars")


def test_unknown_category_encoded_like_another_is_detected(monkeypatch):
    """Valid categories that are not in the data are compared, too."""
    monkeypatch.setattr(preprocessing, "unknown_index", lambda encoding: 0)
    for encoder in (ignoring, OneHotEncoder()):
        with pytest.raises(NotExportableError, match="scikit-learn"):
            export_and_verify(fit_on(encode(encoder, forest), "cars"), "cars")


def test_export_that_rejects_what_scikit_learn_predicts_is_detected(monkeypatch):
    """The export must predict each record that scikit-learn predicts."""
    monkeypatch.setattr(preprocessing, "unknown_index", lambda encoding: 10**6)
    with pytest.raises(NotExportableError, match="The export fails on a record"):
        export_and_verify(fit_on(encode(ignoring, forest), "cars"), "cars")


class Order(BaseModel):
    """A record with each kind of feature."""

    model_config = House.model_config

    price: float = Field(gt=0)
    count: int = Field(ge=1, le=5)
    rush: bool
    kind: Literal["a", "b"]
    weight: float | None = Field(ge=0, le=10)


def test_compared_rows_are_valid_and_reach_bounds_extremes_and_missing_values():
    """They are deterministic."""
    X = pd.DataFrame(
        [[1.5, 2, True, "a", 3.0], [9.5, 4, False, "b", np.nan]], columns=list(Order.model_fields)
    )
    rng = np.random.default_rng(0)
    edges = pd.DataFrame(edge_rows(Order, X, rng), columns=list(X))
    assert {5e-324, 3.4e38, 1e300} <= set(edges.price)
    assert edges.price.min() == 5e-324  # 0 and less are invalid
    assert set(edges["count"]) == {1, 2, 4, 5}
    assert {0.0, 5e-324, 10.0, np.nextafter(10, 0)} <= set(edges.weight)
    assert edges.weight.isna().any()
    sampled = pd.DataFrame(random_rows(Order, X, rng, 500), columns=list(X))
    assert sampled.price.between(0, 9.5 + 80).all()
    assert sampled.price.max() > 50
    assert set(sampled["count"]) == {1, 2, 3, 4, 5}
    assert set(sampled.rush) == {True, False}
    assert set(sampled.kind) == {"a", "b"}
    again = pd.DataFrame(random_rows(Order, X, np.random.default_rng(1), 500))
    assert again.equals(pd.DataFrame(random_rows(Order, X, np.random.default_rng(1), 500)))
