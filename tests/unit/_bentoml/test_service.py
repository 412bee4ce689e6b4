"""What `serving._bentoml` relies on in BentoML: a test fails if an upgrade changes it."""

import asyncio
import inspect
from pathlib import Path

import bentoml
import numpy as np
import pytest
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from prometheus_client import Histogram
from starlette.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient

from house import EXAMPLE
from service import HousePrice
from serving._bentoml.batching import ZeroWaitOptimizer
from serving._bentoml.worker import REPLACED_MIDDLEWARE
from tests.helpers.commands import run


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


def test_zero_wait_optimizer_never_waits():
    """After batches that waited 100 ms, BentoML's optimizer waits 100 ms."""
    waits = []
    for optimizer in (Optimizer(60), ZeroWaitOptimizer(60, Histogram("wait", "", registry=None))):
        for n in range(10):
            optimizer.log_outbound(n, wait=0.1, duration=0.001 * n)
        optimizer.trigger_refresh()
        waits.append(optimizer.wait)
    assert waits == [pytest.approx(0.1), 0]


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
    code = "import service; print(type(service.HousePrice.to_asgi()).__name__)"
    done = run("python", "-c", code, BENTOML_CONFIG_OPTIONS=options)
    assert done.stdout.split()[-1] == outermost


def test_added_middleware_applies_to_predictions(model):
    """It wraps `ServiceApp`; BentoML's application does not see predictions."""
    HousePrice.add_asgi_middleware(CORSMiddleware, allow_origins=["https://example.com"])
    app = HousePrice.to_asgi(is_main=True)
    HousePrice.middlewares.clear()
    with TestClient(app) as client:
        headers = {"Origin": "https://example.com"}
        response = client.post("/predict", json=EXAMPLE, headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://example.com"
