"""Ablations: our service without one of its optimizations, which `ABLATION` names."""

import gc
import os
import sys
from typing import Any

import bentoml
from prometheus_client import Histogram
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving._bentoml import metrics_files

ablation = os.environ.get("ABLATION", "")
if ablation == "metrics written five times a second":
    metrics_files.buffered = lambda value_class: value_class
metrics_files.install()  # before the modules below create metrics

from serving._bentoml import batching, response_cycle, server, tabular_service  # noqa: E402
from serving._bentoml.prediction_histogram import PredictionHistogram  # noqa: E402
from serving.http import app  # noqa: E402
from serving.observability.request_metrics import RequestMetrics  # noqa: E402
from serving.records import Prediction, RequestBody, Row  # noqa: E402


def use_bentomls_http_layers() -> None:
    """Use BentoML's own application between a request and its dispatcher."""

    async def from_request(cls: type[RequestBody], request: Request, serde: Any) -> list[Row]:
        return cls.parse(await request.body())

    async def to_response(cls: type[Prediction], predictions: list[float], serde: Any) -> Response:
        tag = str(bentoml.get_current_service().model.tag)
        headers = {"X-Model-Tag": tag}
        return Response(cls.to_json(predictions), headers=headers, media_type="application/json")

    RequestBody.__root_input__ = True
    RequestBody.from_http_request = classmethod(from_request)
    Prediction.to_http_response = classmethod(to_response)
    tabular_service.TabularService.to_asgi = bentoml.Service.to_asgi


def queue_single_requests() -> None:
    """Send a request that is the only one through BentoML's queue, too."""
    batching.Batcher.is_only_request = lambda _: False


def predict_single_rows_in_a_thread() -> None:
    """Predict single rows in a thread, too."""
    batching.MAX_INLINE_SECONDS = 0


def predict_batches_inline() -> None:
    """Predict batches of any size on the event loop."""
    batching.Batcher.runs_inline = lambda *_: True


def collect_garbage() -> None:
    """Let the garbage collector visit everything that was imported."""
    gc.freeze = gc.unfreeze


def collect_garbage_often() -> None:
    """Collect garbage after as many new objects as Python does by default."""
    app.GC_THRESHOLD = gc.get_threshold()[0]


def use_asyncio_loop() -> None:
    """Use asyncio's event loop."""
    sys.modules["uvloop"] = None


def write_head_and_body_apart() -> None:
    """Send responses as uvicorn does."""
    response_cycle.ResponseCycle.send = RequestResponseCycle.send


def use_one_listener() -> None:
    """Accept one connection in a turn of the event loop."""
    server.LISTENERS = 1


def count_nothing() -> None:
    """Leave out the metrics of requests and predictions."""
    RequestMetrics.start = RequestMetrics.finish = lambda *_, **__: None
    Histogram.observe = PredictionHistogram.observe_all = lambda *_: None


# The names are those of the results; bench.py reads them from here.
ABLATIONS = {
    "ServiceApp in place of BentoML's HTTP layers": use_bentomls_http_layers,
    "no queue for one alone": queue_single_requests,
    "one row on the event loop": predict_single_rows_in_a_thread,
    "more rows in a thread": predict_batches_inline,
    "garbage frozen": collect_garbage,
    "garbage collected less often": collect_garbage_often,
    "uvloop": use_asyncio_loop,
    "responses in one piece": write_head_and_body_apart,
    "several listeners": use_one_listener,
    "metrics written five times a second": lambda: None,  # done above
    "(cost of the metrics)": count_nothing,
}
if ablation:
    ABLATIONS[ablation]()

from service import HousePrice  # noqa: E402, F401 - it uses what was replaced above
