"""The server, on the wire: slow, hostile and unusual connections, and the end of the service."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from house import EXAMPLE
from serving._bentoml.server import duplicate_listener
from serving.errors import MAX_HEAD_BYTES
from tests.helpers.commands import (
    TUTORIAL_PREDICTION,
    TUTORIAL_RESPONSE,
    running_server,
    wait_until,
    without_linux_calls,
)

BODY = json.dumps(EXAMPLE).encode()


def request(path="/predict", *headers, method="POST", body=BODY, length=None):
    """Return a request as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


CHUNKED = request().replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
CHUNKED = CHUNKED.removesuffix(BODY)


@pytest.fixture(scope="module")
def hasty(model, tmp_path_factory):
    """A service with little patience."""
    log = tmp_path_factory.mktemp("hasty") / "log"
    limits = {"REQUEST_TIMEOUT": "0.5", "KEEP_ALIVE": "2", "MAX_BODY_BYTES": "100000"}
    with running_server("bentoml", "serve", log=log, **limits) as client:
        yield client


@pytest.fixture
def connection(hasty):
    """A connection to it."""
    with connect(hasty) as connection:
        yield connection


def connect(client):
    """Return a connection to a service."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def answers(connection, most=100):
    """Return the answers that come, up to so many or the end, as status, headers and body."""
    found = []
    with connection.makefile("rb", buffering=0) as stream, suppress(ConnectionResetError):
        while len(found) < most and (line := stream.readline()):
            lines = b"".join(iter(stream.readline, b"\r\n")).decode().lower()
            headers = dict(re.findall(r"(.*?): (.*)\r\n", lines))
            body = b""
            while len(body) < int(headers.get("content-length", 0)):
                body += stream.read(int(headers["content-length"]) - len(body))
            found.append((int(line.split()[1]), headers, json.loads(body.strip() or "null")))
    return found


def counted(client, status):
    """Return how many requests to no known path have been answered with a status."""
    pattern = rf'request_total{{endpoint="unknown",http_response_code="{status}".*}} (.*)'
    return sum(map(float, re.findall(pattern, client.get("/metrics").text)))


def drip(connection, data, seconds):
    """Send data in small parts, for so long or until nobody takes it."""
    with suppress(OSError):
        for start in range(0, len(data), 10):
            connection.sendall(data[start : start + 10])
            time.sleep(seconds * 10 / len(data))


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"hello\r\n\r\n", 400, "Send HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "Send HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "Send HTTP/1.1"),
        (request("\x01"), 400, "Send HTTP/1.1"),
        (request("/predict", "Content-Length: 1"), 400, "Send HTTP/1.1"),
        (request("/predict", "Host: y"), 400, "one header Host"),
        (request().replace(b"Host: x\r\n", b""), 400, "one header Host"),
        (request("/predict", "Transfer-Encoding: chunked"), 400, "Send HTTP/1.1"),
        (CHUNKED + b"x\r\n", 400, "Send HTTP/1.1"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "This is no proxy"),
        (request("/" + "x" * MAX_HEAD_BYTES), 431, "over 16384 bytes"),
        (request("/predict", "X: " + "x" * MAX_HEAD_BYTES), 431, "over 16384 bytes"),
        (request("/predict", *["X: x"] * 5000), 431, "over 16384 bytes"),
        (CHUNKED + b"0\r\nX: " + b"x" * 2**19, 431, "over 16384 bytes"),
        (CHUNKED + b"1;" + b"x" * 2**19, 431, "over 16384 bytes"),
        (b"POST /predict HTTP/1.1\r\nHo", 408, "not complete within 0.5 s"),
        (b"\r\n", 408, "not complete within 0.5 s"),
        (request(length=1000), 408, "not complete within 0.5 s"),
        (request("/model", length=1000), 408, "not complete within 0.5 s"),
        (CHUNKED + b"1\r\n1\r\n0\r\n", 408, "not complete within 0.5 s"),
        (request(length=100001), 413, "over 100000 bytes"),
        (request("/nowhere", body=b" " * 2**20, length=2**21), 413, "over 100000 bytes"),
        (request(length=100000).replace(b"json", b"xml"), 415, "Content-Type"),
        (request(method="PUT", length=100000), 405, "Use POST here"),
    ],
)
def test_what_is_no_whole_request_is_refused_and_ends_the_connection(
    hasty, connection, sent, status, words
):
    """In our shape, with a request ID; neither the answer nor its end waits for more."""
    connection.sendall(sent)
    ((given, headers, body),) = answers(connection)
    assert given == status
    assert words in body["message"]
    if status not in (400, 405):
        described = hasty.get("/docs.json").json()["paths"]["/predict"]["post"]["responses"]
        assert described[str(status)]["content"]["application/json"]["example"] == body
    assert headers["connection"] == "close"
    assert len(headers["x-request-id"]) == 32


def test_what_is_no_request_is_told_why_although_it_bears_no_key(model, tmp_path):
    """The key may be in what nobody could read."""
    key = "0123456789abcdef"
    refused = {
        b"hello\r\n\r\n": 400,
        b"POST /predict HTTP/1.1\r\nHo": 408,
        request("/" + "x" * MAX_HEAD_BYTES, f"Authorization: Bearer {key}"): 431,
        request("/predict", "Host: y", f"Authorization: Bearer {key}"): 400,
        request(): 401,
    }
    limits = {"REQUEST_TIMEOUT": "0.5", "API_KEYS": key}
    with running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client:
        for sent, status in refused.items():
            with connect(client) as connection:
                connection.sendall(sent)
                ((given, *_),) = answers(connection, 1)
            assert given == status


def test_refusals_are_counted_and_logged_once(hasty):
    """As requests to no known path, and without a word from uvicorn."""

    def logged():
        return hasty.log.read_text().count(' - "-" 400 ')

    before, lines = counted(hasty, 400), logged()
    for _ in range(5):
        with connect(hasty) as connection:
            connection.sendall(b"hello\r\n\r\n")
            assert answers(connection)
    assert counted(hasty, 400) == before + 5
    wait_until(lambda: logged() == lines + 5, hasty.log)
    assert not re.search("Traceback|WARNING|ERROR", hasty.log.read_text())


@pytest.mark.parametrize("sent", [request(), CHUNKED + b"200\r\n" + b" " * 0x200])
def test_dripping_does_not_help(connection, sent):
    """The time is that of the whole request."""
    dripping = threading.Thread(target=drip, args=(connection, sent, 3))
    dripping.start()
    ((status, _, _),) = answers(connection)
    dripping.join()
    assert status == 408


@pytest.mark.parametrize("before", [b"", request()])
def test_idle_connection_is_closed(connection, before):
    """One that has sent nothing sooner than one that may send again, and neither is answered."""
    connection.sendall(before)
    assert [status for status, *_ in answers(connection)] == [200] * bool(before)


def test_idle_connection_stays_open_for_a_proxy(live):
    """Which closes it first, as it has less patience than the default, but more than uvicorn's."""
    with connect(live) as connection:
        connection.sendall(request())
        assert answers(connection, 1)
        connection.settimeout(7)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_little_that_was_not_read_does_not_end_the_connection(connection):
    """The next request on it is answered."""
    connection.sendall(request().replace(b"json", b"xml") + request(method="PUT") + request())
    found = answers(connection, 3)
    assert [status for status, *_ in found] == [415, 405, 200]
    assert not any("connection" in headers for _, headers, _ in found)


