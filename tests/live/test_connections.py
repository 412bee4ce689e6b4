"""HTTP connections to a running server: limits, errors, keep-alive and pipelining."""

import re
import socket
import threading
import time
from contextlib import ExitStack, suppress

import psutil
import pytest

from house import EXAMPLE
from serving.errors import MAX_HEAD_BYTES
from tests.helpers.commands import running_server, wait_until
from tests.helpers.raw_http import (
    CHUNKED_HEAD,
    EXAMPLE_BODY,
    connect,
    read_responses,
    request,
)
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

pytestmark = pytest.mark.slow  # it waits for timeouts


@pytest.fixture(scope="module")
def limited(model, tmp_path_factory):
    """A client of a service with short timeouts and a small body limit."""
    log = tmp_path_factory.mktemp("limited") / "log"
    limits = {"REQUEST_TIMEOUT": "0.5", "KEEP_ALIVE": "2", "MAX_BODY_BYTES": "100000"}
    with running_server("bentoml", "serve", log=log, **limits) as client:
        yield client


@pytest.fixture
def connection(limited):
    """A connection to the service with short timeouts."""
    with connect(limited) as connection:
        yield connection


def count_unknown_path_requests(client, status):
    """Return the metric of requests to unknown paths that got this status."""
    pattern = rf'request_total{{endpoint="unknown",http_response_code="{status}".*}} (.*)'
    return sum(map(float, re.findall(pattern, client.get("/metrics").text)))


def send_slowly(connection, data, seconds):
    """Send data in parts of 10 bytes over a time, or until the server closes the connection."""
    with suppress(OSError):
        for start in range(0, len(data), 10):
            connection.sendall(data[start : start + 10])
            time.sleep(seconds * 10 / len(data))


INVALID_REQUESTS = {
    "not HTTP": (b"hello\r\n\r\n", 400, "Invalid method"),
    "unknown method": (request(method="FOO"), 400, "Invalid method"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "Invalid method"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "not valid HTTP/1.1"),
    "control character in path": (request("\x01"), 400, "start char in url"),
    "repeated Content-Length": (request("/predict", "Content-Length: 1"), 400, "Content-Length"),
    "folded header": (request("/predict", "X: a\r\n b"), 400, "whitespace after header value"),
    "space before colon": (request("/predict", "X : a"), 400, "Invalid header token"),
    "invalid version": (request().replace(b"/1.1", b"/1.2"), 400, "Invalid HTTP version"),
    "repeated Host": (request("/predict", "Host: y"), 400, "one Host header"),
    "missing Host": (request().replace(b"Host: x\r\n", b""), 400, "one Host header"),
    "Content-Length and chunked": (
        request("/predict", "Transfer-Encoding: chunked"),
        400,
        "Content-Length can't be present with Transfer-Encoding",
    ),
    "invalid chunk size": (CHUNKED_HEAD + b"x\r\n", 400, "chunk size"),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "CONNECT is not supported"),
    "long path": (request("/" + "x" * MAX_HEAD_BYTES), 431, "over 16384 bytes"),
    "long header": (request("/predict", "X: " + "x" * MAX_HEAD_BYTES), 431, "over 16384 bytes"),
    "many headers": (request("/predict", *["X: x"] * 5000), 431, "over 16384 bytes"),
    "long trailer": (CHUNKED_HEAD + b"0\r\nX: " + b"x" * 2**19, 431, "over 16384 bytes"),
    "long chunk extension": (CHUNKED_HEAD + b"1;" + b"x" * 2**19, 431, "over 16384 bytes"),
    "incomplete head": (b"POST /predict HTTP/1.1\r\nHo", 408, "not complete within 0.5 s"),
    "empty line": (b"\r\n", 408, "not complete within 0.5 s"),
    "incomplete body": (request(length=1000), 408, "not complete within 0.5 s"),
    "incomplete body to /model": (
        request("/model", length=1000),
        408,
        "not complete within 0.5 s",
    ),
    "incomplete trailers": (CHUNKED_HEAD + b"1\r\n1\r\n0\r\n", 408, "not complete within 0.5 s"),
    "Content-Length over limit": (request(length=100001), 413, "over 100000 bytes"),
    "body over limit to unknown path": (
        request("/nowhere", body=b" " * 2**20, length=2**21),
        413,
        "over 100000 bytes",
    ),
    "wrong Content-Type, incomplete body": (
        request(length=100000).replace(b"json", b"xml"),
        415,
        "Content-Type",
    ),
    "wrong method, incomplete body": (request(method="PUT", length=100000), 405, "Use POST here"),
}


