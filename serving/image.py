"""The image that `bentoml containerize` makes: Python, the packages, the Bento."""

import os
from platform import python_version_tuple

from bentoml.images import Image

PYTHON = ".".join(python_version_tuple()[:2])

# On a distribution that it knows BentoML installs compilers, git and gnupg2 first, 583 MB. No
# package of requirements.txt has to be compiled.
IMAGE = Image(base_image=os.environ.get("BASE_IMAGE") or f"python:{PYTHON}-slim", distro="none")

ENVS = [
    # The package index, if it is not PyPI: BentoML hands it to the build as a secret, so that the
    # image does not tell it.
    {"name": "UV_DEFAULT_INDEX", "stage": "build"},
    # BentoML reports each start over the internet otherwise.
    {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
]
