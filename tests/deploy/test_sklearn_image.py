"""The image of a model that can't be exported: scikit-learn predicts in it."""

import re
import shutil

import pytest

from house import EXAMPLE
from tests.helpers.commands import ROOT, run
from tests.helpers.containers import running_container
from tests.helpers.package_index import PRIVATE_INDEX

pytestmark = [pytest.mark.docker, pytest.mark.slow]  # builds an image

NOT_IN_A_CLONE = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache")
STEP = '''
"""A step of the pipeline, in a module that the Bento includes."""

import numpy as np


def to_logarithms(X):
    """Return log(1 + x) of each feature."""
    return np.log1p(X)
'''
FIT = """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVR

    import steps

    pipeline = make_pipeline(FunctionTransformer(steps.to_logarithms), StandardScaler(), SVR())
    return pipeline.fit(X_train.to_numpy(), y_train)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone whose train.py fits a support vector machine behind a function."""
    path = tmp_path_factory.mktemp("svr") / "clone"
    shutil.copytree(ROOT, path, ignore=NOT_IN_A_CLONE)
    (path / ".venv").symlink_to(ROOT / ".venv")
    (path / "steps.py").write_text(STEP.lstrip())
    source = (path / "train.py").read_text()
    signature = re.search(r'^def fit.*?:\n    """.*?"""\n', source, re.MULTILINE | re.DOTALL)[0]
    (path / "train.py").write_text(source.replace(signature, signature + FIT.lstrip("\n")))
    bentofile = (path / "bentofile.yaml").read_text()
    (path / "bentofile.yaml").write_text(bentofile.replace("include:", "include:\n  - /steps.py"))
    return path


def test_image_predicts_with_scikit_learn_in_the_versions_of_the_training(
    engine, clone, tmp_path, monkeypatch
):
    """Make train says why and what it costs; the packages come into the image without an edit."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    trained = run("make", "train", cwd=clone)
    assert "Served by scikit-learn" in trained.stdout
    assert "FunctionTransformer calls a function" in trained.stdout
    assert re.search(r"takes [\d.]+ ms for 1 row, [\d.]+ ms for 64", trained.stdout)
    tag = {"TAG": "house_price:svr", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    output = run("make", "image", cwd=clone, timeout=900, **tag).stdout
    (command,) = re.findall(r"^ +(docker run .*)$", output, re.MULTILINE)
    try:
        with running_container(command) as client:
            response = client.post("/predict", json=EXAMPLE)
            inference = client.get("/model").json()["inference"]
            expected = predict_in(clone, tmp_path)
    finally:
        run("docker", "rmi", "--force", "house_price:svr")
    assert response.json() == {"prediction": pytest.approx(expected, rel=1e-9)}
    assert inference["runtime"] == "scikit-learn"
    assert {name.partition("==")[0] for name in inference["packages"]} >= {
        "scikit-learn",
        "scipy",
        "joblib",
        "threadpoolctl",
    }


def predict_in(clone, store):
    """Return the prediction of the model in a store, with the modules of a clone."""
    code = (
        "import bentoml, house; model = bentoml.sklearn.load_model('house_price:latest');"
        "print(model.predict([list(house.EXAMPLE.values())])[0])"
    )
    return float(run("python", "-c", code, cwd=clone, BENTOML_HOME=str(store)).stdout)
