"""Dead workers are replaced, without waiting for BentoML to look for them."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from house import EXAMPLE
from tests.helpers.commands import (
    ROOT,
    TUTORIAL_PREDICTION,
    TUTORIAL_RESPONSE,
    free_port,
    is_ready,
    run,
    running_server,
    wait_until,
    without_linux_calls,
)

REPORT = "Worker ended by signal 9; it is replaced"


def workers(server):
    """Return the worker processes of a server."""
    return [child for child in psutil.Process(server.pid).children() if child.is_running()]


@pytest.mark.parametrize("env", [{}, {"BENTOML_CONTAINERIZED": "true"}], ids=["host", "container"])
def test_dead_worker_is_replaced_and_reported(env, model, tmp_path):
    """Also in a container, where BentoML replaces none, and also the one after it."""
    log = tmp_path / "log"
    with running_server("bentoml", "serve", log=log, WORKERS="2", **env) as client:
        for deaths in (1, 2):
            dead, other = workers(client.server)
            dead.kill()
            wait_until(lambda deaths=deaths: log.read_text().count(REPORT) == deaths, log)
            assert dead not in workers(client.server)
            assert other in workers(client.server)
            assert len(workers(client.server)) == 2
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_that_cannot_start_ends(workers, model, tmp_path):
    """And says so, instead of trying again for ever."""
    for name in ("house.py", "serving"):
        (tmp_path / name).symlink_to(ROOT / name)
    source = (ROOT / "service.py").read_text()
    (tmp_path / "service.py").write_text(source.replace("Regressor(self.model)", "1 / 0"))
    env = {"WORKERS": workers, "PORT": str(free_port())}
    failed = run("bentoml", "serve", check=False, cwd=tmp_path, **env)
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stdout
    assert "Worker ended by exit status 3\n" in failed.stdout
    assert failed.stderr.endswith("No worker can start: the log says why\n")


def test_worker_that_cannot_start_leaves_the_others_alone(model, tmp_path):
    """Its model has gone since the first ones have started."""
    store = tmp_path / "store"
    shutil.copytree(Path(os.environ["BENTOML_HOME"], "models"), store / "models")
    log = tmp_path / "log"
    with running_server(
        "bentoml", "serve", log=log, WORKERS="2", BENTOML_HOME=str(store)
    ) as client:
        dead, other = workers(client.server)
        shutil.rmtree(store / "models" / "house_price")
        dead.kill()
        wait_until(lambda: "Worker ended by exit status 3\n" in log.read_text(), log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        assert client.get("/model").json()["tag"] == str(model.tag)
        assert other.is_running()
    assert client.server.returncode == 0


@pytest.mark.parametrize(("wrapper", "survives"), [([], False), (["nohup"], True)], ids=str)
def test_service_ends_with_its_terminal(wrapper, survives, model, tmp_path):
    """Or else its port would stay taken; unless it was started to stay."""
    with running_server(*wrapper, "bentoml", "serve", log=tmp_path / "log") as client:
        for _ in range(2):  # as a shell does
            client.server.send_signal(signal.SIGHUP)
        if survives:
            time.sleep(1)
            assert client.post("/predict", json=EXAMPLE).json() == {
                "prediction": TUTORIAL_PREDICTION
            }
        else:
            assert client.server.wait(timeout=10) == 0


def test_service_runs_where_the_calls_of_linux_are_missing(model, tmp_path):
    """As on macOS: it serves, replaces a dead worker, and ends."""
    log = tmp_path / "log"
    with running_server("bentoml", "serve", log=log, **without_linux_calls(tmp_path)) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        (worker,) = workers(client.server)
        worker.kill()
        wait_until(lambda: is_ready(client) and worker not in workers(client.server), log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
    assert "Traceback" not in log.read_text()


def total(client, name, **labels):
    """Return the sum of all samples of this name and these labels in the metrics."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_metrics_of_a_dead_worker_are_what_it_did_and_nothing_that_goes_on(model, tmp_path):
    """Although it could not count out the request that it was about to read."""
    log = tmp_path / "log"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with running_server("bentoml", "serve", log=log, REQUEST_TIMEOUT="60") as client:

        def in_progress():
            return total(client, "bentoml_service_request_in_progress", endpoint="/predict")

        for _ in range(5):
            client.post("/predict", json=EXAMPLE)
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as unfinished:
            unfinished.sendall(head + b"Content-Length: 9\r\n\r\n")
            wait_until(lambda: in_progress() == 1, log)
            (worker,) = workers(client.server)
            worker.kill()
            worker.wait()
        wait_until(lambda: is_ready(client), log)
        assert in_progress() == 0
        assert total(client, "live_workers") == 1
        assert total(client, "worker_starts_total") == 2
        assert total(client, "prediction_value_count") == 5  # and not those made to be ready


def test_metrics_are_those_of_one_server(model, tmp_path):
    """Though another one uses the same model store; and they go when it ends."""
    first_log, second_log = tmp_path / "first", tmp_path / "second"
    (folder := tmp_path / "metrics").mkdir()
    with running_server("bentoml", "serve", log=first_log, TMPDIR=str(folder)) as first:
        first.post("/predict", json=EXAMPLE)
        with running_server("bentoml", "serve", log=second_log, TMPDIR=str(folder)) as second:
            assert total(first, "prediction_value_count") == 1
            assert total(second, "prediction_value_count") == 0
            assert len([*folder.glob("bentoml-metrics-*")]) == 2
        assert total(first, "prediction_value_count") == 1
    assert not [*folder.glob("bentoml-metrics-*")]


def test_end_of_the_service_replaces_no_worker(model, tmp_path):
    """And reports none."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        pass
    assert "Worker ended" not in client.log.read_text()
    assert client.server.returncode == 0


def test_port_in_use_is_said(model):
    """And what to do about it, without a traceback."""
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        failed = run("bentoml", "serve", check=False, PORT=str(port))
    assert failed.returncode == 1
    assert f"Port {port} is in use: end what listens there, or set PORT" in failed.stderr
    assert "Traceback" not in failed.stderr
