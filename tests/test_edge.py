"""The edge, around a small application: limits, request IDs, and the one shape of errors."""

import asyncio
import json
import logging

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.edge import Edge
from serving.refusal import Refusal
from serving.settings import Settings

JSON = {"Content-Type": "application/json"}


async def echo(request):
    """Answer with the size of the body."""
    return PlainTextResponse(str(len(await request.body())))


async def refuse(request):
    """Refuse, as a record does."""
    raise Refusal(400, {"RM": "No RM provided"})


async def crash(request):
    """Fail with words that are nobody's business."""
    raise RuntimeError("secret")


async def fail(request):
    """Answer an error in another shape, as BentoML does."""
    status = int(request.query_params["status"])
    return PlainTextResponse("secret", status, {"X-Secret": "1"})


async def hang(request):
    """Take longer than anybody waits."""
    await asyncio.sleep(60)


async def hang_and_answer(request):
    """Turn a cancellation into an answer, as BentoML's dispatcher does."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return PlainTextResponse("overloaded", 503)


ENDPOINTS = [echo, refuse, crash, fail, hang, hang_and_answer]


@pytest.fixture
def client():
    """A client of the application behind an edge with narrow limits."""
    settings = Settings(max_body_bytes=100, max_concurrency=1, request_timeout=0.2)
    paths = {f"/{endpoint.__name__}": endpoint for endpoint in ENDPOINTS}
    app = Starlette(
        routes=[Route(path, endpoint, methods=["POST"]) for path, endpoint in paths.items()],
        middleware=[Middleware(Edge, predictions=paths.keys() - {"/fail"}, settings=settings)],
    )
    with TestClient(app) as client:
        yield client


def chunks(size):
    """Yield a body in parts, for which the client cannot announce a length."""
    for _ in range(size):
        yield b"x"


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"],
)
def test_json_is_accepted(client, media_type):
    """In any spelling that means it."""
    assert client.post("/echo", headers={"Content-Type": media_type}, content="{}").text == "2"


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
    ],
    ids=str,
)
def test_anything_else_is_not(client, headers):
    """415, and what to send."""
    answer = client.post("/echo", headers=headers, content="{}")
    assert answer.status_code == 415
    assert answer.json() == {"message": "Send the header Content-Type: application/json"}


@pytest.mark.parametrize("body", [b"x" * 101, chunks(101)], ids=["announced", "streamed"])
def test_too_large_a_body_is_refused(client, body):
    """413, whether or not Content-Length tells."""
    answer = client.post("/echo", headers=JSON, content=body)
    assert answer.status_code == 413
    assert answer.json()["message"].startswith("The body is over 100 bytes")


@pytest.mark.parametrize("body", [b"x" * 100, chunks(100)], ids=["announced", "streamed"])
def test_a_body_of_the_limit_is_not(client, body):
    """The limit is the largest size that passes."""
    assert client.post("/echo", headers=JSON, content=body).text == "100"


def test_refusal_is_answered_as_it_is(client):
    """With its status and its message."""
    answer = client.post("/refuse", headers=JSON, content="{}")
    assert answer.status_code == 400
    assert answer.json() == {"message": {"RM": "No RM provided"}}


@pytest.mark.parametrize("status", [400, 401, 404, 405, 422, 500, 502, 503])
def test_foreign_errors_are_reworded(client, status):
    """They keep their status (a server's error is a 500), and lose their words and headers."""
    answer = client.post("/fail", params={"status": status}, headers=JSON)
    assert answer.status_code == (500 if status == 502 else status)
    assert answer.json().keys() == {"message"}
    assert "secret" not in str(answer.headers) + answer.text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_unknown_path_and_method(client):
    """404, and 405 with what is allowed."""
    assert client.get("/nowhere").status_code == 404
    answer = client.get("/echo")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json() == {"message": "Use POST here"}


def test_fault_of_ours_tells_its_request_id_and_nothing_else(client, caplog):
    """The log has the same ID, with the traceback."""
    answer = client.post("/crash", headers=JSON | {"X-Request-ID": "abc-1"}, content="{}")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.json() == {"message": "Internal error; report it with request ID abc-1"}
    (record,) = caplog.records
    assert record.getMessage() == "Request abc-1 failed"
    assert record.exc_info


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "x" * 65, "é"])
def test_request_ids_that_could_forge_the_log_are_replaced(client, name):
    """By one of ours."""
    headers = {"X-Request-ID": name.encode()}
    assert len(client.post("/echo", headers=headers).headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/hang", "/hang_and_answer"])
def test_late_prediction_is_given_up(client, path):
    """504, even if the cancellation of what was under way brought an answer."""
    answer = client.post(path, headers=JSON, content="{}")
    assert answer.status_code == 504
    assert answer.json() == {"message": "No prediction within 0.2 s; try again"}


def test_one_too_many_at_once_is_refused():
    """429 at once, and the next one is served when the first is done."""

    async def wait(scope, receive, send):
        await release.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def post():
        sent = []

        async def send(message):
            sent.append(message)

        await edge(scope, None, send)
        return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")

    async def scenario():
        first = asyncio.create_task(post())
        await asyncio.sleep(0)
        second = await post()
        release.set()
        return await first, second, await post()

    release = asyncio.Event()
    edge = Edge(wait, {"/p"}, Settings(max_concurrency=1))
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/p", "headers": headers}
    assert asyncio.run(scenario()) == ((200, None), (429, b"1"), (200, None))


def test_client_that_leaves_costs_one_line(caplog):
    """A connection that closes before the body is complete raises nothing and logs nothing here."""

    async def read(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    async def leave():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    messages = [{"type": "http.request", "more_body": True}, {"type": "http.disconnect"}]
    sent = []
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/p", "headers": headers}
    with caplog.at_level(logging.INFO):
        asyncio.run(Edge(read, {"/p"}, Settings())(scope, leave, send))
    assert sent[0]["status"] == 400
    assert "closed" in json.loads(sent[1]["body"])["message"]
    assert not caplog.records
