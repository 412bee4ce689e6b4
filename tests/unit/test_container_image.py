"""The image of a Bento: what it installs besides requirements-serve.txt."""

import bentoml
import pytest

from house import House
from serving.container_image import service_image
from serving.model import ModelReference


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
    """In exact versions, and the model that is packed is the one whose packages they are."""
    store_copy(runtime="scikit-learn", packages=["scikit-learn==1.2.3", "scipy==4.5.6"])
    reference = ModelReference("image_copy:latest", House).pinned()
    image = service_image(reference)
    assert image.python_requirements.split() == ["scikit-learn==1.2.3", "scipy==4.5.6"]
    store_copy()
    assert reference.stored.info.metadata["inference"]["runtime"] == "scikit-learn"


def test_missing_model_adds_nothing():
    """The supervisor, which imports the service, says what to do."""
    assert not service_image(ModelReference("nobody:latest", House)).python_requirements
