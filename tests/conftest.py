"""Fixtures: a model store of the tests' own, a trained model, the service in and out of process."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pip._internal.models.index import PyPI

pytest.register_assert_rewrite("tests.helpers.contract", "tests.helpers.console")

ROOT = Path(__file__).parent.parent
TUTORIAL = pytest.approx(12.273424794987879, abs=1e-9)  # its answer to the example
# The index that pip uses, as one that wants a password, which must not get into the image.
INDEX = urlsplit(os.environ.get("UV_DEFAULT_INDEX") or PyPI.simple_url)
PRIVATE_INDEX = INDEX._replace(netloc=f"tests:s3cret@{INDEX.netloc}").geturl()
STORE = tempfile.mkdtemp(prefix="house-price-tests-")
atexit.register(shutil.rmtree, STORE, ignore_errors=True)

os.environ["PATH"] = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]])
# BentoML and the Prometheus client look these up only once, when they are imported.
os.environ["BENTOML_HOME"] = STORE
os.environ["BENTOML_DO_NOT_TRACK"] = "true"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(dir=STORE)

import bentoml  # noqa: E402
import httpx2  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from service import HousePrice  # noqa: E402

HousePrice.inject_config()


def run(*command, check=True, timeout=120, cwd=ROOT, **env):
    """Run a command to its end, and return it with its output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return unbound.getsockname()[1]


@contextmanager
def serving(*command, log, cwd=ROOT, **env):
    """Run a command that serves on PORT; yield a client once the service is ready."""
    port = free_port()
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | env | {"PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            client.server, client.log = server, log
            wait_until(lambda: is_ready(client), log)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=30)


def no_linux(folder):
    """Return the environment of a Python that lacks calls which only Linux has."""
    gone = {"os": ["posix_fallocate", "memfd_create", "waitid"], "select": ["POLLRDHUP"]}
    lines = [f"import {module}; del {module}.{name}" for module in gone for name in gone[module]]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(folder)}


def is_ready(client):
    """Tell whether /readyz answers 200."""
    with suppress(httpx2.TransportError):
        return client.get("/readyz").status_code == 200


def wait_until(condition, log):
    """Return once a condition holds; fail, with what the server has logged, if it never does."""
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail(f"Waited in vain:\n{log.read_text()}")


@pytest.fixture(scope="session")
def training():
    """`python train.py`, run once."""
    return run("python", "train.py")


@pytest.fixture(scope="session")
def model(training):
    """The model that it saved."""
    return bentoml.models.get("house_price:latest")


@pytest.fixture(scope="session")
def engine():
    """A Docker engine: CI has one, elsewhere the tests that need it are skipped without."""
    if run("docker", "version", check=False).returncode and "CI" not in os.environ:
        pytest.skip("no Docker engine answers")


@pytest.fixture(scope="session")
def image(engine, model):
    """What `make image` says; the image is house_price:test, on BASE_IMAGE."""
    env = {"TAG": "house_price:test", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    yield run("make", "image", timeout=900, **env).stdout
    run("docker", "rmi", "--force", "house_price:test")


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
    with serving("bentoml", "serve", log=log) as client:
        yield client
