"""More clients than prediction slots: rejection and throttling."""

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from house import EXAMPLE
from tests.helpers.commands import (
    TUTORIAL_RESPONSE,
    running_server,
    wait_until,
    without_linux_calls,
)
from tests.helpers.raw_http import connect, read_last_response, read_responses, request

pytestmark = pytest.mark.slow  # a server for each test, with one or a few slots


def test_slow_uploads_occupy_no_prediction_slot(model, tmp_path):
    """Incomplete bodies of more than 64 times MAX_BODY_BYTES get 429, to limit the memory."""
    limits = {"MAX_CONCURRENCY": "1", "MAX_BODY_BYTES": "1000"}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        ExitStack() as stack,
    ):
        slow = [stack.enter_context(connect(client)) for _ in range(66)]
        for connection in slow:
            connection.sendall(request(length=1000, body=b" " * 999))
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        statuses = Counter(status for status, *_ in map(read_last_response, slow))
        assert statuses[429] >= 1
        assert statuses[429] + statuses[408] == 66


def test_clients_that_ignore_retry_after_are_throttled(model, tmp_path):
    """A client that is sent 429 is not read for about 1 s: in 3 s it gets at most four of them."""
    statuses = Counter()
    with running_server("bentoml", "serve", log=tmp_path / "log", MAX_CONCURRENCY="4") as client:
        threads = [
            threading.Thread(target=send_without_pause, args=(client, statuses)) for _ in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses.keys() == {200, 429}
    assert statuses[200] > statuses[429]
    assert statuses[429] <= 4 * len(threads)


def send_without_pause(client, statuses):
    """Send each request as soon as the last one has its response, for 3 s; count the statuses."""
    end = time.monotonic() + 3
    with connect(client) as connection:
        while time.monotonic() < end:
            connection.sendall(request())
            ((status, _, _),) = read_responses(connection, 1)
            statuses[status] += 1


@contextmanager
def throttled_connections(folder, **env):
    """Run a service that has throttled connections; yield a client and those connections."""
    limits = {"MAX_CONCURRENCY": "1", "KEEP_ALIVE": "1", **env}
    with (
        running_server("bentoml", "serve", log=folder / "log", **limits) as client,
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(connect(client)) for _ in range(50)]
        for connection in connections:
            connection.sendall(request())
        throttled = [each for each in connections if read_responses(each, 1)[0][0] == 429]
        assert throttled
        yield client, throttled


@pytest.mark.parametrize("shutdown", [False, True], ids=["running", "shutdown"])
@pytest.mark.parametrize("linux", [True, False], ids=["Linux", "other systems"])
def test_retry_of_throttled_client_gets_response(model, tmp_path, shutdown, linux):
    """Neither KEEP_ALIVE (1 s here) nor a shutdown closes the connection before the response."""
    with throttled_connections(tmp_path, **({} if linux else without_linux_calls(tmp_path))) as (
        client,
        connections,
    ):
        for connection in connections:
            connection.sendall(request())
        if shutdown:
            client.server.send_signal(signal.SIGTERM)
        statuses = Counter(read_responses(connection, 1)[0][0] for connection in connections)
    assert statuses.keys() <= {200, 429}
    assert statuses[200]


def test_retry_of_disconnected_throttled_client_is_dropped(model, tmp_path):
    """The server closes the connection without reading the request, and predicts nothing."""
    with throttled_connections(tmp_path) as (client, connections):
        for connection in connections:
            connection.sendall(request("/predict", "X-Request-ID: early"))
            connection.close()
        (worker,) = psutil.Process(client.server.pid).children()

        def closed_by_client():
            return [c for c in worker.net_connections() if c.status == psutil.CONN_CLOSE_WAIT]

        wait_until(lambda: not closed_by_client(), client.log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        assert " early\n" not in client.log.read_text()
