"""Use a temporary model store. Fixtures: a trained model, the service in process and on a port."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.helpers")

STORE = tempfile.mkdtemp(prefix="house-price-tests-")
atexit.register(shutil.rmtree, STORE, ignore_errors=True)

os.environ["PATH"] = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]])
# BentoML and the Prometheus client read these variables only when they are imported.
os.environ["BENTOML_HOME"] = STORE
os.environ["BENTOML_DO_NOT_TRACK"] = "true"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(dir=STORE)

import bentoml  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from service import HousePrice  # noqa: E402
from tests.helpers.commands import run, running_server  # noqa: E402

# The in-process service would write its access log into the output of pytest.
HousePrice.inner.settings.access_log = "off"


@pytest.fixture(scope="session")
def training():
    """The finished `python train.py`."""
    return run("python", "train.py")


@pytest.fixture(scope="session")
def model(training):
    """The stored model that `training` saved."""
    return bentoml.models.get("house_price:latest")


@pytest.fixture(scope="session")
def client(model):
    """A client of the service in this process."""
    app = HousePrice.to_asgi(is_main=True)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def live(model, tmp_path_factory):
    """A client of `bentoml serve`."""
    log = tmp_path_factory.mktemp("live") / "log"
    with running_server("bentoml", "serve", log=log) as client:
        yield client
