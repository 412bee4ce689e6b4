"""Middleware that is added to the service applies to all requests; its errors become JSON."""

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient

from house import EXAMPLE
from service import HousePrice

PREFLIGHT = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}


def test_added_middleware_applies_to_predictions(model):
    """It wraps `ServiceApp`; BentoML's application does not see predictions."""
    with client_with(CORSMiddleware, allow_origins=["https://example.com"]) as client:
        headers = {"Origin": "https://example.com"}
        response = client.post("/predict", json=EXAMPLE, headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://example.com"


def client_with(middleware, **options):
    """Return a client of a second application in this process, with middleware added to it."""
    HousePrice.add_asgi_middleware(middleware, **options)
    app = HousePrice.to_asgi(is_main=True)
    HousePrice.middlewares.clear()
    return TestClient(app)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (PREFLIGHT | {"Origin": "https://other.example"}, "Disallowed CORS origin"),
        (PREFLIGHT | {"Access-Control-Request-Method": "PUT"}, "Disallowed CORS method"),
    ],
    ids=["origin", "method"],
)
def test_rejected_preflight_has_the_json_error_format(model, headers, message):
    """CORSMiddleware answers in plain text, in front of `ServiceApp`."""
    with client_with(
        CORSMiddleware, allow_origins=["https://example.com"], allow_methods=["POST"]
    ) as client:
        response = client.options("/predict", headers={"X-Request-ID": "mine", **headers})
        accepted = client.options("/predict", headers=PREFLIGHT)
    assert response.status_code == 400
    assert response.json() == {"message": message}
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["vary"].startswith("Origin")
    assert accepted.status_code == 200
    assert accepted.headers["access-control-allow-origin"] == "https://example.com"


def test_plain_text_error_of_middleware_has_the_json_error_format(model):
    """The service's own errors pass unchanged."""
    with client_with(TrustedHostMiddleware, allowed_hosts=["testserver"]) as client:
        refused = client.post("/predict", json=EXAMPLE, headers={"Host": "other.example"})
        invalid = client.post("/predict", json={})
    assert (refused.status_code, refused.json()) == (400, {"message": "Invalid host header"})
    assert len(refused.headers["x-request-id"]) == 32
    assert invalid.json()["message"]["LSTAT"] == "No LSTAT provided"


class RejectingMiddleware:
    """Middleware that sends the same error for each request."""

    def __init__(self, app, status, body, **headers):
        self.app = app
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.start = {"type": "http.response.start", "status": status, "headers": raw}
        self.body = body

    async def __call__(self, scope, receive, send):
        """Send the error in two parts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": self.body})


ERROR_RESPONSES = {
    "unknown status": (529, b"<html>", {"content-type": "text/html"}, {"message": "Error"}),
    "compressed": (
        503,
        b"\x1f\x8b",
        {"content-type": "text/plain", "content-encoding": "gzip"},
        {"message": "Service Unavailable"},
    ),
    "long text": (400, b"x" * 150, {"content-type": "text/plain"}, {"message": "x" * 200}),
    "JSON of another type": (
        422,
        b" ",
        {"content-type": "application/problem+json"},
        None,
    ),
}


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"), ERROR_RESPONSES.values(), ids=ERROR_RESPONSES
)
def test_any_error_of_middleware_gets_the_json_error_format_unless_it_is_json(
    model, status, body, headers, expected
):
    """A text is cut to 200 bytes; an error that is JSON already is sent unchanged."""
    with client_with(RejectingMiddleware, status=status, body=body, **headers) as client:
        response = client.post("/predict", json=EXAMPLE)
    assert response.status_code == status
    if expected is None:
        assert response.content == body * 2
    else:
        assert response.json() == expected
        assert "content-encoding" not in response.headers
