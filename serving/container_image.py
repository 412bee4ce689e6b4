"""The image that `bentoml containerize` builds: Python, the packages and the Bento."""

import os
from platform import python_version_tuple

from bentoml.exceptions import BentoMLException
from bentoml.images import Image

from serving.model import ModelReference, TrainingMetadata

PYTHON = ".".join(python_version_tuple()[:2])
BASE_IMAGE = os.environ.get("BASE_IMAGE") or f"python:{PYTHON}-slim"

ENVS = [
    # The package index, if it is not PyPI. BentoML passes it to the build as a secret, which leaves
    # no trace in the image.
    {"name": "UV_DEFAULT_INDEX", "stage": "build"},
    # Otherwise BentoML reports each start over the internet.
    {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
]


def service_image(reference: ModelReference) -> Image:
    """Return the image for a service with a pinned model."""
    # On a distribution that BentoML knows it first installs compilers, git and gnupg2, which take
    # 583 MB. No package of requirements-serve.txt needs compiling.
    image = Image(base_image=BASE_IMAGE, distro="none")
    packages = runtime_packages(reference)
    return image.python_packages(*packages) if packages else image


def runtime_packages(reference: ModelReference) -> list[str]:
    """Return what the model's runtime needs besides requirements-serve.txt.

    Without a usable model there is nothing to add: starting or building the service says why.
    """
    try:
        model = reference.stored
        if model is None:
            return []
        return TrainingMetadata.model_validate(model.info.metadata).inference.packages
    except (BentoMLException, ExceptionGroup, LookupError, ValueError):
        return []
