"""Fixtures of a Docker engine and of the image, for a conftest.py that needs them."""

import os
import shutil

import pytest

from tests.helpers.commands import run
from tests.helpers.package_index import PRIVATE_INDEX


@pytest.fixture(scope="session")
def engine():
    """A Docker engine that can build the image; without one, skip the test, except in CI."""
    missing = None
    if not shutil.which("docker") or run("docker", "version", check=False).returncode:
        missing = "no Docker engine answers"
    elif run("deploy/image.sh", "--check", check=False).returncode:
        missing = "the Docker engine lacks BuildKit or the base image; deploy/image.sh says what"
    if missing and "CI" not in os.environ:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def image(engine, model):
    """The output of `make image`; the image is house_price:test, on BASE_IMAGE."""
    env = {"TAG": "house_price:test", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    yield run("make", "image", timeout=900, **env).stdout
    run("docker", "rmi", "--force", "house_price:test")
