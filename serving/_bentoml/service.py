"""Where parts of ours take the place of BentoML 1.4.39's: see what is imported here."""

import inspect
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp

from serving._bentoml.supervisor import separate_metrics, supervise
from serving.http.openapi import Description, describe

# BentoML's middleware whose work the edge does: metrics and log for all requests, limits for
# predictions.
REPLACED = {
    "RunnerTrafficMetricsMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "MaxConcurrencyMiddleware",
}


class TabularService(bentoml.Service):
    """A BentoML Service behind our edge, whose Bento keeps its model and whose docs are true.

    Its class has `settings`, which replace BentoML's `traffic`, and a `model`.
    """

    def __attrs_post_init__(self) -> None:
        """Have BentoML prepare its supervisor, too, before it starts it."""
        super().__attrs_post_init__()
        separate_metrics()
        self.inner.supervise = bentoml.on_deployment(supervise)

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return BentoML's application behind the edge.

        Between a request and its dispatcher BentoML opens a span for each message, even if nobody
        collects them, starts a task and a timer, looks four metrics up, formats a log record, and
        inspects the signature of the API. With all that, our service answered a seventh as many
        requests (benchmarks/README.md, "the edge before BentoML's HTTP layers").
        """
        # Not at the top, for these are for workers: the supervisor has to start fast and be small.
        from _bentoml_impl.server.app import ServiceAppFactory

        from serving._bentoml import metrics_files

        metrics_files.install()  # before there are any metrics
        from serving._bentoml import server
        from serving._bentoml.batching import Predictor
        from serving.http.app import Edge
        from serving.observability.metrics import count_worker
        from serving.observability.prediction_log import PredictionLog

        count_worker()
        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        app = self.behind_edge(factory)
        mounted = [route for mount, *_ in self.mount_apps for route in mount.routes]
        settings, model = self.inner.settings, self.inner.model
        log = (
            PredictionLog(settings, model.record_type.model_fields)
            if settings.prediction_log
            else None
        )
        predictors = {
            api.route: Predictor(factory, name, settings.max_concurrency, log)
            for name, api in self.apis.items()
        }
        edge = Edge(
            app,
            predictors,
            endpoints={*predictors, *(route.path for route in [*app.routes, *mounted])},
            unlogged=BentoMLContainer.api_server_config.logging.access.skip_paths.get(),
            settings=settings,
            prediction_log=log,
        )
        server.install(edge)
        return wrapped(edge, app)

    def behind_edge(self, factory: Any) -> Any:
        """Return BentoML's application, with views of ours and without the prediction APIs."""
        from serving.http.docs_page import Views
        from serving.observability.metrics import with_memory

        views = Views(self)
        factory.metrics = with_memory(factory.metrics)
        factory.index_page, factory.openapi_spec_view = views.page, views.document
        app = factory()
        app.router.redirect_slashes = False
        app.router.routes = [route for route in app.routes if route.name not in self.apis]
        return app

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Make the models those that the Bento was built with.

        BentoML does so for models from a hub only. Others it looks up by the tag in the code, so
        that a Bento would serve `latest`: whatever was trained last.
        """
        super().on_load_bento(bento)
        for model, info in zip(self.models, bento.info.all_models, strict=True):
            object.__setattr__(model, "tag", info.tag)

    @property
    def openapi_spec(self) -> Description:
        """Describe the API as it is; BentoML's description tells of errors of another shape."""
        version = self.bento.tag.version if self.bento else "development"
        about = inspect.cleandoc(self.inner.__doc__)
        return describe(self.name, version, about, self.apis, self.inner.settings)


def wrapped(edge: ASGIApp, app: Any) -> ASGIApp:
    """Move the middleware of BentoML's application in front of the edge, as far as it is needed.

    That is what a user has added, CORS, and tracing if an exporter is configured.
    """
    behind = {"ContextMiddleware"}
    unneeded = set(REPLACED)
    if not BentoMLContainer.tracing.exporter_type.get():
        unneeded.add("OpenTelemetryMiddleware")
    every = app.user_middleware
    app.user_middleware = [part for part in every if part.cls.__name__ in behind]
    for part in reversed(every):
        if part.cls.__name__ not in behind | unneeded:
            edge = part.cls(edge, *part.args, **part.kwargs)
    return edge
