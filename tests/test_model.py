"""The model reference, which refuses what the service could not serve, and the regressor."""

import pickle
import shutil
from pathlib import Path

import bentoml
import pytest
from bentoml.exceptions import BentoMLException
from conftest import run
from prometheus_client import REGISTRY
from pydantic import create_model
from sklearn.dummy import DummyRegressor

from house import EXAMPLE, FEATURES, House
from serving.model import MODEL_FILE, RecordModel
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
    for load in (RecordModel("copy:latest", House).resolve, lambda: Regressor(stored)):
        with pytest.raises(BentoMLException, match=f"{fault}.* run `make train`"):
            load()


def test_pickle_that_training_did_not_write_is_not_run(copy_of, tmp_path):
    """Neither by the supervisor nor by a worker; this one would create a file."""
    malice = pickle.dumps(Malice(tmp_path / "run"))
    stored = copy_of(lambda _: malice)
    for load in (RecordModel("copy:latest", House).resolve, lambda: Regressor(stored)):
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
        RecordModel("copy:latest", House).resolve()


def test_model_of_another_scikit_learn_is_refused_unless_allowed(copy_of, model):
    """With both versions, and with what to do."""
    copy_of(versions=model.info.metadata["versions"] | {"scikit-learn": "1.2.3"})
    with pytest.raises(BentoMLException, match=r"1\.2\.3, and .* `make train`, or set ALLOW_OTHER"):
        RecordModel("copy:latest", House).resolve()
    assert RecordModel("copy:latest", House, allow_other_sklearn=True).resolve().tag.name == "copy"


def test_supervisor_checks_the_model_without_scikit_learn(model):
    """To import it takes 0.8 s and 100 MB; ALLOW_OTHER_SKLEARN reaches the check."""
    code = (
        "import sys, service; service.model.resolve();"
        "print(service.model.allow_other_sklearn, 'sklearn' in sys.modules)"
    )
    done = run("python", "-c", code, ALLOW_OTHER_SKLEARN="true")
    assert done.stdout.split() == ["True", "False"]


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
