"""Build the application of a worker: metrics, `ServiceApp`, and BentoML's application behind it."""

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
from serving._bentoml.batching import Batcher
from serving._bentoml.prediction_histogram import prediction_histogram
from serving._bentoml.predictor import Predictor
from serving.features import feature_schemas
from serving.http.app import ServiceApp
from serving.http.docs_page import DocsViews
from serving.http.json_errors import JSONErrorMiddleware
from serving.http.try_page import try_page_routes
from serving.model import TrainingMetadata, read_golden, read_training_texts, training_metadata
from serving.observability.prediction_log import PredictionLog
from serving.observability.prediction_metrics import (
    PredictionMetrics,
    create_error_series,
    set_served_model,
)
from serving.observability.request_metrics import RequestMetrics
from serving.observability.worker_metrics import register_worker, with_memory_metric
from serving.record_errors import ERROR_KINDS

# BentoML's middleware, by the names of its classes. `ServiceApp` replaces the first set; the second
# stays between `ServiceApp` and BentoML's application.
REPLACED_MIDDLEWARE = {
    "RunnerTrafficMetricsMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "MaxConcurrencyMiddleware",
}
INNER_MIDDLEWARE = {"ContextMiddleware"}


def build_app(service: bentoml.Service, is_main: bool) -> ASGIApp:
    """Return the application of a worker, and make BentoML's worker run it on `Server`."""
    register_worker()
    create_error_series(ERROR_KINDS)
    factory = ServiceAppFactory(service, is_main=is_main)
    bentoml_app = build_bentoml_app(service, factory)
    prediction_log = open_prediction_log(service)
    # `Server` fills it: a task for each request in progress.
    open_requests: set[asyncio.Task[None]] = set()
    predictors = build_predictors(service, factory, prediction_log, open_requests)
    mounted = [route for mount, *_ in service.mount_apps for route in mount.routes]
    app = ServiceApp(
        read_proxy_headers(bentoml_app),
        predictors,
        endpoints={*predictors, *(route.path for route in [*bentoml_app.routes, *mounted])},
        unlogged_paths=BentoMLContainer.api_server_config.logging.access.skip_paths.get(),
        settings=service.inner.settings,
        request_metrics=create_request_metrics(predictors),
        prediction_log=prediction_log,
    )
    server.install(app, open_requests)  # before BentoML's worker creates its uvicorn server
    return add_outer_middleware(app, bentoml_app)


def build_bentoml_app(service: bentoml.Service, factory: ServiceAppFactory) -> Any:
    """Return BentoML's application with `DocsViews` and without the prediction routes."""
    views = DocsViews(service)
    factory.metrics = with_memory_metric(metrics_files.flush_before(factory.metrics))
    factory.index_page, factory.openapi_spec_view = views.swagger_ui, views.openapi
    app = factory()
    app.router.redirect_slashes = False  # 404 for `/metrics/`, as for `/predict/`
    app.router.routes = [route for route in app.routes if route.name not in service.apis]
    if service.inner.settings.try_page:
        app.router.routes += try_page_routes()
    return app


def build_predictors(
    service: bentoml.Service,
    factory: ServiceAppFactory,
    prediction_log: PredictionLog | None,
    open_requests: "set[asyncio.Task[None]]",
) -> dict[str, Predictor]:
    """Return a predictor for each prediction API, by path."""
    settings = service.inner.settings
    max_queue, timeout = settings.max_concurrency, settings.request_timeout
    return {
        api.route: Predictor(
            api, Batcher(factory, name, max_queue, timeout, open_requests), prediction_log
        )
        for name, api in service.apis.items()
    }


def read_proxy_headers(app: Any) -> Any:
    """Wrap an application in uvicorn's middleware that applies the headers of a trusted proxy.

    uvicorn has it in front of all requests, where it would cost each prediction 3 us.
    """
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # uvicorn's default
    return ProxyHeadersMiddleware(app, trusted)


def open_prediction_log(service: bentoml.Service) -> PredictionLog | None:
    """Return the prediction log of this worker, if the setting asks for one."""
    settings, record_type = service.inner.settings, service.inner.model.record_type
    if not settings.prediction_log:
        return None
    feature_names = list(feature_schemas(record_type))
    return PredictionLog(settings, feature_names, server_context.worker_index or 1)


def create_request_metrics(endpoints: Iterable[str]) -> RequestMetrics:
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
    """Set the attributes of the user's instance that `Batcher` reads, and check each API.

    Raise an exception, which ends the worker, if an API fails.
    """
    golden_row, *_ = read_golden(instance.model)["rows"]
    training = training_metadata(instance.model)
    set_served_model(str(instance.model.tag), training.prediction_distribution)
    instance.golden_row = tuple(golden_row)
    instance.prediction_metrics = create_prediction_metrics(instance.model, training)
    record = dict(zip(training.feature_names, golden_row, strict=True))
    for api in apis.values():
        check_api(api, instance, record)


def check_api(api: Any, instance: Any, record: dict[str, Any]) -> None:
    """Run an API method on a record, from JSON to JSON, without counting it.

    Raise an exception unless it returns one finite number.
    """
    body = [record] if api.input_spec.max_records else record
    rows = api.input_spec.parse(json.dumps(body).encode())
    (prediction,) = api.func(instance, rows)
    if not isfinite(prediction):
        raise ValueError(f"The API method returned {prediction} for a record of the training data")
    api.output_spec.to_json([prediction])


def create_prediction_metrics(
    model: bentoml.Model, training: TrainingMetadata
) -> PredictionMetrics:
    """Return the metrics of the predictions of a model."""
    return PredictionMetrics(
        training.feature_names,
        training.training_range,
        # The values of text features may be many: they are in a file, not in the metadata.
        {**training.training_values, **read_training_texts(model)},
        prediction_histogram(tuple(training.prediction_distribution)),
        nullable=training.nullable_features,
    )


def add_outer_middleware(app: ASGIApp, bentoml_app: Any) -> ASGIApp:
    """Move middleware from BentoML's application to the front of `ServiceApp`.

    This moves CORS, middleware that a user has added and, if an exporter is configured, tracing.
    INNER_MIDDLEWARE stays. REPLACED_MIDDLEWARE, and tracing without an exporter, are dropped.
    """
    not_moved = REPLACED_MIDDLEWARE | INNER_MIDDLEWARE
    if not BentoMLContainer.tracing.exporter_type.get():
        not_moved = not_moved | {"OpenTelemetryMiddleware"}
    middleware = bentoml_app.user_middleware
    bentoml_app.user_middleware = [
        each for each in middleware if each.cls.__name__ in INNER_MIDDLEWARE
    ]
    for each in reversed(middleware):
        if each.cls.__name__ not in not_moved:
            app = each.cls(app, *each.args, **each.kwargs)
    if isinstance(app, ServiceApp):
        return app
    return JSONErrorMiddleware(app)  # the middleware may send errors in plain text
