"""The image that `bentoml containerize` builds: Python, the packages and the Bento.

The packages are those of requirements-serve.txt, which bentofile.yaml names, and those that the
model needs.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from platform import python_version_tuple
from typing import Any

import attrs
from bentoml.exceptions import BentoMLException
from bentoml.images import Image

from serving.http.try_page import STATIC
from serving.imports import find_imports
from serving.model import MODEL_READ_ERRORS, Inference, ModelReference, training_metadata

PYTHON = ".".join(python_version_tuple()[:2])
# An environment variable for the build, such as for a mirror; a running service does not use it.
BASE_IMAGE = os.environ.get("BASE_IMAGE") or f"python:{PYTHON}-slim"

ENVS = [
    # A package index other than PyPI. BentoML passes it to the build as a secret, which leaves no
    # trace in the image.
    {"name": "UV_DEFAULT_INDEX", "stage": "build"},
    # So that BentoML does not report its use over the internet (docs/settings.md) in the image.
    # Outside of an image this has no effect: BentoML passes it only to the workers, and the
    # supervisor is what reports.
    {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
]


@attrs.define
class ServiceImage(Image):
    """An image whose Bento must have the files that service.py, the model and /try need."""

    project_files: list[str] = attrs.field(factory=list)

    def freeze(self, bento_fs: Path, envs: list[Any], platform_: str | None = None) -> Any:
        """Describe the image in a Bento; raise BentoMLException if the Bento lacks a file."""
        src = bento_fs / "src"
        if src.is_dir():  # a "bare" Bento, for development in BentoCloud, has no files
            service_files, _ = find_imports(["service"])
            check_included(src, "service.py", service_files)
            check_included(src, "The model", self.project_files)
            check_included(src, "The page at /try", static_files())
        return super().freeze(bento_fs, envs, platform_)


def check_included(src: Path, importer: str, files: Collection[str]) -> None:
    """Raise BentoMLException, saying what to do, if a folder of a Bento lacks files."""
    if missing := [file for file in sorted(files) if not (src / file).is_file()]:
        raise BentoMLException(
            f"{importer} needs {', '.join(missing)}, which the Bento lacks: add "
            f"{', '.join(f'/{file}' for file in missing)} to `include` in bentofile.yaml"
        )


def static_files() -> list[str]:
    """Return the files of the page at /try, as paths in a Bento."""
    root = STATIC.parents[2]
    return [path.relative_to(root).as_posix() for path in STATIC.rglob("*") if path.is_file()]


def service_image(reference: ModelReference) -> Image:
    """Return the image for a service with a pinned model."""
    inference = stored_inference(reference)
    # For a distribution that it knows, BentoML installs compilers, git and gnupg2: over 500 MB. The
    # packages of requirements-serve.txt come as wheels and need none of them.
    image = ServiceImage(base_image=BASE_IMAGE, distro="none")  # type: ignore[call-arg]
    if inference:
        image.project_files = inference.project_files
        if inference.packages:
            image.python_packages(*inference.packages)
    return image


def stored_inference(reference: ModelReference) -> Inference | None:
    """Return the runtime of the stored model, and the packages and files that it needs.

    Return None if the model is missing or damaged: the start or the build then reports it.
    """
    with suppress(*MODEL_READ_ERRORS):
        if model := reference.stored:
            return training_metadata(model).inference
    return None
