"""`ServiceApp` with stub predictors: limits, request IDs, and the JSON error format."""

import asyncio
import json
import random
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.errors import UNPREDICTABLE, APIError, UnpredictableError
from serving.http.app import ServiceApp
from serving.http.auth import BASIC_CHALLENGE
from serving.http.body import BodyReader
from serving.observability.request_metrics import RequestMetrics
from serving.settings import Settings

JSON = {"Content-Type": "application/json"}
KEY = "key-of-18-letters!"


async def measure(request_id, body, what_if):
    """Return the size of the body as the prediction."""
    return b'{"size": %d}' % len(body), b"tag:1"


async def reject(request_id, body, what_if):
    """Raise the error of an invalid record."""
    raise APIError(400, {"RM": "No RM provided"})


async def crash(request_id, body, what_if):
    """Raise an exception, with a cause, whose messages quote the body."""
    try:
        raise KeyError(body)
    except KeyError as error:
        raise RuntimeError(body) from error


async def hang(request_id, body, what_if):
    """Take longer than the request timeout."""
    await asyncio.sleep(60)


async def hang_and_fail(request_id, body, what_if):
    """Hang, and turn the cancellation into an error, as BentoML's dispatcher does."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise RuntimeError("overloaded") from None


async def page(request):
    """Respond with the requested status, in plain text, as another application would."""
    status = int(request.query_params.get("status", 200))
    return PlainTextResponse("secret", status, {"X-Secret": "1"})


async def echo(request):
    """Respond with the body, which `ServiceApp` has read before."""
    return PlainTextResponse(await request.body())


def service_app(bentoml_app, predictors, endpoints=(), unlogged_paths=(), **settings):
    """Return a `ServiceApp` without a prediction log."""
    labels = {"service_name": "", "service_version": "", "runner_name": ""}
    metrics = RequestMetrics(predictors, labels, "test", (1.0,))
    settings = Settings(**settings)
    return ServiceApp(bentoml_app, predictors, endpoints, unlogged_paths, settings, metrics, None)


def limited_app(**limits):
    """Return a `ServiceApp` with low limits, the predictors above, and the pages above."""
    predictors = {f"/{p.__name__}": p for p in (measure, reject, crash, hang, hang_and_fail)}
    limits = {"max_body_bytes": 100, "request_timeout": 0.2, "access_log": "off"} | limits
    app = Starlette(routes=[Route("/page", page), Route("/echo", echo, methods=["POST"])])
    return service_app(app, predictors, {"/page", *predictors}, {"/livez"}, **limits)


@pytest.fixture
def client():
    """A client of that application."""
    with TestClient(limited_app(), raise_server_exceptions=False) as client:
        yield client


def make_body(size, chunked):
    """Return a body of known length, or an iterator, which the client sends in chunks."""
    return (b"x" for _ in range(size)) if chunked else b"x" * size


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"],
)
def test_json_content_type_is_accepted(client, media_type):
    """Media types are case-insensitive, and may have parameters."""
    response = client.post("/measure", headers={"Content-Type": media_type}, content="{}")
    assert response.json() == {"size": 2}
    assert response.headers["x-model-tag"] == "tag:1"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/vnd.bentoml+pickle"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": b"\xff"},
    ],
    ids=str,
)
def test_other_content_type_is_rejected_with_415(client, headers):
    """The message says what to send."""
    response = client.post("/measure", headers=headers, content="{}")
    assert response.status_code == 415
    assert response.json() == {"message": "Send the header Content-Type: application/json"}


def test_compressed_body_is_rejected_with_415(client):
    """The service does not decompress it."""
    response = client.post("/measure", headers=JSON | {"Content-Encoding": "gzip"}, content="{}")
    assert response.status_code == 415
    assert "without the header Content-Encoding" in response.json()["message"]


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
def test_oversized_body_is_rejected_with_413(client, chunked):
    """With and without Content-Length; a body of exactly the limit is accepted."""
    largest = client.post("/measure", headers=JSON, content=make_body(100, chunked))
    assert largest.json()["size"] == 100
    response = client.post("/measure", headers=JSON, content=make_body(101, chunked))
    assert response.status_code == 413
    assert response.json()["message"].startswith("The body is over 100 bytes")


def test_request_ids_are_unique_if_random_is_seeded(client):
    """A model may seed the global generator."""
    ids = set()
    for _ in range(2):
        random.seed(0)
        ids.add(client.get("/page").headers["x-request-id"])
    assert len(ids) == 2


def test_api_error_of_a_predictor_is_sent(client):
    """With its status and its message."""
    response = client.post("/reject", headers=JSON)
    assert response.status_code == 400
    assert response.json() == {"message": {"RM": "No RM provided"}}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Bad Request"),
        (404, "Nothing is here; GET / describes the API"),
        (405, "Use GET, HEAD here"),
        (416, "Requested Range Not Satisfiable"),
        (500, "Internal error; report it with request ID abc"),
        (503, "Not ready to answer; try again in a second"),
    ],
)
def test_error_of_bentomls_application_gets_another_message(client, status, message):
    """The status is kept; the text and the headers are dropped."""
    response = client.get("/page", params={"status": status}, headers={"X-Request-ID": "abc"})
    assert response.status_code == status
    assert response.json() == {"message": message}
    assert "x-secret" not in response.headers
    assert ("retry-after" in response.headers) == (status == 503)
    assert ("allow" in response.headers) == (status == 405)


def test_other_response_of_bentomls_application_is_forwarded(client):
    """Unchanged, except for an additional request ID."""
    response = client.get("/page")
    assert response.text == "secret"
    assert response.headers["x-secret"] == "1"
    assert len(response.headers["x-request-id"]) == 32


def test_body_is_forwarded_to_bentomls_application(client):
    """Within the limit; a larger one is rejected."""
    assert client.post("/echo", content=b"x" * 100).text == "x" * 100
    assert client.post("/echo", content=b"x" * 101).status_code == 413


@pytest.mark.parametrize("path", ["/nowhere", "/measure/", "/measure%0a", "//measure"])
def test_path_similar_to_a_prediction_route_is_rejected_with_404(client, path):
    """Otherwise it would bypass the limits on predictions."""
    assert client.post(path, headers=JSON).status_code == 404


@pytest.mark.parametrize("path", ["/measure", "/page", "/nowhere", "/livez", "/"])
def test_api_key_is_checked_before_everything_else(path):
    """Without a key the status is 401, whatever else is wrong. Probes need no key."""
    with TestClient(limited_app(api_keys=KEY), raise_server_exceptions=False) as client:
        without_key = client.post(path, content="x" * 1000)
        with_key = client.post(path, headers={"Authorization": f"Bearer {KEY}"}, content="x" * 1000)
    assert with_key.status_code != 401
    if path == "/livez":
        assert without_key.status_code == with_key.status_code
    else:
        assert without_key.status_code == 401
        assert without_key.headers["www-authenticate"] == BASIC_CHALLENGE
        assert without_key.json().keys() == {"message"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_prediction_route_rejects_other_methods_with_405(client, method):
    """The response names the allowed method."""
    response = client.request(method, "/measure")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json() == {"message": "Use POST here"}


def test_internal_error_exposes_only_the_request_id(client, caplog):
    """The log has the ID and both tracebacks, but no messages: they may quote the body."""
    response = client.post("/crash", headers=JSON | {"X-Request-ID": "abc-1"}, content="s3cr3t")
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "abc-1"
    assert response.json() == {"message": "Internal error; report it with request ID abc-1"}
    client.app.error_log.writer.close()
    (record,) = caplog.records
    first, *lines = record.getMessage().splitlines()
    assert first == "Request abc-1 failed"
    assert [line for line in lines if not line.startswith("  ")] == ["KeyError", "RuntimeError"]
    assert sum("in crash" in line for line in lines) == 2
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize("request_id", ["", "a b", "a\tb", "x" * 65, "é"])
def test_unsafe_request_id_is_replaced(client, request_id):
    """Otherwise a client could forge parts of a log line."""
    response = client.post("/measure", headers={"X-Request-ID": request_id.encode()})
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/hang", "/hang_and_fail"])
def test_slow_prediction_is_rejected_with_504(client, caplog, path):
    """Even if the cancelled prediction raises another error. Nothing is logged."""
    response = client.post(path, headers=JSON)
    assert response.status_code == 504
    assert response.json() == {"message": "No prediction within 0.2 s; try again"}
    assert not caplog.records


@pytest.mark.parametrize("path", ["/measure", "/page"])
def test_slow_body_is_rejected_with_408(path):
    """The connection is closed, and the memory of the body is free again."""

    async def stall():
        return next(parts, None) or await asyncio.sleep(60)

    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}])
    status, headers, response = asyncio.run(post(limited_app(), path, stall))
    assert status == 408
    assert headers[b"connection"] == b"close"
    assert response == {"message": "The request was not complete within 0.2 s; try again"}
    assert BodyReader.buffered_bytes == 0


def post(app, path, receive=None):
    """Call an application without a server; return the status, the headers and the body."""

    async def send(message):
        sent.append(message)

    async def no_body():
        return {"type": "http.request"}

    async def call():
        await app(scope, receive or no_body, send)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])

    sent = []
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    return call()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, False), ({"X-What-If": "true"}, True), ({"x-what-if": "false"}, False)],
    ids=str,
)
def test_header_marks_the_records_of_a_request_as_what_if(headers, expected):
    """Only the value `true` does."""
    seen = []

    async def record(request_id, body, what_if):
        seen.append(what_if)
        return b"{}", b"tag:1"

    app = service_app(None, {"/record": record}, access_log="off")
    assert TestClient(app).post("/record", headers={**JSON, **headers}, content="{}").is_success
    assert seen == [expected]


def test_prediction_beyond_max_concurrency_is_rejected_with_429():
    """It is rejected at once; after the first prediction another one may start."""

    async def wait(request_id, body, what_if):
        await release.wait()
        return b"{}", b"tag:1"

    async def scenario():
        first = asyncio.create_task(post(app, "/wait"))
        await asyncio.sleep(0)
        second = await post(app, "/wait")
        release.set()
        return await first, second, await post(app, "/wait")

    release = asyncio.Event()
    app = service_app(None, {"/wait": wait}, max_concurrency=1, access_log="off")
    first, second, third = asyncio.run(scenario())
    assert (first[0], second[0], third[0]) == (200, 429, 200)
    assert second[1][b"retry-after"] == b"1"


def test_delayed_response_to_an_unpredictable_record_blocks_no_prediction(caplog):
    """It does not count for MAX_CONCURRENCY. The log has the reason, the response has not."""

    async def refuse(request_id, body, what_if):
        raise UnpredictableError(None, True, ValueError("s3cr3t"), delay_seconds=0.2)

    async def scenario():
        start = time.monotonic()
        refused = asyncio.create_task(post(app, "/refuse"))
        await asyncio.sleep(0.05)
        other = await post(app, "/measure")
        seconds_of_other = time.monotonic() - start
        return seconds_of_other, other, await refused, time.monotonic() - start

    predictors = {"/refuse": refuse, "/measure": measure}
    app = service_app(None, predictors, max_concurrency=1, access_log="off")
    seconds_of_other, other, refused, seconds = asyncio.run(scenario())
    assert (other[0], refused[0]) == (200, 422)
    assert seconds_of_other < 0.2 <= seconds
    assert refused[2] == {"message": UNPREDICTABLE}
    app.error_log.writer.close()
    (record,) = caplog.records
    assert "ValueError" in record.getMessage()
    assert "s3cr3t" not in record.getMessage()


def test_disconnect_before_the_body_is_complete_logs_no_traceback(caplog):
    """The client caused it: the status is 400."""

    async def disconnect():
        return next(messages, {"type": "http.disconnect"})

    messages = iter([{"type": "http.request", "more_body": True}])
    status, _, response = asyncio.run(post(limited_app(), "/measure", disconnect))
    assert status == 400
    assert response == {"message": "The connection closed before the body was complete"}
    assert not caplog.records
