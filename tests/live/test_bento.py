"""`bentoml serve` of a folder and of a Bento: its model, its files, its workers, its logs."""

import shutil
from pathlib import Path

import bentoml
import psutil
import pytest
from bentoml.models import BentoModel

from house import EXAMPLE
from tests.helpers.commands import ROOT, is_ready, run, running_server, wait_until
from tests.helpers.tutorial import TUTORIAL_RESPONSE
from train import PROJECT

pytestmark = pytest.mark.slow  # Bentos are built, and a server is started for each test


@pytest.fixture(scope="module")
def bento(model):
    """A Bento, built from this repository, where most files do not belong in a Bento."""
    build = run("bentoml", "build", "--output", "tag")
    return bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))


def test_shutdown_flushes_the_access_log(model, tmp_path):
    """The log is written in the background; the last requests are in it, too."""
    with running_server("bentoml", "serve", log=tmp_path / "log", ACCESS_LOG="json") as client:
        for number in range(100):
            client.post("/predict", json=EXAMPLE, headers={"X-Request-ID": f"number-{number}"})
    log = (tmp_path / "log").read_text()
    assert all(f'"request_id": "number-{number}"' in log for number in range(100))


def test_bento_contains_only_files_for_serving(bento, model):
    """It contains the service, the record type and the model; no tests, data or training code."""
    src = bento.path_of("src")
    files = {path.relative_to(src).as_posix() for path in Path(src).rglob("*.py")}
    serving_files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    assert files == {"service.py", "house.py"} | serving_files
    assert not Path(src, "data").exists()
    assert [info.tag for info in bento.info.all_models] == [model.tag]


@pytest.fixture
def train_newer_model(model, tmp_path):
    """A function that trains a newer model on less data, which is deleted after the test."""
    lines = PROJECT.data.read_text().splitlines(keepends=True)
    (tmp_path / "less.csv").write_text("".join(lines[:200]))

    def train():
        run("python", "train.py", "--data", tmp_path / "less.csv")
        return bentoml.models.get("house_price:latest").tag

    yield train
    newest = bentoml.models.get("house_price:latest").tag
    if newest != model.tag:
        bentoml.models.delete(newest)


def test_bento_serves_the_model_that_it_was_built_with(bento, model, train_newer_model, tmp_path):
    """It does so even if the store has a newer model."""
    assert train_newer_model() != model.tag
    with running_server("bentoml", "serve", "house_price:latest", log=tmp_path / "log") as client:
        response = client.post("/predict", json=EXAMPLE)
        description = client.get("/docs.json").json()
    assert response.json() == TUTORIAL_RESPONSE
    assert response.headers["x-model-tag"] == str(model.tag)
    assert description["info"]["version"] == bento.tag.version


def test_replacement_worker_serves_the_pinned_model(model, train_newer_model, tmp_path):
    """It does so even if a newer model was saved after the start of the service."""
    with running_server("bentoml", "serve", log=tmp_path / "log") as client:
        train_newer_model()
        (worker,) = psutil.Process(client.server.pid).children()
        worker.kill()
        worker.wait()
        wait_until(lambda: is_ready(client), client.log)
        response = client.post("/predict", json=EXAMPLE)
    assert response.headers["x-model-tag"] == str(model.tag)


def test_workers_setting_starts_two_workers(model, tmp_path):
    """Each worker is a process of its own."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        assert len(psutil.Process(client.server.pid).children()) == 2
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


@pytest.fixture
def bento_with_model(bento, model, tmp_path):
    """The folder of a Bento that contains its model, as in an image; it needs no model store."""
    path = shutil.copytree(bento.path, tmp_path / "bento")
    BentoModel(model.tag).resolve(path / "models")
    return path


def test_damaged_model_in_image_aborts_the_start(bento_with_model, tmp_path):
    """The supervisor checks the model, before it starts workers that would fail repeatedly."""
    command, home = ("bentoml", "serve", str(bento_with_model)), str(tmp_path / "home")
    with running_server(*command, log=tmp_path / "log", BENTOML_HOME=home) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
    (model_file,) = bento_with_model.rglob("model.onnx")
    model_file.write_bytes(model_file.read_bytes()[:-1])
    failed = run(*command, check=False, BENTOML_HOME=home)
    assert failed.returncode == 1
    assert "is not as train.py saved it" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_missing_model_file_aborts_start_and_build(model, tmp_path):
    """The supervisor checks the model before it starts workers, and the build before it packs."""
    store = shutil.copytree(Path(model.path).parents[1], tmp_path / "models")
    (model_file,) = store.rglob(f"{model.tag.version}/model.onnx")
    model_file.unlink()
    for command in ("serve", "build"):
        failed = run(
            "bentoml", command, check=False, BENTOML_HOME=str(tmp_path), MODEL=str(model.tag)
        )
        assert failed.returncode == 1
        assert "model.onnx: No such file or directory): restore it" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_build_fails_if_include_lacks_a_module_of_the_service(model, tmp_path):
    """The message says what to add. Otherwise the image would be built, and could not start."""
    for name in ("service.py", "house.py", "requirements-serve.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "serving", tmp_path / "serving")
    bentofile = (ROOT / "bentofile.yaml").read_text()
    (tmp_path / "bentofile.yaml").write_text(bentofile.replace("  - /house.py\n", ""))
    failed = run("bentoml", "build", cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "service.py needs house.py, which the Bento lacks" in failed.stderr
    assert "add /house.py to `include` in bentofile.yaml" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_missing_model_aborts_the_start_with_instructions(tmp_path):
    """The message names the command that trains a model."""
    failed = run("bentoml", "serve", check=False, BENTOML_HOME=str(tmp_path))
    assert failed.returncode == 1
    assert "run `make train`" in failed.stderr
    assert "Traceback" not in failed.stderr