def test_client_that_sends_far_too_much_can_read_why(connection):
    """Although nobody reads all that it sends."""
    connection.sendall(request(length=10**8))
    sent = 0
    with suppress(OSError):
        while sent < 10**8:
            sent += connection.send(b" " * 10**5)
    assert sent < 10**8
    ((status, _, _),) = answers(connection)
    assert status == 413


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request("/predict", "Expect: 100-continue", body=b"", length=len(BODY)), [100, 200]),
        (request("/predict", "Expect: 100-continue", body=b"", length=10**8), [413]),
    ],
)
def test_client_that_asks_first_is_told_whether_to_send(connection, sent, expected):
    """The body, or nothing."""
    connection.sendall(sent)
    first = answers(connection, 1)
    if expected[0] == 100:
        connection.sendall(BODY)
        first += answers(connection, 1)
    assert [status for status, *_ in first] == expected


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("parts", [1, 2])
def test_request_for_an_upgrade_is_answered_in_the_protocol_at_hand(connection, upgrade, parts):
    """With its body, however it arrives; so is what follows."""
    sent = request("/predict", "Connection: Upgrade", f"Upgrade: {upgrade}")
    for part in [sent] if parts == 1 else [sent[:-100], sent[-100:]]:
        connection.sendall(part)
        time.sleep(0.1)
    connection.sendall(request())
    assert [body for *_, body in answers(connection, 2)] == [TUTORIAL_RESPONSE] * 2


def test_websocket_is_told_that_there_is_none(connection):
    """Its request is one for a page like any other."""
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    connection.sendall(request("/nowhere", *fields, method="GET", body=b""))
    ((status, _, body),) = answers(connection, 1)
    assert (status, list(body)) == (404, ["message"])


def test_garbage_behind_a_request_is_answered_after_it(connection):
    """In the order in which they came."""
    connection.sendall(request() * 3 + b"garbage\r\n\r\n")
    assert [status for status, *_ in answers(connection)] == [200, 200, 200, 400]


