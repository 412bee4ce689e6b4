"""Ablations: our service without the optimization that the variable ABLATION names."""

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
if ablation == "metrics buffered for 0.2 s":
    metrics_files.buffered = lambda value_class: value_class
metrics_files.install()  # before the modules below create metrics

from serving._bentoml import batching, response_cycle, server, tabular_service  # noqa: E402
from serving._bentoml.prediction_histogram import PredictionHistogram  # noqa: E402
from serving.http import app  # noqa: E402
from serving.observability.request_metrics import RequestMetrics  # noqa: E402
from serving.records import Prediction, RequestBody, Row  # noqa: E402


def use_bentomls_http_layers() -> None:
    """Use BentoML's own HTTP application."""

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
    """Put a request into BentoML's queue even if no other is pending."""
    batching.Batcher.is_only_request = lambda _: False


def predict_single_rows_in_a_thread() -> None:
    """Predict single rows in a thread, too."""
    batching.MAX_INLINE_SECONDS = 0


def predict_batches_inline() -> None:
    """Predict batches of any size on the event loop."""
    batching.Batcher.runs_inline = lambda *_: True


def collect_garbage() -> None:
    """Let the garbage collector visit all objects of the imported modules."""
    gc.freeze = gc.unfreeze


def collect_garbage_often() -> None:
    """Use the default threshold of the garbage collector."""
    app.GC_THRESHOLD = gc.get_threshold()[0]


def use_asyncio_loop() -> None:
    """Use asyncio's event loop."""
    sys.modules["uvloop"] = None


def write_head_and_body_apart() -> None:
    """Write head and body of a response separately, as uvicorn does."""
    response_cycle.ResponseCycle.send = RequestResponseCycle.send


def use_one_listener() -> None:
    """Accept one connection in each turn of the event loop."""
    server.LISTENERS = 1


def count_nothing() -> None:
    """Switch off the metrics of requests and predictions."""
    RequestMetrics.start = RequestMetrics.finish = lambda *_, **__: None
    Histogram.observe = PredictionHistogram.observe_all = lambda *_: None


# bench.py reads the names from here, and shows them in the results.
ABLATIONS = {
    "ServiceApp in place of BentoML's HTTP layers": use_bentomls_http_layers,
    "an only request skips the queue": queue_single_requests,
    "single rows predicted on the event loop": predict_single_rows_in_a_thread,
    "batches predicted in a thread": predict_batches_inline,
    "gc.freeze": collect_garbage,
    "higher threshold of the garbage collector": collect_garbage_often,
    "uvloop": use_asyncio_loop,
    "head and body of a response in one write": write_head_and_body_apart,
    "several listening sockets": use_one_listener,
    "metrics buffered for 0.2 s": lambda: None,  # done above, before the metrics are created
    "(metrics off)": count_nothing,
}
if ablation:
    ABLATIONS[ablation]()

from service import HousePrice  # noqa: E402, F401 - after the replacements above
