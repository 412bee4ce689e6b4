"""The Service class: BentoML's Service with `ServiceApp` in front of its application."""

import inspect
from typing import Any

import bentoml
from bentoml import server_context
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp

from serving._bentoml.supervisor import install_supervisor, use_private_metrics_folder
from serving.http.openapi import OpenAPIDocument, openapi_document
from serving.model import TrainingMetadata
from serving.records import ERROR_KINDS

# BentoML's middleware that `ServiceApp` replaces.
REPLACED_MIDDLEWARE = {
    "RunnerTrafficMetricsMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "MaxConcurrencyMiddleware",
}


class TabularService(bentoml.Service):
    """A BentoML Service that predicts records with a model of the store.

    The user's class, which BentoML calls `inner`, has the attributes `settings` (a `Settings`,
    instead of BentoML's `traffic` configuration) and `model` (a `ModelReference`).
    """

    def __attrs_post_init__(self) -> None:
        """Prepare the metrics folder, the supervisor, and each worker once it has an instance."""
        super().__attrs_post_init__()
        use_private_metrics_folder()  # of the supervisor, which passes it to the workers
        # BentoML finds its hooks among the attributes of the user's class.
        self.inner.install_supervisor = bentoml.on_deployment(install_supervisor)
        self.inner.add_prediction_metrics = bentoml.on_startup(add_prediction_metrics)

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application of a worker: `ServiceApp` in front of BentoML's application.

        Between a request and its dispatcher BentoML opens a span for each message, even without an
        exporter, starts a task and a timer, looks up four metrics, formats a log record and
        inspects the signature of the API. With all that, the service answered a seventh as many
        requests (benchmarks/README.md, "ServiceApp in place of BentoML's HTTP layers").
        """
        # Only workers need these modules: the supervisor has to start fast and stay small.
        from _bentoml_impl.server.app import ServiceAppFactory

        from serving._bentoml import metrics_files

        metrics_files.install()  # before the modules below create metrics
        from serving._bentoml import server
        from serving._bentoml.batching import Predictor
        from serving.http.app import ServiceApp
        from serving.observability.prediction_log import PredictionLog
        from serving.observability.prediction_metrics import create_error_series
        from serving.observability.worker_metrics import register_worker

        register_worker()
        create_error_series(ERROR_KINDS)
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        bentoml_app = self.build_bentoml_app(factory)
        settings, model = self.inner.settings, self.inner.model
        prediction_log = None
        if settings.prediction_log:
            worker_index = server_context.worker_index or 1
            prediction_log = PredictionLog(settings, model.record_type.model_fields, worker_index)
        predictors = {
            api.route: Predictor(factory, name, settings.max_concurrency, prediction_log)
            for name, api in self.apis.items()
        }
        mounted = [route for mount, *_ in self.mount_apps for route in mount.routes]
        app = ServiceApp(
            bentoml_app,
            predictors,
            endpoints={*predictors, *(route.path for route in [*bentoml_app.routes, *mounted])},
            unlogged_paths=BentoMLContainer.api_server_config.logging.access.skip_paths.get(),
            settings=settings,
            request_metrics=request_metrics(predictors),
            prediction_log=prediction_log,
        )
        server.install(app)  # BentoML's worker makes its uvicorn server next
        return add_outer_middleware(app, bentoml_app)

    def build_bentoml_app(self, factory: Any) -> Any:
        """Return BentoML's application with our views and without the prediction routes."""
        from serving.http.docs_page import DocsViews
        from serving.observability.worker_metrics import measure_memory_before

        views = DocsViews(self)
        factory.metrics = measure_memory_before(factory.metrics)
        factory.index_page, factory.openapi_spec_view = views.swagger_ui, views.openapi
        app = factory()
        app.router.redirect_slashes = False
        app.router.routes = [route for route in app.routes if route.name not in self.apis]
        return app

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Set the models to those that the Bento was built with.

        BentoML does this only for models from a hub. It looks up others by the tag in the code, so
        that a Bento would serve `latest`: whatever was trained last.
        """
        super().on_load_bento(bento)
        for model, info in zip(self.models, bento.info.all_models, strict=True):
            object.__setattr__(model, "tag", info.tag)

    @property
    def openapi_spec(self) -> OpenAPIDocument:
        """The OpenAPI document; BentoML's own describes errors of another shape."""
        version = self.bento.tag.version if self.bento else "development"
        description = inspect.cleandoc(self.inner.__doc__)
        return openapi_document(self.name, version, description, self.apis, self.inner.settings)


def request_metrics(endpoints: Any) -> Any:
    """Return the metrics of HTTP requests with BentoML's names, labels and buckets."""
    from serving.observability.request_metrics import RequestMetrics

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


def add_prediction_metrics(instance: Any) -> None:
    """Publish the model of a Service's instance, and give it the metrics of its predictions."""
    from serving._bentoml.prediction_histogram import prediction_histogram
    from serving.observability.prediction_metrics import PredictionMetrics, set_served_model

    training = TrainingMetadata.model_validate(instance.model.info.metadata)
    set_served_model(str(instance.model.tag), training.prediction_distribution)
    instance.prediction_metrics = PredictionMetrics(
        training.feature_names,
        training.training_range,
        training.training_values,
        prediction_histogram(tuple(training.prediction_distribution)),
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
    return app
