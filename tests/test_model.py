"""The model reference, which refuses what the service could not serve, and the regressor."""

import bentoml
import pytest
from bentoml.exceptions import BentoMLException
from prometheus_client import REGISTRY
from pydantic import create_model
from sklearn.dummy import DummyRegressor

from house import EXAMPLE, FEATURES, House
from serving.model import RecordModel
from serving.regressor import Regressor


@pytest.fixture(scope="module")
def regressor(model):
    """The regressor of the trained model."""
    return Regressor(model)


def outside(feature):
    """Return how many values of a feature were counted as outside the training range."""
    labels = {"feature": feature}
    return REGISTRY.get_sample_value("feature_outside_training_range_total", labels) or 0


def record_type(*features):
    """Return a record type with these features."""
    return create_model("Other", **dict.fromkeys(features, (float, ...)))


def test_model_of_the_record_type_is_resolved(model):
    """What the tag names is what one gets."""
    assert RecordModel("house_price:latest", House).resolve().tag == model.tag


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
    reference = RecordModel("house_price:latest", record_type(*features))
    with pytest.raises(BentoMLException, match=f"{difference}: run `make train`"):
        reference.resolve()
    with pytest.raises(BentoMLException, match=difference):
        reference.to_info()


def test_missing_model_is_refused(model):
    """With what to do."""
    with pytest.raises(BentoMLException, match=r"no nobody:latest .* run `make train`"):
        RecordModel("nobody:latest", House).resolve()


def test_model_that_train_did_not_save_is_refused(model):
    """It may be anything."""
    bentoml.sklearn.save_model("stranger", DummyRegressor().fit([[0]], [0]))
    with pytest.raises(BentoMLException, match=r"no stranger:.* saved by train.py"):
        RecordModel("stranger:latest", House).resolve()


def test_values_outside_the_training_range_are_predicted_and_counted(regressor):
    """As often as they occur, by feature."""
    before = outside("RM"), outside("CRIM"), outside("TAX")
    rows = [tuple((EXAMPLE | change).values()) for change in ({"RM": 1}, {"RM": 50, "CRIM": 99})]
    assert len(regressor.predict(rows)) == 2
    assert (outside("RM"), outside("CRIM"), outside("TAX")) == (
        before[0] + 2,
        before[1] + 1,
        before[2],
    )


def test_ends_of_the_training_range_are_inside(regressor):
    """They were seen in training."""
    before = outside("CHAS")
    regressor.predict([tuple((EXAMPLE | {"CHAS": value}).values()) for value in (0, 1)])
    assert outside("CHAS") == before


def test_number_too_large_for_the_trees_is_predicted_as_a_large_one(regressor):
    """Without a warning, although float32 cannot hold it."""
    rows = [tuple((EXAMPLE | {"CRIM": crime}).values()) for crime in (1e6, 1e308)]
    large, huge = regressor.predict(rows)
    assert large == huge