def test_nobody_may_ask_without_end_before_reading(connection):
    """A few requests at once are answered, thousands are not."""
    connection.sendall(request("/livez", method="GET", body=b"") * 2000)
    statuses = [status for status, *_ in answers(connection)]
    assert statuses[-1] == 429
    assert len(statuses) < 100


def test_client_that_reads_nothing_is_cut_off(hasty):
    """Or its answers would fill the memory, and its connection stay for ever."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect((hasty.base_url.host, hasty.base_url.port))
        bundle = request("/static_content/swagger-ui-bundle.js", method="GET", body=b"")
        deaf.sendall(bundle * 10)  # more than the kernel takes of the answers

        def is_open():
            worker, *_ = psutil.Process(hasty.server.pid).children()
            return deaf.getsockname() in [tuple(c.raddr) for c in worker.net_connections()]

        wait_until(lambda: not is_open(), hasty.log)


def test_slow_clients_stop_nobody_else(hasty):
    """1500 of them, with half of a head or of a body; good clients are served meanwhile."""
    with ExitStack() as stack:
        for number in range(1500):
            slow = stack.enter_context(connect(hasty))
            slow.sendall(request()[: 20 if number % 2 else -20])
            if number % 300 == 0:
                assert hasty.post("/predict", json=EXAMPLE).json() == {
                    "prediction": TUTORIAL_PREDICTION
                }


def test_slow_uploads_take_no_place_of_a_prediction(model, tmp_path):
    """And only so much memory."""
    limits = {"MAX_CONCURRENCY": "1", "MAX_BODY_BYTES": "1000"}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        ExitStack() as stack,
    ):
        slow = [stack.enter_context(connect(client)) for _ in range(66)]
        for connection in slow:
            connection.sendall(request(length=1000, body=b" " * 999))
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        statuses = Counter(status for status, *_ in map(last_answer, slow))
        assert statuses[429] >= 1
        assert statuses[429] + statuses[408] == 66


def test_clients_that_do_not_wait_when_refused_stop_nobody_else(model, tmp_path):
    """Nine of ten find no place: they are not refused again for some seconds."""
    tally = Counter()
    with running_server("bentoml", "serve", log=tmp_path / "log", MAX_CONCURRENCY="4") as client:
        threads = [threading.Thread(target=hurry, args=(client, tally)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tally.keys() == {200, 429}
    assert tally[200] > tally[429]
    assert tally[429] < 2 * len(threads)


def hurry(client, tally):
    """Send requests for three seconds, each as soon as the last is answered; count the answers."""
    end = time.monotonic() + 3
    with connect(client) as connection:
        while time.monotonic() < end:
            connection.sendall(request())
            ((status, _, _),) = answers(connection, 1)
            tally[status] += 1


@contextmanager
def refusing(folder, **env):
    """Run a service that has refused many connections; yield a client, and them."""
    limits = {"MAX_CONCURRENCY": "1", "KEEP_ALIVE": "1", **env}
    with (
        running_server("bentoml", "serve", log=folder / "log", **limits) as client,
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(connect(client)) for _ in range(50)]
        for connection in connections:
            connection.sendall(request())
        refused = [found for found in connections if answers(found, 1)[0][0] == 429]
        assert refused
        yield client, refused


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
@pytest.mark.parametrize("linux", [True, False], ids=["on Linux", "elsewhere"])
def test_who_asks_again_too_early_is_answered_late_but_answered(model, tmp_path, ends, linux):
    """Though idle connections are closed sooner, and though the service ends."""
    with refusing(tmp_path, **({} if linux else without_linux_calls(tmp_path))) as (
        client,
        connections,
    ):
        for connection in connections:
            connection.sendall(request())
        if ends:
            client.server.send_signal(signal.SIGTERM)
        statuses = Counter(answers(connection, 1)[0][0] for connection in connections)
    assert statuses.keys() <= {200, 429}
    assert statuses[200]


def test_clients_that_have_left_take_no_place(model, tmp_path):
    """What they have asked for is not read, let alone predicted."""
    with refusing(tmp_path) as (client, connections):
        for connection in connections:
            connection.sendall(request("/predict", "X-Request-ID: early"))
            connection.close()
        (worker,) = psutil.Process(client.server.pid).children()

        def held():
            return [c for c in worker.net_connections() if c.status == psutil.CONN_CLOSE_WAIT]

        wait_until(lambda: not held(), client.log)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        assert " early\n" not in client.log.read_text()


@pytest.mark.parametrize("sent", [request(), request() * 3, request("/nowhere"), request("/model")])
def test_client_that_ends_its_side_is_answered(connection, sent):
    """As `nc -N` does, which sends no more, but reads on."""
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    assert len(answers(connection)) == sent.count(b"HTTP/1.1")


def test_few_files_are_enough(model, tmp_path):
    """For as many connections as there may be then."""
    few = "ulimit -n 256; exec bentoml serve"
    with running_server("bash", "-c", few, log=tmp_path / "log") as client, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(client))
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_more_listeners_leave_the_others_as_they_are():
    """A listener of another worker that blocks would stop its event loop."""
    with socket.create_server(("127.0.0.1", 0)) as supervisor:
        supervisor.setblocking(False)
        with socket.socket(fileno=os.dup(supervisor.fileno())) as worker:
            copies = duplicate_listener(worker)
            assert not os.get_blocking(supervisor.fileno())
        assert len({copy.getsockname() for copy in copies}) == 1
        for copy in copies:
            copy.close()


def test_answer_is_sent_at_once(connection):
    """Head and body together: the client need not look twice."""
    for _ in range(20):
        connection.sendall(request())
        assert connection.recv(1 << 16).endswith(b"}")


def test_head_without_a_body_is_sent(connection):
    """Nothing follows it that it could wait for."""
    connection.sendall(request("/livez", method="HEAD", body=b"") + request())
    with connection.makefile("rb") as stream:
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"\r\n" in iter(stream.readline, b"")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"


def last_answer(connection):
    """Return the last answer on a connection."""
    return answers(connection)[-1]


def hammer(client, keep_alive, tally):
    """Send requests until the service refuses a connection; count what comes of them."""
    while True:
        try:
            connection = connect(client)
        except ConnectionRefusedError:
            return
        with connection:
            last = False
            while not last:
                connection.sendall(request())
                ((status, headers, _),) = answers(connection, 1) or [("lost", {}, None)]
                tally[status] += 1
                last = not keep_alive or status == "lost" or "connection" in headers


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_is_lost_when_the_service_is_stopped(model, tmp_path, workers):
    """Those on connections that stay open, and those that have just been made."""
    tally = Counter()
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS=workers) as client:
        args = [(client, number % 2, tally) for number in range(32)]
        threads = [threading.Thread(target=hammer, args=args) for args in args]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        client.server.send_signal(signal.SIGTERM)
        client.server.wait(8)
        for thread in threads:
            thread.join()
    print(tally)
    assert set(tally) == {200}
    assert not re.search("Traceback|ERROR|WARNING", client.log.read_text())


def test_service_that_is_stopped_says_so(model, tmp_path):
    """While it still answers a slow client: /readyz is 503, and the connections close."""
    with (
        running_server("bentoml", "serve", log=tmp_path / "log") as client,
        connect(client) as slow,
        connect(client) as probe,
    ):
        probe.sendall(request("/readyz", method="GET", body=b""))
        assert answers(probe, 1)[0][0] == 200
        slow.sendall(request()[:-1])
        client.server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        probe.sendall(request("/readyz", method="GET", body=b""))
        ((status, headers, _),) = answers(probe)
        assert (status, headers["connection"]) == (503, "close")
        slow.sendall(request()[-1:])
        ((status, headers, _),) = answers(slow)
        assert (status, headers["connection"]) == (200, "close")


def test_second_signal_ends_the_service_at_once(model, tmp_path):
    """Although a request is in progress that would be waited for."""
    limits = {"REQUEST_TIMEOUT": "60", "SHUTDOWN_TIMEOUT": "60"}
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


def test_service_ends_in_time_and_tells_who_waits(model, tmp_path):
    """503, for a request that is not done then."""
    limits = {"REQUEST_TIMEOUT": "60", "SHUTDOWN_TIMEOUT": "2"}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        connect(client) as slow,
    ):
        slow.sendall(request()[:-1])
        client.server.send_signal(signal.SIGTERM)
        client.server.wait(8)
        ((status, _, body),) = answers(slow)
    assert status == 503
    assert body == {"message": "Shutting down; try again in a second"}


def test_worker_that_is_stopped_alone_stops_no_other(model, tmp_path):
    """It gets its signal from somebody else than the supervisor."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        worker, _ = psutil.Process(client.server.pid).children()
        worker.terminate()
        worker.wait(8)
        for _ in range(20):
            with connect(client) as connection:
                connection.sendall(request())
                assert answers(connection, 1)[0][0] == 200


def test_command_line_wins(model, tmp_path):
    """Over the setting, if it says anything else than BentoML's default."""
    command = ["bentoml", "serve", "--timeout-keep-alive", "1"]
    with (
        running_server(*command, log=tmp_path / "log", KEEP_ALIVE="60") as client,
        connect(client) as connection,
    ):
        connection.sendall(request())
        assert [status for status, *_ in answers(connection)] == [200]
