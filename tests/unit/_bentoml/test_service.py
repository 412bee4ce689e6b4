"""What is relied on of BentoML 1.4.39: each test fails when an upgrade takes it away."""

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
from serving._bentoml.service import REPLACED_MIDDLEWARE
from tests.helpers.commands import run


@pytest.fixture
def factory(model):
    """BentoML's own application factory."""
    HousePrice.inject_config()
    return ServiceAppFactory(HousePrice, is_main=True)


def test_bentoml_still_has_the_middleware_that_the_edge_replaces(factory):
    """All of it but for the limit of concurrency, which it has if one is configured."""
    names = {part.cls.__name__ for part in factory().user_middleware}
    assert names == REPLACED_MIDDLEWARE - {"MaxConcurrencyMiddleware"} | {
        "OpenTelemetryMiddleware",
        "ContextMiddleware",
    }


def test_bentoml_still_names_the_routes_after_the_apis(factory):
    """So that those of the predictions can be taken out."""
    names = [route.name for route in factory().routes]
    assert {"predict", "predict_batch"} <= set(names)


def test_bentomls_page_still_loads_scripts_of_others(factory):
    """If it does not, ours has become superfluous."""
    page = asyncio.run(factory.index_page(None))
    assert "googletagmanager.com" in Path(page.path).read_text()


def test_bentoml_still_looks_latest_up_when_a_bento_is_served():
    """If it does not, `on_load_bento` has become superfluous."""
    assert "HuggingFaceModel" in inspect.getsource(HousePrice.__class__.__base__.on_load_bento)


def test_dispatcher_is_bentomls(factory):
    """With what is set from outside."""
    for dispatcher in factory.dispatchers.values():
        assert isinstance(dispatcher, CorkDispatcher)
        assert isinstance(dispatcher.optimizer, Optimizer)
        assert vars(dispatcher).keys() >= {"get_batch_size", "max_latency", "_queue"}


def test_wait_is_learned_by_bentoml_and_not_here():
    """After batches that waited 100 ms, BentoML's optimizer would wait, ours does not."""
    waits = []
    for optimizer in (Optimizer(60), ZeroWaitOptimizer(60, Histogram("wait", "", registry=None))):
        for n in range(10):
            optimizer.log_outbound(n, wait=0.1, duration=0.001 * n)
        optimizer.trigger_refresh()
        waits.append(optimizer.wait)
    assert waits == [pytest.approx(0.1), 0]


def test_failed_batch_answers_500_and_the_next_one_works(client, monkeypatch):
    """To the requests in it alone, with a traceback for us and a request ID for them."""
    regressor = bentoml.get_current_service().regressor
    with monkeypatch.context() as broken:
        broken.setattr(regressor, "predict", lambda rows: 1 / 0)
        failed = client.post("/predict", json=EXAMPLE)
    assert failed.status_code == 500
    assert failed.headers["x-request-id"] in failed.json()["message"]
    assert client.post("/predict", json=EXAMPLE).status_code == 200


def test_prediction_that_is_not_finite_is_a_500(client, monkeypatch):
    """Never null or NaN."""
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
)
def test_tracing_is_on_if_an_exporter_is_configured(model, options, outermost):
    """And only then, for it costs much."""
    code = "import service; print(type(service.HousePrice.to_asgi()).__name__)"
    done = run("python", "-c", code, BENTOML_CONFIG_OPTIONS=options)
    assert done.stdout.split()[-1] == outermost


def test_middleware_that_a_user_adds_reaches_the_predictions(model):
    """As CORS does and tracing: it stands in front of the edge, not behind it."""
    HousePrice.add_asgi_middleware(CORSMiddleware, allow_origins=["https://example.com"])
    app = HousePrice.to_asgi(is_main=True)
    HousePrice.middlewares.clear()
    with TestClient(app) as client:
        headers = {"Origin": "https://example.com"}
        answer = client.post("/predict", json=EXAMPLE, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://example.com"