@pytest.mark.parametrize(
    ("sent", "expected_status", "message"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS
)
def test_invalid_request_is_rejected_and_connection_closed(
    limited, connection, sent, expected_status, message
):
    """The error has the JSON format and a request ID, and does not wait for more data."""
    connection.sendall(sent)
    ((status, headers, body),) = read_responses(connection)
    assert status == expected_status
    assert message in body["message"]
    if status not in (400, 405):
        documented = limited.get("/docs.json").json()["paths"]["/predict"]["post"]["responses"]
        assert documented[str(status)]["content"]["application/json"]["example"] == body
    assert headers["connection"] == "close"
    assert len(headers["x-request-id"]) == 32


def test_protocol_error_is_reported_without_api_key(model, tmp_path):
    """The key may be in the part of the request that the server could not parse."""
    key = "0123456789abcdef"
    expected_statuses = {
        b"hello\r\n\r\n": 400,
        b"POST /predict HTTP/1.1\r\nHo": 408,
        request("/" + "x" * MAX_HEAD_BYTES, f"Authorization: Bearer {key}"): 431,
        request("/predict", "Host: y", f"Authorization: Bearer {key}"): 400,
        request(): 401,
    }
    limits = {"REQUEST_TIMEOUT": "0.5", "API_KEYS": key}
    with running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client:
        for sent, expected_status in expected_statuses.items():
            with connect(client) as connection:
                connection.sendall(sent)
                ((status, *_),) = read_responses(connection, 1)
            assert status == expected_status


def test_malformed_request_is_counted_and_logged_once(limited):
    """It counts as a request to an unknown path; uvicorn logs no warning about it."""

    def count_log_lines():
        return limited.log.read_text().count(' - "-" 400 ')

    requests, log_lines = count_unknown_path_requests(limited, 400), count_log_lines()
    for _ in range(5):
        with connect(limited) as connection:
            connection.sendall(b"hello\r\n\r\n")
            assert read_responses(connection)
    assert count_unknown_path_requests(limited, 400) == requests + 5
    wait_until(lambda: count_log_lines() == log_lines + 5, limited.log)
    assert not re.search("Traceback|WARNING|ERROR", limited.log.read_text())


@pytest.mark.parametrize(
    "sent",
    [request(), CHUNKED_HEAD + b"200\r\n" + b" " * 0x200],
    ids=["Content-Length", "chunked"],
)
def test_slow_upload_is_rejected_with_408(connection, sent):
    """REQUEST_TIMEOUT limits the time of the whole request, not that between two packets."""
    sender = threading.Thread(target=send_slowly, args=(connection, sent, 3))
    sender.start()
    ((status, _, _),) = read_responses(connection)
    sender.join()
    assert status == 408


@pytest.mark.parametrize("sent", [b"", request()], ids=["new connection", "after a response"])
def test_idle_connection_is_closed_without_error_response(connection, sent):
    """REQUEST_TIMEOUT closes a new connection, KEEP_ALIVE one that has had a response."""
    connection.sendall(sent)
    assert [status for status, *_ in read_responses(connection)] == [200] * bool(sent)


def test_head_that_begins_before_the_response_is_limited_after_it(connection):
    """REQUEST_TIMEOUT applies to it, not the longer KEEP_ALIVE of an idle connection."""
    connection.settimeout(1.5)  # REQUEST_TIMEOUT is 0.5 s, KEEP_ALIVE 2 s
    connection.sendall(request() + request()[:20])
    assert [status for status, *_ in read_responses(connection)] == [200, 408]


def test_default_keep_alive_outlasts_uvicorns(live):
    """A proxy whose idle timeout is over uvicorn's 5 s must still be the first to close."""
    with connect(live) as connection:
        connection.sendall(request())
        assert read_responses(connection, 1)
        connection.settimeout(7)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_rejected_request_with_small_body_keeps_connection_alive(connection):
    """The server discards the small body of a rejected request, and serves the next request."""
    connection.sendall(request().replace(b"json", b"xml") + request(method="PUT") + request())
    responses = read_responses(connection, 3)
    assert [status for status, *_ in responses] == [415, 405, 200]
    assert not any("connection" in headers for _, headers, _ in responses)


def test_client_that_sends_oversized_body_receives_413(connection):
    """Lingering close: the client can read the error, although the server does not read it all."""
    connection.sendall(request(length=10**8))
    sent_bytes = 0
    with suppress(OSError):
        while sent_bytes < 10**8:
            sent_bytes += connection.send(b" " * 10**5)
    assert sent_bytes < 10**8
    ((status, _, _),) = read_responses(connection)
    assert status == 413


@pytest.mark.parametrize(
    ("sent", "expected_statuses"),
    [
        (
            request("/predict", "Expect: 100-continue", body=b"", length=len(EXAMPLE_BODY)),
            [100, 200],
        ),
        (request("/predict", "Expect: 100-continue", body=b"", length=10**8), [413]),
    ],
    ids=["body within limit", "body over limit"],
)
def test_expect_100_continue_gets_100_or_error_before_body(connection, sent, expected_statuses):
    """The client sends its body only after 100 Continue."""
    connection.sendall(sent)
    responses = read_responses(connection, 1)
    if expected_statuses[0] == 100:
        connection.sendall(EXAMPLE_BODY)
        responses += read_responses(connection, 1)
    assert [status for status, *_ in responses] == expected_statuses


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("parts", [1, 2])
def test_upgrade_header_is_ignored(connection, upgrade, parts):
    """The request is served with its body, in one packet or two, and so is the next request."""
    sent = request("/predict", "Connection: Upgrade", f"Upgrade: {upgrade}")
    for part in [sent] if parts == 1 else [sent[:-100], sent[-100:]]:
        connection.sendall(part)
        time.sleep(0.1)
    connection.sendall(request())
    assert [body for *_, body in read_responses(connection, 2)] == [TUTORIAL_RESPONSE] * 2


def test_websocket_handshake_to_unknown_path_gets_404(connection):
    """The server handles it as a GET request."""
    headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    connection.sendall(request("/nowhere", *headers, method="GET", body=b""))
    ((status, _, body),) = read_responses(connection, 1)
    assert (status, list(body)) == (404, ["message"])


def test_protocol_error_is_sent_after_responses_to_earlier_requests(connection):
    """Responses to pipelined requests keep their order."""
    connection.sendall(request() * 3 + b"garbage\r\n\r\n")
    assert [status for status, *_ in read_responses(connection)] == [200, 200, 200, 400]


def test_size_of_a_pipelined_head_is_limited(connection):
    """Also if it arrives together with the request before it."""
    first = request("/livez", method="GET", body=b"")
    connection.sendall(first + request("/predict", f"X: {'x' * MAX_HEAD_BYTES}"))
    assert [status for status, *_ in read_responses(connection)] == [200, 431]


@pytest.mark.parametrize(
    "headers", [[], ["Connection: Upgrade", "Upgrade: websocket"]], ids=["plain", "upgrade"]
)
def test_excessive_pipelining_is_rejected_with_429(connection, headers):
    """A client may pipeline a few requests, but not thousands."""
    connection.sendall(request("/livez", *headers, method="GET", body=b"") * 2000)
    statuses = [status for status, *_ in read_responses(connection)]
    assert statuses[-1] == 429
    assert len(statuses) < 100


def test_client_that_reads_no_responses_is_disconnected(limited):
    """Otherwise its responses would fill the memory, and its connection would stay open."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect((limited.base_url.host, limited.base_url.port))
        bundle = request("/static_content/swagger-ui-bundle.js", method="GET", body=b"")
        connection.sendall(bundle * 10)  # the responses exceed the kernel's buffers

        def is_open():
            worker, *_ = psutil.Process(limited.server.pid).children()
            return connection.getsockname() in [tuple(c.raddr) for c in worker.net_connections()]

        wait_until(lambda: not is_open(), limited.log)


def test_slow_clients_do_not_block_others(limited):
    """Predictions succeed while 1500 clients connect and send only a part of a head or a body."""
    with ExitStack() as stack:
        for number in range(1500):
            slow = stack.enter_context(connect(limited))
            slow.sendall(request()[: 20 if number % 2 else -20])
            if number % 300 == 0:
                assert limited.post("/predict", json=EXAMPLE).json() == {
                    "prediction": TUTORIAL_PREDICTION
                }


@pytest.mark.parametrize(
    "sent",
    [request(), request() * 3, request("/nowhere"), request("/model")],
    ids=["one request", "pipelined requests", "unknown path", "/model"],
)
def test_half_closed_connection_gets_all_responses(connection, sent):
    """`nc -N` closes its sending side after the request, but still reads."""
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    assert len(read_responses(connection)) == sent.count(b"HTTP/1.1")


def test_service_works_with_low_limit_of_open_files(model, tmp_path):
    """The server closes idle connections to accept new ones."""
    command = "ulimit -n 256; exec bentoml serve"
    with (
        running_server("bash", "-c", command, log=tmp_path / "log") as client,
        ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(connect(client))
        newest = stack.enter_context(connect(client))
        newest.sendall(request())
        assert [body for *_, body in read_responses(newest, 1)] == [TUTORIAL_RESPONSE]


def test_response_head_and_body_arrive_together(connection):
    """The server sends both in one system call, so that the client needs only one, too."""
    for _ in range(20):
        connection.sendall(request())
        assert connection.recv(1 << 16).endswith(b"}")


def test_head_response_is_sent_although_no_body_follows(connection):
    """The server keeps the head of a response back to send it with the body."""
    connection.sendall(request("/livez", method="HEAD", body=b"") + request())
    with connection.makefile("rb") as stream:
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"\r\n" in iter(stream.readline, b"")
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"


def test_command_line_option_overrides_keep_alive_setting(model, tmp_path):
    """The exception is BentoML's default, 5 s, which looks the same as no option."""
    command = ["bentoml", "serve", "--timeout-keep-alive", "1"]
    with (
        running_server(*command, log=tmp_path / "log", KEEP_ALIVE="60") as client,
        connect(client) as connection,
    ):
        connection.sendall(request())
        assert [status for status, *_ in read_responses(connection)] == [200]
