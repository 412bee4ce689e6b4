"""The image of a model that can't be exported: scikit-learn predicts in it."""

import re

import pytest

from house import EXAMPLE
from tests.helpers.clones import clone_repository
from tests.helpers.commands import run
from tests.helpers.containers import running_container
from tests.helpers.package_index import PRIVATE_INDEX

pytestmark = [pytest.mark.docker, pytest.mark.slow]  # builds an image

STEP = '''
"""A step of the pipeline; scikit-learn does not require tqdm."""

import numpy as np
import tqdm


def to_logarithms(X):
    """Return log(1 + x) of each feature."""
    with tqdm.tqdm(total=1, disable=True):
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
    clone_repository(path)
    (path / "steps.py").write_text(STEP.lstrip())
    source = (path / "train.py").read_text()
    signature = re.search(r'^def fit.*?:\n    """.*?"""\n', source, re.MULTILINE | re.DOTALL)[0]
    (path / "train.py").write_text(source.replace(signature, signature + FIT.lstrip("\n")))
    bentofile = (path / "bentofile.yaml").read_text()
    (path / "bentofile.yaml").write_text(
        bentofile.replace("include:\n", "include:\n  - /steps.py\n")
    )
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A model store that has only the model of the clone."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("store")
        patch.setenv("BENTOML_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def trained(clone, store):
    """The finished `make train`."""
    return run("make", "train", cwd=clone)


def test_training_says_why_it_does_not_export(trained):
    """It also says what that costs."""
    assert "Served by scikit-learn" in trained.stdout
    assert "FunctionTransformer calls a function" in trained.stdout
    assert re.search(r"takes [\d.]+ ms for 1 row, [\d.]+ ms for 64", trained.stdout)


def test_build_fails_until_include_names_the_module_of_the_model(clone, trained):
    """The message says what to add; the image would not start."""
    bentofile = clone / "bentofile.yaml"
    original = bentofile.read_text()
    bentofile.write_text(original.replace("  - /steps.py\n", ""))
    failed = run("bentoml", "build", cwd=clone, check=False)
    bentofile.write_text(original)
    assert failed.returncode == 1
    assert "The model needs steps.py, which the Bento lacks" in failed.stderr
    assert "add /steps.py to `include` in bentofile.yaml" in failed.stderr
    assert "Traceback" not in failed.stderr
    run("bentoml", "build", cwd=clone)


def test_image_predicts_with_scikit_learn_in_the_versions_of_the_training(
    engine, clone, store, trained
):
    """The packages of scikit-learn and of the module come into the image without an edit."""
    tag = {"TAG": "house_price:svr", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    output = run("make", "image", cwd=clone, timeout=900, **tag).stdout
    (command,) = re.findall(r"^ +(docker run .*)$", output, re.MULTILINE)
    try:
        with running_container(command) as client:
            response = client.post("/predict", json=EXAMPLE)
            inference = client.get("/model").json()["inference"]
            expected = predict_in(clone, store)
    finally:
        run("docker", "rmi", "--force", "house_price:svr")
    assert response.json() == {"prediction": pytest.approx(expected, rel=1e-9)}
    assert inference["runtime"] == "scikit-learn"
    assert inference["project_files"] == ["steps.py"]
    assert {name.partition("==")[0] for name in inference["packages"]} >= {
        "scikit-learn",
        "scipy",
        "joblib",
        "threadpoolctl",
        "tqdm",
    }


def predict_in(clone, store):
    """Return the prediction of the model in a store, with the modules of a clone."""
    code = (
        "import bentoml, house; model = bentoml.sklearn.load_model('house_price:latest');"
        "print(model.predict([list(house.EXAMPLE.values())])[0])"
    )
    return float(run("python", "-c", code, cwd=clone, BENTOML_HOME=str(store)).stdout)
