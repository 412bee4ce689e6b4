"""The image of a Bento: packages besides requirements-serve.txt, and the files that it needs."""

import shutil
from pathlib import Path

import attrs
import bentoml
import pytest
from bentoml.exceptions import BentoMLException

from house import House
from serving._bentoml.container_image import service_image
from serving.model import ModelReference
from tests.helpers.commands import ROOT


@pytest.fixture
def store_copy(model):
    """A function that stores a copy of the trained model's metadata, with another inference."""
    stored = []

    def store(**inference):
        metadata = model.info.metadata
        metadata = metadata | {"inference": metadata["inference"] | inference}
        with bentoml.models.create("image_copy", metadata=metadata) as copy:
            stored.append(copy.tag)

    yield store
    for tag in stored:
        bentoml.models.delete(tag)


def test_exported_model_needs_no_more_packages(model):
    """ONNX Runtime is in requirements-serve.txt."""
    assert not service_image(ModelReference("house_price:latest", House)).python_requirements


def test_unexported_model_gets_the_packages_of_its_training(store_copy):
    """The versions are exact, and a newer model does not replace the pinned one."""
    store_copy(runtime="scikit-learn", packages=["scikit-learn==1.2.3", "scipy==4.5.6"])
    reference = ModelReference("image_copy:latest", House).pinned()
    image = service_image(reference)
    assert image.python_requirements.split() == ["scikit-learn==1.2.3", "scipy==4.5.6"]
    store_copy()
    assert reference.stored.info.metadata["inference"]["runtime"] == "scikit-learn"


def test_missing_model_adds_nothing():
    """The supervisor, which imports the service, says what to do."""
    assert not service_image(ModelReference("nobody:latest", House)).python_requirements


@pytest.fixture
def bento_folder(tmp_path):
    """The folder of a Bento, as BentoML hands it to the image: its `src` has the service."""
    src = tmp_path / "src"
    shutil.copytree(ROOT / "serving", src / "serving")
    for name in ("service.py", "house.py"):
        shutil.copy(ROOT / name, src)
    return tmp_path


# BentoML's `freeze` finds its entrypoint.sh with `importlib.resources.path`.
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


def freeze(bento_folder):
    """Write the files of the image of the newest copy, as `bentoml build` does."""
    image = service_image(ModelReference("image_copy:latest", House))
    # BentoML makes such a copy to add what bentofile.yaml says.
    return attrs.evolve(image, lock_python_packages=False).freeze(bento_folder, [])


@pytest.mark.parametrize("missing", ["house.py", "serving/settings.py"])
def test_bento_without_a_file_that_service_py_imports_is_rejected(
    store_copy, bento_folder, missing
):
    """It may import the file directly or through another file."""
    store_copy()
    (bento_folder / "src" / missing).unlink()
    message = f"service.py needs {missing}, .* add /{missing} to `include` in bentofile.yaml"
    with pytest.raises(BentoMLException, match=message):
        freeze(bento_folder)


def test_bento_without_a_file_that_the_model_needs_is_rejected(store_copy, bento_folder):
    """The error names all missing files, and a build without missing files succeeds."""
    files = ["features/dates.py", "steps.py"]
    store_copy(runtime="scikit-learn", project_files=files)
    for missing in ("features/dates.py, /steps.py", "steps.py"):
        with pytest.raises(BentoMLException, match=f"The model needs .* add /{missing} to"):
            freeze(bento_folder)
        path = bento_folder / "src" / missing.partition(",")[0]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    freeze(bento_folder)
    assert Path(bento_folder, "env/docker/Dockerfile").exists()


def test_bento_without_a_file_of_the_page_is_rejected(store_copy, bento_folder):
    """A customized bentofile.yaml may lack the line that includes them."""
    store_copy()
    missing = "serving/http/static/try/main.js"
    (bento_folder / "src" / missing).unlink()
    with pytest.raises(BentoMLException, match=f"The page at /try needs {missing}, "):
        freeze(bento_folder)


def test_exported_model_needs_only_the_files_of_service_py(store_copy, bento_folder):
    """ONNX Runtime imports no module of the project."""
    store_copy()
    freeze(bento_folder)
    assert Path(bento_folder, "env/docker/Dockerfile").exists()
