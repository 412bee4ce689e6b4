"""Dead workers are replaced, without waiting for BentoML to look for them."""

import psutil
import pytest
from conftest import TUTORIAL, serving, wait_until

from house import EXAMPLE

REPORT = "Worker ended by signal 9; it is replaced"


def workers(server):
    """Return the worker processes of a server."""
    return [child for child in psutil.Process(server.pid).children() if child.is_running()]


@pytest.mark.parametrize("env", [{}, {"BENTOML_CONTAINERIZED": "true"}], ids=["host", "container"])
def test_dead_worker_is_replaced_and_reported(env, model, tmp_path):
    """Also in a container, where BentoML replaces none, and also the one after it."""
    log = tmp_path / "log"
    with serving("bentoml", "serve", log=log, WORKERS="2", **env) as client:
        for deaths in (1, 2):
            dead, other = workers(client.server)
            dead.kill()
            wait_until(lambda deaths=deaths: log.read_text().count(REPORT) == deaths, log)
            assert dead not in workers(client.server)
            assert other in workers(client.server)
            assert len(workers(client.server)) == 2
        assert client.post("/predict", json=EXAMPLE).json() == {"prediction": TUTORIAL}


def test_end_of_the_service_replaces_no_worker(model, tmp_path):
    """And reports none."""
    with serving("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        pass
    assert "Worker ended" not in client.log.read_text()
    assert client.server.returncode == 0
