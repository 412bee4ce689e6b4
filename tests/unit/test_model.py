"""The model reference, which refuses what the service could not serve, and the regressor."""

import json
import pickle
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Literal

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

from house import EXAMPLE, FEATURES, House
from serving.model import (
    MODEL_FILE,
    REQUIRED_CONFIG,
    ModelReference,
    check_record_type,
    feature_schemas,
    probe_rows,
)
from serving.records import to_row
from serving.regressor import Regressor
from tests.helpers.commands import run
from training.store import save


@pytest.fixture(scope="module")
def regressor(model):
    """The regressor of the trained model."""
    return Regressor(model)


def record_type(*features):
    """Return a record type with these features."""
    return create_model("Other", **dict.fromkeys(features, (float, ...)))


def test_model_of_the_record_type_is_resolved(model):
    """What the tag names is what one gets."""
    assert ModelReference("house_price:latest", House).resolve().tag == model.tag


@pytest.mark.parametrize(
    ("features", "difference"),
    [
        pytest.param(FEATURES[1:], r"\(CRIM\)", id="feature missing"),
        pytest.param((*FEATURES, "POOL"), r"\(POOL\)", id="feature unknown"),
        pytest.param(("POOL", *FEATURES[1:]), r"\(CRIM, POOL\)", id="feature renamed"),
        pytest.param(FEATURES[::-1], r"\(their order\)", id="other order"),
    ],
)
def test_model_of_other_features_is_refused(model, features, difference):
    """With the difference, and with what to do."""
    reference = ModelReference("house_price:latest", record_type(*features))
    with pytest.raises(BentoMLException, match=f"{difference}: run `make train`"):
        reference.resolve()
    with pytest.raises(BentoMLException, match=difference):
        reference.to_info()


@pytest.mark.parametrize("part", REQUIRED_CONFIG)
def test_record_type_that_is_not_strict_is_refused(model, part):
    """With what it needs, and so is one that hands out members of an Enum for strings."""

    class Lax(House):
        model_config = ConfigDict(**{part: None})

    with pytest.raises(BentoMLException, match=r"Lax needs model_config = ConfigDict\(strict=True"):
        ModelReference("house_price:latest", Lax).resolve()


@pytest.mark.parametrize("bounds", [{}, {"ge": 0}, {"le": 9}])
def test_integer_without_bounds_is_refused(model, bounds):
    """One of 400 digits would fail all requests of a batch: no float holds it."""

    class Loose(House):
        RAD: int = Field(**bounds)

    with pytest.raises(BentoMLException, match=r"Loose\.RAD needs ge and le"):
        ModelReference("house_price:latest", Loose).resolve()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("district", str, "has to be a float, an int, a bool, or one of the strings"),
        ("rooms", float | None, "has to be a float"),
        ("rooms", list[float], "has to be a float"),
        ("timestamp", float, "choose another name"),
        ("prediction", bool, "choose another name"),
    ],
)
def test_feature_that_can_not_be_one_is_refused(name, kind, words):
    """Free text, a gap, and what would be lost in the prediction log."""
    record_type = create_model("Odd", __base__=House, **{name: kind})
    with pytest.raises(BentoMLException, match=rf"Odd\.{name} .*{words}"):
        check_record_type(record_type)


def test_target_may_be_any_number():
    """It is not sent."""
    labelled = create_model("Labelled", __base__=House, prediction=int)
    check_record_type(labelled, "prediction")


def test_missing_model_is_refused(model):
    """With what to do."""
    with pytest.raises(BentoMLException, match=r"no nobody:latest .* run `make train`"):
        ModelReference("nobody:latest", House).resolve()


def test_model_that_train_did_not_save_is_refused(model):
    """It may be anything."""
    bentoml.sklearn.save_model("stranger", DummyRegressor().fit([[0]], [0]))
    with pytest.raises(BentoMLException, match=r"no stranger:.* saved by train.py"):
        ModelReference("stranger:latest", House).resolve()


class Malice:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        """Return the call that unpickling makes."""
        return Path.touch, (self.path,)


@pytest.fixture
def copy_of(model):
    """A function that stores the model's file and metadata once more, each changed a little."""

    def copy(pickled=lambda content: content, **metadata):
        with bentoml.models.create("copy", metadata=model.info.metadata | metadata) as stored:
            content = pickled(Path(model.path_of(MODEL_FILE)).read_bytes())
            if content is not None:
                Path(stored.path_of(MODEL_FILE)).write_bytes(content)
        return bentoml.models.get(stored.tag)

    yield copy
    shutil.rmtree(Path(model.path).parents[1] / "copy")


