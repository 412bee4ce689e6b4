"""Graceful shutdown: no request is lost, and the service ends in time."""

import re
import signal
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.helpers.commands import (
    running_server,
)
from tests.helpers.raw_http import connect, read_responses, request

pytestmark = pytest.mark.slow  # a server for each test, which it stops


def send_until_shutdown(client, keep_alive, statuses):
    """Send requests until the service accepts no connection; count statuses and lost requests."""
    while True:
        try:
            connection = connect(client)
        except ConnectionRefusedError:
            return
        with connection:
            last = False
            while not last:
                connection.sendall(request())
                ((status, headers, _),) = read_responses(connection, 1) or [("lost", {}, None)]
                statuses[status] += 1
                last = not keep_alive or status == "lost" or "connection" in headers


@pytest.mark.parametrize("workers", ["1", "2"])
def test_graceful_shutdown_loses_no_request(model, tmp_path, workers):
    """Half of the clients use keep-alive; the others open a connection for each request."""
    statuses = Counter()
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS=workers) as client:
        arguments = [(client, number % 2, statuses) for number in range(32)]
        threads = [threading.Thread(target=send_until_shutdown, args=args) for args in arguments]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        client.server.send_signal(signal.SIGTERM)
        client.server.wait(8)
        for thread in threads:
            thread.join()
    print(statuses)
    assert set(statuses) == {200}
    assert not re.search("Traceback|ERROR|WARNING", client.log.read_text())


def test_drain_fails_readiness_and_closes_connections(model, tmp_path):
    """While a slow request is in progress, /readyz is 503; each response closes its connection."""
    with (
        running_server("bentoml", "serve", log=tmp_path / "log") as client,
        connect(client) as slow,
        connect(client) as probe,
    ):
        probe.sendall(request("/readyz", method="GET", body=b""))
        assert read_responses(probe, 1)[0][0] == 200
        slow.sendall(request()[:-1])
        client.server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        probe.sendall(request("/readyz", method="GET", body=b""))
        ((status, headers, _),) = read_responses(probe)
        assert (status, headers["connection"]) == (503, "close")
        slow.sendall(request()[-1:])
        ((status, headers, _),) = read_responses(slow)
        assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_second_signal_kills_the_workers(model, tmp_path, workers):
    """The service waits no longer for the request in progress; an idle worker has ended by then."""
    limits = {"REQUEST_TIMEOUT": "60", "SHUTDOWN_TIMEOUT": "60", "WORKERS": workers}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        connect(client) as slow,
    ):
        slow.sendall(request()[:-1])
        client.server.send_signal(signal.SIGTERM)
        time.sleep(2)
        assert client.server.poll() is None
        workers = psutil.Process(client.server.pid).children()
        client.server.send_signal(signal.SIGINT)
        client.server.wait(5)
        assert not any(worker.is_running() for worker in workers)


def test_request_in_progress_at_shutdown_timeout_gets_503(model, tmp_path):
    """The service does not wait for it any longer, and exits."""
    limits = {"REQUEST_TIMEOUT": "60", "SHUTDOWN_TIMEOUT": "2"}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        connect(client) as slow,
    ):
        slow.sendall(request()[:-1])
        client.server.send_signal(signal.SIGTERM)
        client.server.wait(8)
        ((status, _, body),) = read_responses(slow)
    assert status == 503
    assert body == {"message": "Shutting down; try again in a second"}


def test_sigterm_to_one_worker_does_not_stop_the_others(model, tmp_path):
    """The signal does not come from the supervisor, and the service goes on."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        worker, _ = psutil.Process(client.server.pid).children()
        worker.terminate()
        worker.wait(8)
        for _ in range(20):
            with connect(client) as connection:
                connection.sendall(request())
                assert read_responses(connection, 1)[0][0] == 200
