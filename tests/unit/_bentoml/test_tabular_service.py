"""What `serving._bentoml` relies on in BentoML: a test fails if an upgrade changes it."""

import asyncio
import inspect
from pathlib import Path

import bentoml
import numpy as np
import pytest
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from bentoml.exceptions import BentoMLException
from prometheus_client import CollectorRegistry, Histogram
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient

from house import EXAMPLE
from service import HousePrice
from serving import TabularService
from serving._bentoml.batching import MeasuringOptimizer
from serving._bentoml.ignored_options import ignored_configuration
from serving._bentoml.worker import REPLACED_MIDDLEWARE
from tests.helpers.commands import run
from tests.helpers.tutorial import TUTORIAL_RESPONSE

PREFLIGHT = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}


@pytest.fixture
def factory(model):
    """BentoML's own application factory."""
    HousePrice.inject_config()
    return ServiceAppFactory(HousePrice, is_main=True)


def test_bentoml_still_has_the_middleware_that_service_app_replaces(factory):
    """BentoML adds MaxConcurrencyMiddleware only if a limit is configured."""
    names = {each.cls.__name__ for each in factory().user_middleware}
    assert names == REPLACED_MIDDLEWARE - {"MaxConcurrencyMiddleware"} | {
        "OpenTelemetryMiddleware",
        "ContextMiddleware",
    }


def test_bentoml_still_names_the_routes_after_the_apis(factory):
    """`build_bentoml_app` removes the prediction routes by name."""
    names = [route.name for route in factory().routes]
    assert {"predict", "predict_batch"} <= set(names)


def test_bentomls_index_page_still_loads_google_tag_manager(factory):
    """Once it does not, the Swagger UI of `DocsViews` is superfluous."""
    page = asyncio.run(factory.index_page(None))
    assert "googletagmanager.com" in Path(page.path).read_text()


def test_bentoml_still_pins_only_hub_models_of_a_bento():
    """Once it pins all models, `on_load_bento` is superfluous."""
    assert "HuggingFaceModel" in inspect.getsource(HousePrice.__class__.__base__.on_load_bento)


def test_dispatcher_still_has_the_attributes_that_the_predictor_uses(factory):
    """It sets the optimizer, `get_batch_size` and `max_latency`, and reads `_queue`."""
    for dispatcher in factory.dispatchers.values():
        assert isinstance(dispatcher, CorkDispatcher)
        assert isinstance(dispatcher.optimizer, Optimizer)
        assert vars(dispatcher).keys() >= {"get_batch_size", "max_latency", "_queue"}


def test_optimizer_observes_the_wait_and_learns_like_bentomls(factory):
    """BentoML reports a wait of 0 for the first batches."""
    registry = CollectorRegistry()
    optimizers = Optimizer(60), MeasuringOptimizer(60, Histogram("wait", "", registry=registry))
    for optimizer in optimizers:
        for n in range(10):
            optimizer.log_outbound(n, wait=0.1 * (n > 4), duration=0.001 * n)
        optimizer.trigger_refresh()
    assert optimizers[0].wait == optimizers[1].wait > 0
    assert registry.get_sample_value("wait_count") == 5
    assert registry.get_sample_value("wait_sum") == pytest.approx(0.5)


def test_failed_batch_responds_with_500_and_the_next_one_succeeds(client, monkeypatch):
    """The message has the request ID."""
    regressor = bentoml.get_current_service().regressor
    with monkeypatch.context() as broken:
        broken.setattr(regressor, "predict", lambda rows: 1 / 0)
        failed = client.post("/predict", json=EXAMPLE)
    assert failed.status_code == 500
    assert failed.headers["x-request-id"] in failed.json()["message"]
    assert client.post("/predict", json=EXAMPLE).status_code == 200


def test_non_finite_prediction_responds_with_500(client, monkeypatch):
    """The response would otherwise have NaN, which is not JSON."""
    monkeypatch.setattr(bentoml.get_current_service().regressor, "predict", lambda rows: [np.nan])
    assert client.post("/predict", json=EXAMPLE).status_code == 500


@pytest.mark.parametrize(
    ("options", "outermost"),
    [
        ("", "ServiceApp"),
        (
            "services.tracing.exporter_type=in_memory services.tracing.sample_rate=1.0",
            "OpenTelemetryMiddleware",
        ),
    ],
    ids=["no exporter", "exporter"],
)
def test_tracing_is_on_only_if_an_exporter_is_configured(model, options, outermost):
    """BentoML opens spans even without an exporter, which slows each request."""
    code = "import service; app = service.HousePrice.to_asgi(); print(type(app).__name__)"
    if outermost != "ServiceApp":
        code = code.replace("type(app)", "type(app.app)")  # in `JSONErrorMiddleware`
    done = run("python", "-c", code, BENTOML_CONFIG_OPTIONS=options)
    assert done.stdout.split()[-1] == outermost


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


def test_two_applications_in_one_process_both_predict(model):
    """A fixture of a test suite may create one for each test."""
    for _ in range(2):
        with TestClient(HousePrice.to_asgi(is_main=True)) as client:
            assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
            assert client.get("/metrics").status_code == 200


def test_path_prefix_of_bentoml_is_rejected():
    """It would move all routes except the predictions."""
    with pytest.raises(BentoMLException, match="X-Forwarded-Prefix"):
        bentoml.service(service_class=TabularService, path_prefix="/v1")(HousePrice.inner)


def test_bentoml_still_has_the_configuration_that_is_ignored():
    """`ignored_configuration` compares with BentoML's defaults."""
    HousePrice.inject_config()
    assert list(ignored_configuration()) == []
