"""`TabularService`, and the parts of BentoML on which `serving._bentoml` relies.

A test with `still` in its name fails if an upgrade of BentoML changes such a part.
"""

import asyncio
import inspect
from pathlib import Path

import bentoml
import pytest
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from bentoml.exceptions import BentoMLException
from prometheus_client import CollectorRegistry, Histogram
from starlette.testclient import TestClient

from house import EXAMPLE
from service import HousePrice
from serving import TabularService
from serving._bentoml.batching import MeasuringOptimizer
from serving._bentoml.ignored_options import ignored_configuration
from serving._bentoml.worker import REPLACED_MIDDLEWARE
from tests.helpers.commands import run
from tests.helpers.tutorial import TUTORIAL_RESPONSE


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


def test_dispatcher_still_has_the_attributes_that_the_batcher_uses(factory):
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
