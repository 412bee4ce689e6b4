"""The edge, around a small application: limits, request IDs, and the one shape of errors."""

import asyncio
import json
import random

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.errors import APIError
from serving.http.app import ServiceApp
from serving.http.auth import BASIC_CHALLENGE
from serving.http.body import BodyReader
from serving.observability.request_metrics import RequestMetrics
from serving.settings import Settings

JSON = {"Content-Type": "application/json"}
KEY = "key-of-18-letters!"


async def measure(request_id, body):
    """Answer with the size of the body."""
    return b'{"size": %d}' % len(body), "tag:1"


async def refuse(request_id, body):
    """Refuse, as a record does."""
    raise APIError(400, {"RM": "No RM provided"})


async def crash(request_id, body):
    """Fail with words that are nobody's business."""
    try:
        raise KeyError(body)
    except KeyError as error:
        raise RuntimeError(body) from error


async def hang(request_id, body):
    """Take longer than anybody waits."""
    await asyncio.sleep(60)


async def hang_and_fail(request_id, body):
    """Turn a cancellation into an error, as BentoML's dispatcher does."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise RuntimeError("overloaded") from None


async def page(request):
    """Answer with a status that the caller asks for, in another shape than ours."""
    status = int(request.query_params.get("status", 200))
    return PlainTextResponse("secret", status, {"X-Secret": "1"})


async def echo(request):
    """Answer with the body, which the edge has read before."""
    return PlainTextResponse(await request.body())


def service_app(app, predictors, endpoints=(), unlogged_paths=(), **settings):
    """Return a `ServiceApp` without a prediction log."""
    labels = {"service_name": "", "service_version": "", "runner_name": ""}
    metrics = RequestMetrics(predictors, labels, "test", (1.0,))
    settings = Settings(**settings)
    return ServiceApp(app, predictors, endpoints, unlogged_paths, settings, metrics, None)


def edge(**limits):
    """Return an edge with narrow limits around these predictors and this page."""
    predictors = {f"/{p.__name__}": p for p in (measure, refuse, crash, hang, hang_and_fail)}
    limits = {"max_body_bytes": 100, "request_timeout": 0.2, "access_log": "off"} | limits
    app = Starlette(routes=[Route("/page", page), Route("/echo", echo, methods=["POST"])])
    return service_app(app, predictors, {"/page", *predictors}, {"/livez"}, **limits)


@pytest.fixture
def client():
    """A client of that edge."""
    with TestClient(edge(), raise_server_exceptions=False) as client:
        yield client


def body(size, announced):
    """Return a body, either with its length or in parts, for which no length is known."""
    return b"x" * size if announced else (b"x" for _ in range(size))


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"],
)
def test_json_is_accepted(client, media_type):
    """In any spelling that means it."""
    answer = client.post("/measure", headers={"Content-Type": media_type}, content="{}")
    assert answer.json() == {"size": 2}
    assert answer.headers["x-model-tag"] == "tag:1"


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
def test_anything_else_is_not(client, headers):
    """415, and what to send."""
    answer = client.post("/measure", headers=headers, content="{}")
    assert answer.status_code == 415
    assert answer.json() == {"message": "Send the header Content-Type: application/json"}


def test_body_that_is_compressed_is_refused_as_such(client):
    """415: it is not looked into."""
    answer = client.post("/measure", headers=JSON | {"Content-Encoding": "gzip"}, content="{}")
    assert answer.status_code == 415
    assert "without the header Content-Encoding" in answer.json()["message"]


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_a_body_is_refused(client, announced):
    """413, whether or not Content-Length tells; a body of the limit passes."""
    assert client.post("/measure", headers=JSON, content=body(100, announced)).json()["size"] == 100
    answer = client.post("/measure", headers=JSON, content=body(101, announced))
    assert answer.status_code == 413
    assert answer.json()["message"].startswith("The body is over 100 bytes")


def test_no_id_is_given_twice(client):
    """Even if a model seeds the generator that all share."""
    ids = set()
    for _ in range(2):
        random.seed(0)
        ids.add(client.get("/page").headers["x-request-id"])
    assert len(ids) == 2


def test_refusal_is_answered_as_it_is(client):
    """With its status and its message."""
    answer = client.post("/refuse", headers=JSON)
    assert answer.status_code == 400
    assert answer.json() == {"message": {"RM": "No RM provided"}}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Bad Request"),
        (404, "Nothing is here; GET / describes the API"),
        (405, "Use GET, HEAD here"),
        (416, "Requested Range Not Satisfiable"),
        (500, "Internal error; report it with request ID abc"),
        (503, "Not ready to answer; try again in a second"),
    ],
)
def test_errors_of_the_application_are_reworded(client, status, words):
    """They keep their status, and lose their words and headers."""
    answer = client.get("/page", params={"status": status}, headers={"X-Request-ID": "abc"})
    assert answer.status_code == status
    assert answer.json() == {"message": words}
    assert "x-secret" not in answer.headers
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("allow" in answer.headers) == (status == 405)


def test_other_answers_of_the_application_are_passed_on(client):
    """As they are, with a request ID."""
    answer = client.get("/page")
    assert answer.text == "secret"
    assert answer.headers["x-secret"] == "1"
    assert len(answer.headers["x-request-id"]) == 32


def test_application_gets_the_body(client):
    """As it would without the edge, and within its limit."""
    assert client.post("/echo", content=b"x" * 100).text == "x" * 100
    assert client.post("/echo", content=b"x" * 101).status_code == 413


@pytest.mark.parametrize("path", ["/nowhere", "/measure/", "/measure%0a", "//measure"])
def test_path_that_only_looks_like_a_prediction_is_none(client, path):
    """404, so that nothing gets around the limits."""
    assert client.post(path, headers=JSON).status_code == 404


@pytest.mark.parametrize("path", ["/measure", "/page", "/nowhere", "/livez", "/"])
def test_key_comes_before_everything_else(path):
    """401 whatever else is wrong, except to a probe; with the key the request goes its way."""
    with TestClient(edge(api_keys=KEY), raise_server_exceptions=False) as client:
        without = client.post(path, content="x" * 1000)
        with_key = client.post(path, headers={"Authorization": f"Bearer {KEY}"}, content="x" * 1000)
    assert with_key.status_code != 401
    if path == "/livez":
        assert without.status_code == with_key.status_code
    else:
        assert without.status_code == 401
        assert without.headers["www-authenticate"] == BASIC_CHALLENGE
        assert without.json().keys() == {"message"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_prediction_takes_post_only(client, method):
    """405, with what is allowed."""
    answer = client.request(method, "/measure")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json() == {"message": "Use POST here"}


def test_fault_of_ours_tells_its_request_id_and_nothing_else(client, caplog):
    """The log has the same ID, and where it arose, but no message: this one quotes the body."""
    answer = client.post("/crash", headers=JSON | {"X-Request-ID": "abc-1"}, content="s3cr3t")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.json() == {"message": "Internal error; report it with request ID abc-1"}
    (record,) = caplog.records
    first, *lines = record.getMessage().splitlines()
    assert first == "Request abc-1 failed"
    assert [line for line in lines if not line.startswith("  ")] == ["KeyError", "RuntimeError"]
    assert sum("in crash" in line for line in lines) == 2
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "x" * 65, "é"])
def test_request_ids_that_could_forge_the_log_are_replaced(client, name):
    """By one of ours."""
    answer = client.post("/measure", headers={"X-Request-ID": name.encode()})
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/hang", "/hang_and_fail"])
def test_late_prediction_is_given_up(client, caplog, path):
    """504, whatever comes of the cancellation of what was under way; no traceback."""
    answer = client.post(path, headers=JSON)
    assert answer.status_code == 504
    assert answer.json() == {"message": "No prediction within 0.2 s; try again"}
    assert not caplog.records


@pytest.mark.parametrize("path", ["/measure", "/page"])
def test_late_body_is_given_up(path):
    """408, and the connection with it; its memory is free again."""

    async def stall():
        return next(parts, None) or await asyncio.sleep(60)

    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}])
    status, headers, answer = asyncio.run(post(edge(), path, stall))
    assert status == 408
    assert headers[b"connection"] == b"close"
    assert answer == {"message": "The request was not complete within 0.2 s; try again"}
    assert BodyReader.buffered_bytes == 0


def post(edge, path, receive=None):
    """Send a request to an edge directly; return the status, the headers and the body."""

    async def send(message):
        sent.append(message)

    async def no_body():
        return {"type": "http.request"}

    async def answer():
        await edge(scope, receive or no_body, send)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])

    sent = []
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    return answer()


def test_one_too_many_at_once_is_refused():
    """429 at once; the next one is served when the first is done."""

    async def wait(request_id, body):
        await release.wait()
        return b"{}", "tag:1"

    async def scenario():
        first = asyncio.create_task(post(busy, "/wait"))
        await asyncio.sleep(0)
        second = await post(busy, "/wait")
        release.set()
        return await first, second, await post(busy, "/wait")

    release = asyncio.Event()
    busy = service_app(None, {"/wait": wait}, max_concurrency=1, access_log="off")
    first, second, third = asyncio.run(scenario())
    assert (first[0], second[0], third[0]) == (200, 429, 200)
    assert second[1][b"retry-after"] == b"1"


def test_client_that_leaves_costs_no_traceback(caplog):
    """A connection that closes before the body is complete is a mistake of the caller."""

    async def leave():
        return next(messages, {"type": "http.disconnect"})

    messages = iter([{"type": "http.request", "more_body": True}])
    status, _, answer = asyncio.run(post(edge(), "/measure", leave))
    assert status == 400
    assert answer == {"message": "The connection closed before the body was complete"}
    assert not caplog.records