def flip(content):
    """Return a content with one bit changed, in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(lambda _: None, "No such file", id="missing"),
        pytest.param(lambda _: b"", "content has changed", id="empty"),
        pytest.param(lambda content: content[:-1], "content has changed", id="cut"),
        pytest.param(lambda content: content + b"\n", "content has changed", id="longer"),
        pytest.param(flip, "content has changed", id="bit flipped"),
    ],
)
def test_model_file_that_training_did_not_write_is_refused(copy_of, change, fault):
    """By the supervisor and by a worker, with what to do."""
    stored = copy_of(change)
    for load in (ModelReference("copy:latest", House).resolve, lambda: Regressor(stored)):
        with pytest.raises(BentoMLException, match=f"{fault}.* run `make train`"):
            load()


def test_pickle_that_training_did_not_write_is_not_run(copy_of, tmp_path):
    """Neither by the supervisor nor by a worker; this one would create a file."""
    malice = pickle.dumps(Malice(tmp_path / "run"))
    stored = copy_of(lambda _: malice)
    for load in (ModelReference("copy:latest", House).resolve, lambda: Regressor(stored)):
        with pytest.raises(BentoMLException, match="content has changed"):
            load()
    assert not (tmp_path / "run").exists()
    pickle.loads(malice)  # noqa: S301 - it would have
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"a: [", b"name: copy", b"name: copy\nversion: x\nmetadata: []"]
)
def test_damaged_metadata_are_refused(copy_of, content):
    """In words, wherever the damage shows."""
    Path(copy_of().path_of("model.yaml")).write_bytes(content)
    with pytest.raises(BentoMLException, match=r"no copy:.* saved by train.py"):
        ModelReference("copy:latest", House).resolve()


def test_model_of_another_scikit_learn_is_refused_unless_allowed(copy_of, model):
    """With both versions, and with what to do."""
    copy_of(versions=model.info.metadata["versions"] | {"scikit-learn": "1.2.3"})
    with pytest.raises(BentoMLException, match=r"1\.2\.3, and .* `make train`, or set ALLOW_OTHER"):
        ModelReference("copy:latest", House).resolve()
    assert (
        ModelReference("copy:latest", House, allow_other_sklearn=True).resolve().tag.name == "copy"
    )


def test_supervisor_checks_the_model_without_scikit_learn(model):
    """To import it takes 0.8 s and 100 MB; ALLOW_OTHER_SKLEARN reaches the check."""
    code = (
        "import sys, service; service.model_reference.resolve();"
        "print(service.model_reference.allow_other_sklearn, 'sklearn' in sys.modules)"
    )
    done = run("python", "-c", code, ALLOW_OTHER_SKLEARN="true")
    assert done.stdout.split() == ["True", "False"]


def test_number_too_large_for_the_trees_is_predicted_as_a_large_one(regressor):
    """Without a warning, although float32 cannot hold it."""
    rows = [tuple((EXAMPLE | {"CRIM": crime}).values()) for crime in (1e6, 1e308)]
    large, huge = regressor.predict(rows)
    assert large == huge


class Fuel(StrEnum):
    """What a car burns."""

    PETROL = "petrol"
    DIESEL = "diesel"


class Car(BaseModel):
    """A record with a feature of each kind."""

    model_config = ConfigDict(**REQUIRED_CONFIG)

    KM: float
    SEATS: int = Field(ge=1, le=9)
    FUEL: Fuel = Field(description="What it burns")
    BODY: Literal["estate, long", "van: high"]
    GARAGED: bool


CAR = {"KM": 9.5, "SEATS": 5, "FUEL": "petrol", "BODY": "van: high", "GARAGED": True}


def test_features_are_described_with_their_values():
    """Those of an Enum too, which pydantic describes elsewhere."""
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


def test_specimens_have_each_category_once():
    """So that a model that knows none but those of its training is found out before it serves."""
    rows = probe_rows(Car, CAR)
    assert rows[0] == tuple(CAR.values())
    assert [{row[n] for row in rows} for n in range(5)] == [
        {9.5},
        {5},
        {"petrol", "diesel"},
        {"estate, long", "van: high"},
        {True, False},
    ]


CARS = [
    CAR,
    CAR | {"KM": 3.5, "GARAGED": False},
    CAR | {"SEATS": 2, "BODY": "estate, long"},
    CAR | {"KM": 1.5, "SEATS": 3, "GARAGED": False},
]
PRICES = pd.Series([4.0, 3.0, 2.5, 1.5])


def pipeline(*columns):
    """Return a pipeline that encodes the categories, in columns by name or number, and fits."""
    categories, booleans = columns
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encoder, categories), (encoder, booleans))
    return make_pipeline(columns, LinearRegression())


def fit_on_arrays(X):
    """Fit on an array, whose columns have numbers."""
    return pipeline([2, 3], [4]).fit(X.to_numpy(), PRICES)


def fit_on_frames(X):
    """Fit on a DataFrame, whose columns have names and types."""
    booleans = make_column_selector(dtype_include=bool)
    return pipeline(["FUEL", "BODY"], booleans).fit(X, PRICES)


@pytest.fixture(scope="module", params=[fit_on_arrays, fit_on_frames])
def cars(request):
    """The regressor of a model of cars, and what it has to predict for those of the training."""
    X = pd.DataFrame(CARS)
    fitted = request.param(X)
    target = {"name": "PRICE", "description": "Price", "unit": "$"}
    saved = save("cars", fitted, X, {}, target, "")
    expected = fitted.predict(X if request.param is fit_on_frames else X.to_numpy())
    yield Regressor(ModelReference("cars:latest", Car).resolve()), expected.tolist()
    bentoml.models.delete(saved.tag)


def test_records_of_all_kinds_of_features_are_predicted(cars):
    """As the estimator does what it was fitted on, be it an array or a DataFrame."""
    regressor, expected = cars
    records = TypeAdapter(list[Car]).validate_json(json.dumps(CARS))
    assert regressor.predict([to_row(record) for record in records]) == expected
    assert [regressor.predict([to_row(record)]) for record in records] == [[y] for y in expected]
