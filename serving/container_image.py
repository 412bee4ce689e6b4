"""The image that `bentoml containerize` builds: Python, the packages and the Bento."""

import os
from platform import python_version_tuple

from bentoml.images import Image

PYTHON = ".".join(python_version_tuple()[:2])

# On a distribution that BentoML knows it first installs compilers, git and gnupg2, which take
# 583 MB. No package of requirements-serve.txt needs compiling.
IMAGE = Image(base_image=os.environ.get("BASE_IMAGE") or f"python:{PYTHON}-slim", distro="none")

ENVS = [
    # The package index, if it is not PyPI. BentoML passes it to the build as a secret, which leaves
    # no trace in the image.
    {"name": "UV_DEFAULT_INDEX", "stage": "build"},
    # Otherwise BentoML reports each start over the internet.
    {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
]
