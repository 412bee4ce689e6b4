"""The choice of the runtime of the service: ONNX Runtime or scikit-learn."""

import pickle
from importlib.metadata import version

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVR

from house import EXAMPLE, FEATURES, House, LabelledHouse
from serving.regressor import load_model
from train import PROJECT
from training.data import parse_csv, split_train_test
from training.fitting.evaluation import takes_frame
from training.fitting.inference import (
    choose_inference,
    describe_sklearn_inference,
    exact_requirements,
    golden_predictions,
)
from training.fitting.store import to_pickle


@pytest.fixture(scope="module")
def data():
    """The training data, split."""
    return split_train_test(parse_csv(PROJECT.data.read_text(), LabelledHouse))


def test_equal_export_is_served_by_onnx_runtime(data, capsys):
    """Training prints the comparison and both times."""
    forest = RandomForestRegressor(5, random_state=0).fit(data.X_train.to_numpy(), data.y_train)
    inference, content = choose_inference(forest, {"steps", "tqdm"}, data, House)
    assert (inference.runtime, bool(content)) == ("onnxruntime", True)
    assert (inference.packages, inference.project_files) == ([], [])
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
    """Training prints the reason and the time of a prediction."""
    estimator.fit(data.X_train.to_numpy(), data.y_train)
    _, modules = to_pickle(estimator)
    inference, content = choose_inference(estimator, modules, data, House)
    assert (inference.runtime, content) == ("scikit-learn", None)
    assert inference.project_files == []
    assert reason in inference.reason
    assert inference.milliseconds["scikit-learn"].keys() == {1, 64}
    printed = capsys.readouterr().out
    assert reason in printed
    assert "ms for 1 row" in printed


def test_packages_of_scikit_learn_have_exact_versions():
    """A Bento installs them. Without a version it would install the newest SciPy."""
    packages = exact_requirements(["scikit-learn"])
    assert all("==" in package for package in packages)
    names = {package.partition("==")[0] for package in packages}
    assert names >= {"scikit-learn", "scipy", "joblib", "threadpoolctl"}
    assert "pandas" not in names


class NameSelector(BaseEstimator, TransformerMixin):
    """Selects columns by name, but has no `feature_names_in_` after fitting."""

    def fit(self, X, y=None):
        """Do nothing."""
        return self

    def transform(self, X):
        """Return two columns."""
        return X[["RM", "LSTAT"]].to_numpy()


class NamedTrees(RandomForestRegressor):
    """Makes up names if it is fitted on an array, as LightGBM does."""

    @property
    def feature_names_in_(self):
        """Names that are not those of the features."""
        return np.array([f"Column_{n}" for n in range(self.n_features_in_)])


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")  # of made-up names
@pytest.mark.parametrize(
    ("estimator", "as_frame"),
    [
        (RandomForestRegressor(5), True),
        (RandomForestRegressor(5), False),
        (NamedTrees(5), False),
        (make_pipeline(NameSelector(), RandomForestRegressor(5)), True),
        (make_pipeline(FunctionTransformer(np.log1p), SVR()), False),
    ],
    ids=["frame", "array", "made-up names", "names, but no attribute", "no names"],
)
def test_input_is_what_the_estimator_was_fitted_on(data, estimator, as_frame):
    """Its attribute `feature_names_in_` may be missing or wrong."""
    estimator.fit(data.X_train if as_frame else data.X_train.to_numpy(), data.y_train)
    assert takes_frame(estimator, data.X_train) is as_frame
    inference = describe_sklearn_inference(estimator, [], data.X_train, House, "")
    assert inference.input == ("frame" if as_frame else "array")
    assert any(package.startswith("pandas==") for package in inference.packages) is as_frame
    served = load_model(pickle.dumps(estimator), inference, dict.fromkeys(FEATURES, "float64"))
    rows = list(data.X_test.itertuples(index=False, name=None))
    X_test = data.X_test if as_frame else data.X_test.to_numpy()
    assert served.predict(rows).tolist() == estimator.predict(X_test).tolist()


def test_requirements_of_requirements_are_pinned():
    """Packages that are not installed are excluded."""
    packages = {package.partition("==")[0] for package in exact_requirements(["bentoml", "absent"])}
    assert packages >= {"bentoml", "aiohttp", "multidict", "pyyaml"}  # the third through aiohttp
    assert "absent" not in packages


def test_modules_and_packages_of_an_unexported_pickle_are_recorded(data, tmp_path, monkeypatch):
    """Those that the pickle names, and those that the modules of the project import."""
    (tmp_path / "logarithms.py").write_text("import scaling, tqdm\ndef logs(X): return X")
    (tmp_path / "scaling.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("serving.imports.ROOT", tmp_path)
    import logarithms

    estimator = make_pipeline(FunctionTransformer(logarithms.logs), RandomForestRegressor(2))
    estimator.fit(data.X_train.to_numpy(), data.y_train)
    _, modules = to_pickle(estimator)
    inference, _ = choose_inference(estimator, modules, data, House)
    assert inference.project_files == ["logarithms.py", "scaling.py"]
    assert f"tqdm=={version('tqdm')}" in inference.packages


def test_golden_predictions_are_those_of_scikit_learn(data):
    """For 48 rows of the data and for the rows of the probes."""
    forest = RandomForestRegressor(5, random_state=0).fit(data.X_train.to_numpy(), data.y_train)
    golden = golden_predictions(forest, data.X_train, House, [tuple(EXAMPLE.values())])
    assert golden["predictions"] == forest.predict(golden["rows"]).tolist()
    assert len(golden["rows"]) > 48
    assert golden["rows"][-1] == tuple(EXAMPLE.values())
