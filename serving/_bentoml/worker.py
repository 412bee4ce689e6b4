"""Build the application of a worker: `ServiceApp`, BentoML's application behind it, and metrics."""

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory
from bentoml import server_context
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serving._bentoml import metrics_files, server
from serving._bentoml.batching import Predictor
from serving._bentoml.prediction_histogram import prediction_histogram
from serving.features import feature_schemas
from serving.http.app import ServiceApp
from serving.http.docs_page import DocsViews
from serving.http.json_errors import JSONErrorMiddleware
from serving.http.try_page import try_page_routes
from serving.model import TrainingMetadata, read_golden, read_texts
from serving.observability.prediction_log import PredictionLog
from serving.observability.prediction_metrics import (
    PredictionMetrics,
    create_error_series,
    set_served_model,
)
from serving.observability.request_metrics import RequestMetrics
from serving.observability.worker_metrics import measure_memory_before, register_worker
from serving.records import ERROR_KINDS

# BentoML's middleware that `ServiceApp` replaces.
REPLACED_MIDDLEWARE = {
    "RunnerTrafficMetricsMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "MaxConcurrencyMiddleware",
}


def build_app(service: bentoml.Service, is_main: bool) -> ASGIApp:
    """Return the application of a worker, and make BentoML run it on our server."""
    register_worker()
    create_error_series(ERROR_KINDS)
    factory = ServiceAppFactory(service, is_main=is_main)
    bentoml_app = build_bentoml_app(service, factory)
    settings = service.inner.settings
    prediction_log = open_prediction_log(service)
    open_requests: set[asyncio.Task[None]] = set()
    predictors = {
        api.route: Predictor(
            factory,
            name,
            settings.max_concurrency,
            settings.request_timeout,
            prediction_log,
            open_requests,
        )
        for name, api in service.apis.items()
    }
    mounted = [route for mount, *_ in service.mount_apps for route in mount.routes]
    app = ServiceApp(
        read_proxy_headers(bentoml_app),
        predictors,
        endpoints={*predictors, *(route.path for route in [*bentoml_app.routes, *mounted])},
        unlogged_paths=BentoMLContainer.api_server_config.logging.access.skip_paths.get(),
        settings=settings,
        request_metrics=request_metrics(predictors),
        prediction_log=prediction_log,
    )
    server.install(app, open_requests)  # BentoML's worker makes its uvicorn server next
    return add_outer_middleware(app, bentoml_app)


def build_bentoml_app(service: bentoml.Service, factory: ServiceAppFactory) -> Any:
    """Return BentoML's application with our views and without the prediction routes."""
    views = DocsViews(service)
    factory.metrics = measure_memory_before(metrics_files.flush_before(factory.metrics))
    factory.index_page, factory.openapi_spec_view = views.swagger_ui, views.openapi
    app = factory()
    app.router.redirect_slashes = False
    app.router.routes = [route for route in app.routes if route.name not in service.apis]
    if service.inner.settings.try_page:
        app.router.routes += try_page_routes()
    return app


def read_proxy_headers(app: Any) -> Any:
    """Wrap an application in uvicorn's middleware that applies the headers of a trusted proxy.

    In front of all requests, as uvicorn has it, it would cost each prediction 3 us.
    """
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # as in uvicorn
    return ProxyHeadersMiddleware(app, trusted)


def open_prediction_log(service: bentoml.Service) -> PredictionLog | None:
    """Return the prediction log of this worker, if the setting asks for one."""
    settings, record_type = service.inner.settings, service.inner.model.record_type
    if not settings.prediction_log:
        return None
    return PredictionLog(settings, feature_schemas(record_type), server_context.worker_index or 1)


def request_metrics(endpoints: Iterable[str]) -> RequestMetrics:
    """Return the metrics of HTTP requests with BentoML's names, labels and buckets."""
    labels = {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": str(server_context.service_name),
    }
    return RequestMetrics(
        endpoints,
        labels,
        namespace=BentoMLContainer.api_server_config.metrics.namespace.get(),
        duration_buckets=BentoMLContainer.duration_buckets.get(),
    )


def prepare_instance(instance: Any, apis: Mapping[str, Any]) -> None:
    """Give an instance of the user's class what `Predictor` needs, and answer a first request.

    Raise an exception, which ends the worker, if that request fails.
    """
    golden_row, *_ = read_golden(instance.model)["rows"]
    instance.golden_row = tuple(golden_row)
    instance.prediction_metrics = prediction_metrics(instance.model)
    record = dict(zip(instance.prediction_metrics.feature_names, golden_row, strict=True))
    for api in apis.values():
        answer(api, instance, record)


def answer(api: Any, instance: Any, record: dict[str, Any]) -> bytes:
    """Answer a request with a record, from JSON to JSON, without counting it.

    Raise an exception if the API method does not return a number.
    """
    body = [record] if api.input_spec.max_records else record
    rows = api.input_spec.parse(json.dumps(body).encode())
    (prediction,) = api.func(instance, rows)
    if not isfinite(prediction):
        raise ValueError(f"The API method returned {prediction} for a record of the training")
    return api.output_spec.to_json([prediction])


def prediction_metrics(model: bentoml.Model) -> PredictionMetrics:
    """Publish the model that is served, and return the metrics of its predictions."""
    training = TrainingMetadata.model_validate(model.info.metadata)
    set_served_model(str(model.tag), training.prediction_distribution)
    return PredictionMetrics(
        training.feature_names,
        training.training_range,
        {**training.training_values, **read_texts(model)},
        prediction_histogram(tuple(training.prediction_distribution)),
        nullable=training.training_gaps,
    )


def add_outer_middleware(app: ASGIApp, bentoml_app: Any) -> ASGIApp:
    """Move middleware of BentoML's application in front of `ServiceApp`, if it is still needed.

    That is middleware that a user has added, CORS, and tracing if an exporter is configured.
    """
    stays_inside = {"ContextMiddleware"}
    unneeded = set(REPLACED_MIDDLEWARE)
    if not BentoMLContainer.tracing.exporter_type.get():
        unneeded.add("OpenTelemetryMiddleware")
    middleware = bentoml_app.user_middleware
    bentoml_app.user_middleware = [each for each in middleware if each.cls.__name__ in stays_inside]
    for each in reversed(middleware):
        if each.cls.__name__ not in stays_inside | unneeded:
            app = each.cls(app, *each.args, **each.kwargs)
    return app if isinstance(app, ServiceApp) else JSONErrorMiddleware(app)
