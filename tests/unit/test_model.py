"""The model reference, which rejects models that the service could not serve; the regressor."""

import json
import math
import pickle
import re
import shutil
from datetime import date
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import bentoml
import pandas as pd
import pytest
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeRegressor

from house import EXAMPLE, FEATURES, House, LabelledHouse
from serving import service_image
from serving.features import REQUIRED_CONFIG, check_record_type, feature_schemas
from serving.model import (
    GOLDEN_FILE,
    ONNX_FILE,
    PICKLE_FILE,
    ModelReference,
)
from serving.records import to_row
from serving.regressor import Regressor
from tests.helpers.commands import run
from tests.helpers.tutorial import TUTORIAL_PREDICTION
from train import PROJECT
from training.data import Split, parse_csv, split_train_test, to_frame
from training.export import export
from training.fitting.store import save


@pytest.fixture(scope="module")
def regressor(model):
    """A regressor on the trained model."""
    return Regressor(model)


def record_type(*features):
    """Return a record type with these features, all of them floats."""
    return create_model("Other", **dict.fromkeys(features, (float, ...)))


def test_model_with_matching_features_is_resolved(model):
    """`resolve` returns the model that the tag names."""
    assert ModelReference("house_price:latest", House).resolve().tag == model.tag


@pytest.mark.parametrize(
    ("features", "difference"),
    [
        pytest.param(FEATURES[1:], r"\(CRIM\)", id="missing feature"),
        pytest.param((*FEATURES, "POOL"), r"\(POOL\)", id="additional feature"),
        pytest.param(("POOL", *FEATURES[1:]), r"\(CRIM, POOL\)", id="renamed feature"),
        pytest.param(FEATURES[::-1], r"\(their order\)", id="other order"),
    ],
)
def test_model_with_other_features_is_rejected(model, features, difference):
    """The error names the difference and the remedy. `bentoml build` calls `to_info`."""
    reference = ModelReference("house_price:latest", record_type(*features))
    with pytest.raises(BentoMLException, match=f"{difference}: run `make train`"):
        reference.resolve()
    with pytest.raises(BentoMLException, match=difference):
        reference.to_info()


@pytest.mark.parametrize("option", REQUIRED_CONFIG)
def test_record_type_without_a_required_option_is_rejected(model, option):
    """The error shows the whole configuration that the record type needs."""

    class Lax(House):
        model_config = ConfigDict(**{option: None})

    needed = ", ".join(f"{name}={value!r}" for name, value in REQUIRED_CONFIG.items())
    with pytest.raises(
        BentoMLException, match=re.escape(f"Lax needs model_config = ConfigDict({needed})")
    ):
        ModelReference("house_price:latest", Lax).resolve()


@pytest.mark.parametrize("bounds", [{}, {"ge": 0}, {"le": 9}])
def test_integer_without_both_bounds_is_rejected(model, bounds):
    """A float64 can't hold an integer of 400 digits, which would make its whole batch fail."""

    class Loose(House):
        RAD: int = Field(**bounds)

    with pytest.raises(BentoMLException, match=r"Loose\.RAD needs ge and le"):
        ModelReference("house_price:latest", Loose).resolve()


@pytest.mark.parametrize(
    ("name", "annotation", "message"),
    [
        ("district", str, "needs max_length"),
        ("rooms", float | str, "has to be a float, int, bool or str"),
        ("rooms", list[float], "has to be a float"),
        ("rooms", Annotated[float, Field(validation_alias="r")], "several names"),
        ("rooms", Annotated[float, Field(default=0.0)], "has a default"),
        ("built", date, "has to be a float"),
        ("rooms", Annotated[int, Field(ge=0, le=2**60)], "needs ge and le"),
        ("timestamp", float, "choose another name"),
        ("prediction", bool, "choose another name"),
    ],
)
def test_unsupported_feature_is_rejected(name, annotation, message):
    """For example a text of any length, a union, two names, or a column of the prediction log."""
    unsupported = create_model("Unsupported", __base__=House, **{name: annotation})
    with pytest.raises(BentoMLException, match=rf"Unsupported\.{name} .*{message}"):
        check_record_type(unsupported)


