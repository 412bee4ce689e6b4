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

from serving import dispatch, framework
from serving.metrics import Values
from serving.records import Prediction, Records, Row
from serving.telemetry import RequestMetrics


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


def thread_for_one() -> None:
    """Hand single rows to a thread too."""
    dispatch.MAX_INLINE_ROWS = 0


def no_thread() -> None:
    """Predict batches of any size on the event loop."""
    dispatch.MAX_INLINE_ROWS = 10**6


def collect_garbage() -> None:
    """Let the collector walk all that was imported, again and again."""
    gc.freeze = gc.unfreeze


def asyncio_loop() -> None:
    """Run on asyncio's event loop."""
    sys.modules["uvloop"] = None


def h11_parser() -> None:
    """Parse HTTP in Python."""
    sys.modules["httptools"] = None


def no_metrics() -> None:
    """Count nothing."""
    RequestMetrics.begin = RequestMetrics.end = lambda *_, **__: None
    Histogram.observe = Values.observe_all = lambda *_: None


MEASURES = {
    "the edge before BentoML's HTTP layers": bentomls_http,
    "no learned wait": learn_to_wait,
    "one row on the event loop": thread_for_one,
    "more rows in a thread": no_thread,
    "garbage frozen": collect_garbage,
    "uvloop": asyncio_loop,
    "httptools": h11_parser,
    "(cost of the metrics)": no_metrics,
}
if measure := MEASURES.get(os.environ.get("WITHOUT", "")):
    measure()

from service import HousePrice  # noqa: E402, F401 - what was changed above is looked up here
