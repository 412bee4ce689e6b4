"""What predicts in the service, as training decides."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVR

from house import EXAMPLE, House, LabelledHouse
from train import PROJECT
from training.data import parse_csv, split
from training.inference import choose_inference, exact_requirements, golden_predictions


@pytest.fixture(scope="module")
def data():
    """The training data, split."""
    return split(parse_csv(PROJECT.data.read_text(), LabelledHouse))


def test_equal_export_is_served_by_onnx_runtime(data, capsys):
    """Training prints the comparison and both times."""
    forest = RandomForestRegressor(5, random_state=0).fit(data.X_train.to_numpy(), data.y_train)
    inference, content = choose_inference(forest, data, House)
    assert (inference.runtime, bool(content), inference.packages) == ("onnxruntime", True, [])
    assert inference.largest_difference <= 1e-12
    assert inference.milliseconds.keys() == {"onnxruntime", "scikit-learn"}
    assert "Served by ONNX Runtime" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        pytest.param(SVR(), "SVR", id="no double in ONNX Runtime"),
        pytest.param(
            make_pipeline(FunctionTransformer(np.log1p), RandomForestRegressor(2)),
            "FunctionTransformer calls a function",
            id="function",
        ),
        pytest.param(GaussianProcessRegressor(), "takes longer for one row", id="slower"),
    ],
)
def test_other_estimator_is_served_by_scikit_learn(data, capsys, estimator, reason):
    """Training prints why, and what it costs."""
    estimator.fit(data.X_train.to_numpy(), data.y_train)
    inference, content = choose_inference(estimator, data, House)
    assert (inference.runtime, content) == ("scikit-learn", None)
    assert reason in inference.reason
    assert inference.milliseconds["scikit-learn"].keys() == {1, 64}
    printed = capsys.readouterr().out
    assert reason in printed
    assert "ms for 1 row" in printed


def test_packages_of_scikit_learn_have_exact_versions():
    """A Bento installs them; without a version SciPy would be the newest."""
    packages = exact_requirements(["scikit-learn"])
    assert all("==" in package for package in packages)
    names = {package.partition("==")[0] for package in packages}
    assert names >= {"scikit-learn", "scipy", "joblib", "threadpoolctl"}
    assert "pandas" not in names


def test_golden_predictions_are_those_of_scikit_learn(data):
    """For some dozens of rows of the data, and those of the probes."""
    forest = RandomForestRegressor(5, random_state=0).fit(data.X_train.to_numpy(), data.y_train)
    golden = golden_predictions(forest, data.X_train, [tuple(EXAMPLE.values())])
    assert golden["predictions"] == forest.predict(golden["rows"]).tolist()
    assert len(golden["rows"]) > 48
    assert golden["rows"][-1] == tuple(EXAMPLE.values())