def test_target_is_exempt_from_the_rules_for_features():
    """No request contains it: it may be unbounded, or have the name of a log column."""
    labelled = create_model("Labelled", __base__=House, prediction=int)
    check_record_type(labelled, "prediction")


def test_missing_model_is_rejected(model):
    """The error says how to train one."""
    with pytest.raises(BentoMLException, match=r"no nobody:latest .* run `make train`"):
        ModelReference("nobody:latest", House).resolve()


@pytest.mark.parametrize("annotation", [float | None, Annotated[int, Field(ge=1, le=99)]])
def test_model_with_another_type_of_a_feature_is_rejected(model, annotation):
    """Training has not tried the values that are valid now."""
    changed = create_model("Changed", __base__=House, RAD=(annotation, ...))
    with pytest.raises(BentoMLException, match=r"another type of Changed\.RAD: run `make train`"):
        ModelReference("house_price:latest", changed).resolve()


def test_model_without_training_metadata_is_rejected(model):
    """train.py did not save it, so its features and the SHA-256 of its file are unknown."""
    bentoml.sklearn.save_model("stranger", DummyRegressor().fit([[0]], [0]))
    with pytest.raises(BentoMLException, match=r"no stranger:.* saved by train.py"):
        ModelReference("stranger:latest", House).resolve()


class FileCreator:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        """Return the call that unpickling executes."""
        return Path.touch, (self.path,)


SKLEARN_INFERENCE = {
    "runtime": "scikit-learn",
    "reason": "a test",
    "n_rows_compared": 0,
    "milliseconds": {},
    "input": "array",
}


@pytest.fixture
def copy_model(model):
    """A function that stores a copy of the model, with a changed file or changed metadata.

    `change` maps the content of the file to the new content, or to None for no file. With
    `new_hash`, the metadata have the SHA-256 of the new content.
    """

    def copy(change=lambda content: content, name=ONNX_FILE, new_hash=False, **metadata):
        files = {
            each: Path(model.path_of(each)).read_bytes()
            for each in (PICKLE_FILE, ONNX_FILE, GOLDEN_FILE)
        }
        files[name] = change(files[name])
        changed = model.info.metadata | metadata
        metadata = {key: value for key, value in changed.items() if value is not None}
        if new_hash:
            digest = sha256(files[name]).hexdigest()
            metadata["file_sha256"] = metadata["file_sha256"] | {name: digest}
        with bentoml.models.create("copy", metadata=metadata) as stored:
            for each, content in files.items():
                if content is not None:
                    Path(stored.path_of(each)).write_bytes(content)
        return bentoml.models.get(stored.tag)

    yield copy
    shutil.rmtree(Path(model.path).parents[1] / "copy")


