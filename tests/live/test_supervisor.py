"""The supervisor: replacement of dead workers, signals, metrics and the port."""

import json
import os
import re
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
    free_port,
    is_ready,
    run,
    running_server,
    wait_until,
    without_linux_calls,
)
from tests.helpers.raw_http import connect, read_responses, request
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

pytestmark = pytest.mark.slow  # a server for each test, whose workers are killed

REPLACED = "Worker was killed by signal 9; starting a replacement"


def workers(server):
    """Return the worker processes of a server."""
    return [child for child in psutil.Process(server.pid).children() if child.is_running()]


def has_ended(process):
    """Return whether a process has ended, reaped or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("env", [{}, {"BENTOML_CONTAINERIZED": "true"}], ids=["host", "container"])
def test_worker_killed_by_signal_is_replaced_and_logged(env, model, tmp_path):
    """So is the second one. BentoML alone replaces no worker in a container."""
    log = tmp_path / "log"
    with running_server("bentoml", "serve", log=log, WORKERS="2", **env) as client:
        for deaths in (1, 2):
            dead, other = workers(client.server)
            dead.kill()
            wait_until(lambda deaths=deaths: log.read_text().count(REPLACED) == deaths, log)
            assert dead not in workers(client.server)
            assert other in workers(client.server)
            assert len(workers(client.server)) == 2
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


@pytest.mark.parametrize("n_workers", ["1", "2"])
def test_workers_whose_supervisor_was_killed_shut_down(n_workers, model, tmp_path):
    """They do so within 2 s, respond to the request in progress, and free the port."""
    log = tmp_path / "log"
    with running_server("bentoml", "serve", log=log, WORKERS=n_workers) as client:
        wait_until(lambda: log.read_text().count("Completed startup hook") == int(n_workers), log)
        orphans = workers(client.server)
        body = json.dumps(EXAMPLE).encode()
        with connect(client) as connection:
            connection.sendall(request(body=b"", length=len(body)))
            client.server.kill()
            time.sleep(0.5)
            connection.sendall(body)
            ((status, _, answer),) = read_responses(connection)
            assert (status, answer) == (200, TUTORIAL_RESPONSE)
        wait_until(lambda: all(map(has_ended, orphans)), log, seconds=1.5)
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("0.0.0.0", client.base_url.port))  # noqa: S104


@pytest.mark.parametrize(("n_workers", "style"), [("1", "json"), ("2", "text")])
def test_service_exits_if_no_worker_can_start(n_workers, style, model, tmp_path):
    """It exits with an error message, instead of starting workers again and again."""
    for name in ("bentofile.yaml", "house.py", "serving"):
        (tmp_path / name).symlink_to(ROOT / name)
    source = (ROOT / "service.py").read_text()
    (tmp_path / "service.py").write_text(source.replace("Regressor(self.model)", "1 / 0"))
    env = {"WORKERS": n_workers, "ACCESS_LOG": style, "PORT": str(free_port())}
    failed = run("bentoml", "serve", check=False, cwd=tmp_path, **env)
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stdout
    assert "Worker exited with status 3" in failed.stdout
    if style == "json":
        assert all(json.loads(line)["message"] for line in failed.stdout.splitlines())
    assert failed.stderr.endswith("No worker is left; see the log above\n")


def test_worker_that_cannot_start_does_not_stop_the_others(model, tmp_path):
    """The replacement finds no model, because it was deleted after the start of the service."""
    store = tmp_path / "store"
    shutil.copytree(Path(os.environ["BENTOML_HOME"], "models"), store / "models")
    log = tmp_path / "log"
    with running_server(
        "bentoml", "serve", log=log, WORKERS="2", BENTOML_HOME=str(store)
    ) as client:
        # /readyz answers as soon as one worker is ready; the other is still reading the model.
        wait_until(lambda: log.read_text().count("Completed startup hook") == 2, log)
        dead, other = workers(client.server)
        shutil.rmtree(store / "models" / "house_price")
        dead.kill()
        wait_until(lambda: "Worker exited with status 3\n" in log.read_text(), log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        assert client.get("/model").json()["tag"] == str(model.tag)
        assert other.is_running()
    assert client.server.returncode == 0


# If the tests themselves run under nohup, the service would inherit that.
@pytest.mark.parametrize(
    ("wrapper", "survives"),
    [(["env", "--default-signal=HUP"], False), (["nohup"], True)],
    ids=["terminal", "nohup"],
)
def test_sighup_stops_the_service_unless_started_by_nohup(wrapper, survives, model, tmp_path):
    """A service that outlives its terminal would keep the port in use."""
    with running_server(*wrapper, "bentoml", "serve", log=tmp_path / "log") as client:
        for _ in range(2):  # a shell sends SIGHUP twice
            client.server.send_signal(signal.SIGHUP)
        if survives:
            time.sleep(1)
            assert client.post("/predict", json=EXAMPLE).json() == {
                "prediction": TUTORIAL_PREDICTION
            }
        else:
            assert client.server.wait(timeout=10) == 0


def test_service_runs_without_linux_system_calls(model, tmp_path):
    """As on macOS, it serves, replaces a dead worker and shuts down."""
    log = tmp_path / "log"
    with running_server("bentoml", "serve", log=log, **without_linux_calls(tmp_path)) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        (worker,) = workers(client.server)
        worker.kill()
        wait_until(lambda: is_ready(client) and worker not in workers(client.server), log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
    assert "Traceback" not in log.read_text()


def sum_samples(client, name, **labels):
    """Return the sum of the samples in /metrics with this name and these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_metrics_keep_counters_but_no_gauges_of_a_dead_worker(model, tmp_path):
    """A worker that dies during a request cannot decrement the gauge of requests in progress."""
    log = tmp_path / "log"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with running_server("bentoml", "serve", log=log, REQUEST_TIMEOUT="60") as client:

        def in_progress():
            return sum_samples(client, "bentoml_service_request_in_progress", endpoint="/predict")

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
        assert sum_samples(client, "live_workers") == 1
        assert sum_samples(client, "worker_starts_total") == 2
        # Without the predictions that workers make before they are ready.
        assert sum_samples(client, "prediction_value_count") == 5


def test_servers_that_share_a_model_store_have_separate_metrics(model, tmp_path):
    """Each server has a metrics folder, and deletes it when it exits."""
    first_log, second_log = tmp_path / "first", tmp_path / "second"
    (folder := tmp_path / "metrics").mkdir()
    with running_server("bentoml", "serve", log=first_log, TMPDIR=str(folder)) as first:
        first.post("/predict", json=EXAMPLE)
        with running_server("bentoml", "serve", log=second_log, TMPDIR=str(folder)) as second:
            assert sum_samples(first, "prediction_value_count") == 1
            assert sum_samples(second, "prediction_value_count") == 0
            assert len([*folder.glob("bentoml-metrics-*")]) == 2
        assert sum_samples(first, "prediction_value_count") == 1
    assert not [*folder.glob("bentoml-metrics-*")]


def test_graceful_shutdown_replaces_no_worker(model, tmp_path):
    """The log mentions no dead worker, and the exit status is 0."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        pass
    assert not re.search("Worker (was killed|exited)", client.log.read_text())
    assert client.server.returncode == 0


def test_port_in_use_aborts_the_start_with_instructions(model):
    """The message says what to do, without a traceback."""
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        failed = run("bentoml", "serve", check=False, PORT=str(port))
    assert failed.returncode == 1
    assert (
        f"Port {port} is in use: stop the process that listens there, or set PORT" in failed.stderr
    )
    assert "Traceback" not in failed.stderr
