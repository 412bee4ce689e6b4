"""Where BentoML 1.4.39 is stepped around: what it does, and what is done instead."""

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.marshal.dispatcher import Optimizer
from starlette.types import ASGIApp

from serving.edge import Edge
from serving.openapi import Description, corrected
from serving.records import Row
from serving.refusal import RETRY_AFTER, Refusal

# What the edge does in place of BentoML's middleware, for all requests alike.
REPLACED = {
    "RunnerTrafficMetricsMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "MaxConcurrencyMiddleware",
}
# So few rows are predicted on the event loop: to hand them to a thread would take longer.
MAX_INLINE_ROWS = 1


class TabularService(bentoml.Service):
    """A BentoML Service behind our edge, whose Bento keeps its model and whose docs are true."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return BentoML's application behind the edge.

        Between a request and its dispatcher BentoML opens a span for each message, even if nobody
        collects them, starts a task and a timer, looks six metrics up, formats a log record, and
        inspects the signature of the API. The edge predicts without all that.
        """
        from _bentoml_impl.server.app import ServiceAppFactory

        self.inject_config()
        factory = ServiceAppFactory(self, is_main=is_main)
        app = factory()
        app.router.redirect_slashes = False
        app.router.routes = [route for route in app.routes if route.name not in self.apis]
        mounted = [route for mount, *_ in self.mount_apps for route in mount.routes]
        settings = self.inner.settings
        predictors = {
            api.route: Predictor(factory, name, settings.max_concurrency)
            for name, api in self.apis.items()
        }
        edge = Edge(
            app,
            predictors,
            endpoints={*predictors, *(route.path for route in [*app.routes, *mounted])},
            probes=BentoMLContainer.api_server_config.logging.access.skip_paths.get(),
            settings=settings,
        )
        return wrapped(edge, app)

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Make the models those that the Bento was built with.

        BentoML does so for models from a hub only. Others it looks up by the tag in the code, so
        that a Bento would serve `latest`: whatever was trained last.
        """
        super().on_load_bento(bento)
        built_with = {info.tag.name: info.tag for info in bento.info.all_models}
        for model in self.models:
            object.__setattr__(model, "tag", built_with[model.tag.name])

    @property
    def openapi_spec(self) -> Description:
        """Describe the API as it is; BentoML's description tells of errors of another shape."""
        routes = [api.route for api in self.apis.values()]
        description = inspect.cleandoc(self.inner.__doc__)
        return corrected(super().openapi_spec.asdict(), routes, description)


def wrapped(edge: ASGIApp, app: Any) -> ASGIApp:
    """Move the middleware of BentoML's application in front of the edge, as far as it is needed.

    That is what a user has added, CORS, and tracing if an exporter is configured.
    """
    unneeded = set(REPLACED)
    if not BentoMLContainer.tracing.exporter_type.get():
        unneeded.add("OpenTelemetryMiddleware")
    inner = [part for part in app.user_middleware if part.cls.__name__ == "ContextMiddleware"]
    outer = [part for part in app.user_middleware if part.cls.__name__ not in unneeded]
    app.user_middleware = inner
    for part in reversed(outer):
        if part not in inner:
            edge = part.cls(edge, *part.args, **part.kwargs)
    return edge


class Predictor:
    """One prediction API, called from the edge by way of the dispatcher that BentoML made for it.

    `factory` is BentoML's `ServiceAppFactory`.
    """

    def __init__(self, factory: Any, name: str, max_queue: int) -> None:
        self.factory = factory
        self.api = factory.service.apis[name]
        self.max_queue = max_queue
        self.thread = ThreadPoolExecutor(1)
        self.dispatcher = factory.dispatchers[name]
        self.dispatcher.get_batch_size = len
        self.dispatcher.optimizer = NoWait(self.dispatcher.max_latency)
        self.submit = self.dispatcher(self.predict)

    async def __call__(self, body: bytes) -> tuple[bytes, str]:
        """Return the answer to a body, and the tag of the model; raise `Refusal`."""
        rows = self.api.input_spec.rows(body)
        # Requests that were given up are still in the queue.
        if len(self.dispatcher._queue) >= self.max_queue:
            raise Refusal(503, "Too many predictions are waiting; try again soon", RETRY_AFTER)
        predictions = await self.submit(rows)
        return self.api.output_spec.render(predictions), self.tag

    async def predict(self, requests: Sequence[list[Row]]) -> list[list[float]]:
        """Predict the rows of several requests together; return the predictions of each."""
        rows = [row for request in requests for row in request]
        self.batch_size.observe(len(requests))
        if len(rows) <= MAX_INLINE_ROWS:
            predictions = self.api.func(self.service, rows)
        else:
            loop = asyncio.get_running_loop()
            predictions = await loop.run_in_executor(self.thread, self.api.func, self.service, rows)
        ends = accumulate(map(len, requests))
        return [
            predictions[end - len(request) : end]
            for request, end in zip(requests, ends, strict=True)
        ]

    @cached_property
    def service(self) -> Any:
        """The instance that BentoML makes of the Service's class when it starts."""
        return self.factory._service_instance

    @cached_property
    def tag(self) -> str:
        """The tag of the model that predicts."""
        return str(self.service.model.tag)

    @cached_property
    def batch_size(self) -> Any:
        """BentoML's histogram of the requests in a batch."""
        return self.factory.adaptive_batch_size_hist.labels(
            runner_name=self.factory.service.name,
            worker_index=server_context.worker_index,
            method_name=self.api.name,
            service_version=server_context.bento_version,
            service_name=server_context.bento_name,
        )


class NoWait(Optimizer):
    """Lets a batch go as soon as the one before is done.

    BentoML's waits for as long as batches waited lately, and learns that anew every 5 s at most: a
    client alone after a burst was answered N times a second instead of N.
    """

    def trigger_refresh(self) -> None:
        """Learn how long predictions take, and nothing about waiting."""
        super().trigger_refresh()
        self.wait = 0