def flip_bit(content):
    """Return the content with one bit flipped, in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda _: None, "No such file", id="missing"),
        pytest.param(lambda _: b"", "content has changed", id="empty"),
        pytest.param(lambda content: content[:-1], "content has changed", id="truncated"),
        pytest.param(lambda content: content + b"\n", "content has changed", id="extended"),
        pytest.param(flip_bit, "content has changed", id="bit flipped"),
    ],
)
@pytest.mark.parametrize("name", [ONNX_FILE, GOLDEN_FILE])
def test_changed_model_file_is_rejected(copy_model, name, change, reason):
    """By the supervisor, which resolves the model, and by a worker, which loads it."""
    stored = copy_model(change, name)
    for load in (ModelReference("copy:latest", House).resolve, lambda: Regressor(stored)):
        with pytest.raises(BentoMLException, match=f"{reason}.* run `make train`"):
            load()


def test_changed_pickle_is_not_executed(copy_model, tmp_path):
    """Neither the supervisor nor a worker unpickles a file before its SHA-256 is verified."""
    malicious = pickle.dumps(FileCreator(tmp_path / "run"))
    stored = copy_model(lambda _: malicious, PICKLE_FILE, inference=SKLEARN_INFERENCE)
    for load in (ModelReference("copy:latest", House).resolve, lambda: Regressor(stored)):
        with pytest.raises(BentoMLException, match="content has changed"):
            load()
    assert not (tmp_path / "run").exists()
    pickle.loads(malicious)  # noqa: S301 - shows that it would create the file
    assert (tmp_path / "run").exists()


def test_exported_model_is_served_without_unpickling(copy_model, tmp_path):
    """The pickle next to an export is for other programs."""
    malicious = pickle.dumps(FileCreator(tmp_path / "run"))
    regressor = Regressor(copy_model(lambda _: malicious, PICKLE_FILE, new_hash=True))
    assert regressor.predict([tuple(EXAMPLE.values())])[0] == TUTORIAL_PREDICTION
    assert not (tmp_path / "run").exists()


def change_golden(change):
    """Return a change of the golden predictions, as JSON."""
    return lambda content: json.dumps(change(json.loads(content))).encode()


def train_other_export():
    """Return the export of a model that predicts otherwise."""
    data = split_train_test(parse_csv(PROJECT.data.read_text(), LabelledHouse))
    tree = DecisionTreeRegressor(max_depth=1).fit(data.X_train.to_numpy(), data.y_train)
    return export(tree, data.X_train)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        pytest.param(lambda _: train_other_export(), ONNX_FILE, id="other model"),
        pytest.param(
            change_golden(lambda golden: golden | {"rows": [[0.0] * 13, *golden["rows"][1:]]}),
            GOLDEN_FILE,
            id="changed row",
        ),
        pytest.param(
            change_golden(
                lambda golden: (
                    golden
                    | {"predictions": [golden["predictions"][0] + 1e-7, *golden["predictions"][1:]]}
                )
            ),
            GOLDEN_FILE,
            id="changed prediction",
        ),
        pytest.param(
            change_golden(
                lambda golden: golden | {"predictions": [math.nan] * len(golden["predictions"])}
            ),
            GOLDEN_FILE,
            id="NaN",
        ),
    ],
)
def test_model_that_does_not_repeat_its_golden_predictions_is_rejected(copy_model, change, name):
    """The reason may be another file, another version of a library or another processor."""
    stored = copy_model(change, name, new_hash=True)
    with pytest.raises(BentoMLException, match=r"predicts .*, but predicted .* during training"):
        Regressor(stored)


def test_model_served_by_another_sklearn_version_has_to_repeat_the_golden_predictions(copy_model):
    """The version alone is not a reason to reject it."""
    versions = {"scikit-learn": "1.2.3"}
    stored = copy_model(inference=SKLEARN_INFERENCE, versions=versions)
    assert ModelReference("copy:latest", House).resolve().tag == stored.tag
    assert Regressor(stored).predict([tuple(EXAMPLE.values())])[0] == TUTORIAL_PREDICTION


def test_model_of_an_earlier_version_of_the_project_is_rejected(copy_model):
    """Its metadata lack the types of the columns."""
    stored = copy_model(column_dtypes=None)
    with pytest.raises(
        BentoMLException, match=rf"{stored.tag} was saved by an earlier .*make train"
    ):
        ModelReference("copy:latest", House).resolve()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"a: [", b"name: copy", b"name: copy\nversion: x\nmetadata: []"]
)
def test_model_with_damaged_metadata_is_rejected(copy_model, content):
    """The error is the same whether the encoding, the YAML, a field or a type is wrong."""
    Path(copy_model().path_of("model.yaml")).write_bytes(content)
    reference = ModelReference("copy:latest", House).pinned()
    service_image(reference)  # service.py calls it before the model is resolved
    with pytest.raises(BentoMLException, match=r"no copy:.* saved by train.py"):
        reference.resolve()


def test_supervisor_checks_the_model_without_importing_its_runtime(model):
    """The imports take time and memory that only workers need."""
    code = (
        "import sys, service; service.model_reference.resolve();"
        "print({'sklearn', 'onnxruntime'} & sys.modules.keys())"
    )
    assert run("python", "-c", code).stdout == "set()\n"


def test_service_pins_the_model_that_is_newest_at_import(model):
    """The image is built for this version. Without a model the tag stays the same."""
    assert ModelReference("house_price:latest", House).pinned().tag == model.tag
    assert ModelReference("nobody:latest", House).pinned().tag.version == "latest"


def test_number_beyond_float32_is_predicted_like_any_large_number(regressor):
    """The trees compare float32 values. The overflow raises no warning."""
    rows = [tuple((EXAMPLE | {"CRIM": crime}).values()) for crime in (1e6, 1e308)]
    large, huge = regressor.predict(rows)
    assert large == huge


class Fuel(StrEnum):
    """The fuel of a car."""

    PETROL = "petrol"
    DIESEL = "diesel"


class Car(BaseModel):
    """A record with a feature of each kind: float, integer, Enum, Literal and boolean."""

    model_config = ConfigDict(**REQUIRED_CONFIG)

    KM: float
    SEATS: int = Field(ge=1, le=9)
    FUEL: Fuel = Field(description="What it burns")
    BODY: Literal["estate, long", "van: high"]
    GARAGED: bool


CAR = {"KM": 9.5, "SEATS": 5, "FUEL": "petrol", "BODY": "van: high", "GARAGED": True}


def test_feature_schema_contains_the_categories():
    """Also those of an Enum, which pydantic puts in `$defs`."""
    features = feature_schemas(Car)
    assert features["FUEL"] == {
        "enum": ["petrol", "diesel"],
        "type": "string",
        "title": "Fuel",
        "description": "What it burns",
    }
    assert features["BODY"]["enum"] == ["estate, long", "van: high"]
    assert features["GARAGED"]["type"] == "boolean"
    assert feature_schemas(House) == House.model_json_schema()["properties"]


CARS = [
    CAR,
    CAR | {"KM": 3.5, "GARAGED": False},
    CAR | {"SEATS": 2, "BODY": "estate, long"},
    CAR | {"KM": 1.5, "SEATS": 3, "GARAGED": False},
]
PRICES = pd.Series([4.0, 3.0, 2.5, 1.5])


def make_regressor(categories, booleans):
    """Return an unfitted regressor that encodes these columns, given by name or by number."""
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encoder, categories), (encoder, booleans))
    return make_pipeline(columns, LinearRegression())


def fit_on_array(X):
    """Fit on an array, whose columns have numbers."""
    return make_regressor([2, 3], [4]).fit(X.to_numpy(), PRICES)


def fit_on_frame(X):
    """Fit on a DataFrame, whose columns have names and types."""
    booleans = make_column_selector(dtype_include=bool)
    return make_regressor(["FUEL", "BODY"], booleans).fit(X, PRICES)


@pytest.fixture(scope="module", params=[fit_on_array, fit_on_frame])
def car_regressor(request):
    """A regressor on a model of cars, and the estimator's predictions for its training data."""
    schemas = feature_schemas(Car)
    X = to_frame([tuple(car.values()) for car in CARS], schemas)
    fitted = request.param(X)
    target = {"name": "PRICE", "description": "Price", "unit": "$"}
    data = Split(X, X, PRICES, PRICES)
    saved = save("cars", fitted, data, Car, {}, target, "")
    expected = fitted.predict(X if request.param is fit_on_frame else X.to_numpy())
    yield Regressor(ModelReference("cars:latest", Car).resolve()), expected.tolist()
    bentoml.models.delete(saved.tag)


def test_regressor_predicts_like_its_estimator(car_regressor):
    """For features of all kinds, whether the estimator was fitted on an array or a DataFrame."""
    regressor, expected = car_regressor
    records = TypeAdapter(list[Car]).validate_json(json.dumps(CARS))
    expected = pytest.approx(expected, rel=1e-12)
    assert regressor.predict([to_row(record) for record in records]) == expected
    assert [regressor.predict([to_row(record)])[0] for record in records] == expected
