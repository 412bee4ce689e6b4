"""Our service without one of the measures that make it fast: `WITHOUT` names it."""

import gc
import os
import sys
from typing import Any

import bentoml
from bentoml._internal.marshal.dispatcher import Optimizer
from prometheus_client import Histogram
from starlette.requests import Request
from starlette.responses import Response

from serving._bentoml import metrics_files

measure = os.environ.get("WITHOUT", "")
if measure == "process ID asked for once":
    metrics_files.process_id = os.getpid
metrics_files.install()  # before there are any metrics

from serving._bentoml import batching as dispatch  # noqa: E402
from serving._bentoml import connection, server  # noqa: E402
from serving._bentoml import service as framework  # noqa: E402
from serving.observability.metrics import Values  # noqa: E402
from serving.observability.telemetry import RequestMetrics  # noqa: E402
from serving.records import Prediction, Records, Row  # noqa: E402


def bentomls_http() -> None:
    """Take BentoML's own way from a request to its dispatcher, and back."""

    async def rows(cls: type[Records], request: Request, serde: Any) -> list[Row]:
        return cls.rows(await request.body())

    async def respond(cls: type[Prediction], predictions: list[float], serde: Any) -> Response:
        tag = str(bentoml.get_current_service().model.tag)
        headers = {"X-Model-Tag": tag}
        return Response(cls.render(predictions), headers=headers, media_type="application/json")

    Records.__root_input__ = True
    Records.from_http_request = classmethod(rows)
    Prediction.to_http_response = classmethod(respond)
    framework.TabularService.to_asgi = bentoml.Service.to_asgi


def learn_to_wait() -> None:
    """Let BentoML's dispatcher wait as long as batches waited lately."""
    dispatch.NoWait = lambda max_latency, _: Optimizer(max_latency)


def queue_for_one() -> None:
    """Let a request that is alone pass through BentoML's queue."""
    dispatch.Predictor.is_alone = lambda _: False


def thread_for_one() -> None:
    """Hand single rows to a thread too."""
    dispatch.MAX_INLINE_ROWS = 0


def no_thread() -> None:
    """Predict batches of any size on the event loop."""
    dispatch.MAX_INLINE_ROWS = dispatch.MAX_INLINE_SECONDS = 10**6


def collect_garbage() -> None:
    """Let the collector walk all that was imported, again and again."""
    gc.freeze = gc.unfreeze


def asyncio_loop() -> None:
    """Run on asyncio's event loop."""
    sys.modules["uvloop"] = None


def two_writes() -> None:
    """Send a head, and then a body."""
    connection.Output.write = lambda self, part: self.connection.transport.write(part)


def one_listener() -> None:
    """Accept one connection in a turn of the event loop."""
    server.LISTENERS = 1


def no_metrics() -> None:
    """Count nothing."""
    RequestMetrics.begin = RequestMetrics.end = lambda *_, **__: None
    Histogram.observe = Values.observe_all = lambda *_: None


MEASURES = {
    "the edge before BentoML's HTTP layers": bentomls_http,
    "batches that go at once": learn_to_wait,
    "no queue for one alone": queue_for_one,
    "one row on the event loop": thread_for_one,
    "more rows in a thread": no_thread,
    "garbage frozen": collect_garbage,
    "uvloop": asyncio_loop,
    "head and body in one write": two_writes,
    "several listeners": one_listener,
    "process ID asked for once": lambda: None,  # done above
    "(cost of the metrics)": no_metrics,
}
if measure:
    MEASURES[measure]()

from service import HousePrice  # noqa: E402, F401 - what was changed above is looked up here
