"""Batching, inline prediction and failures of the predictor, on BentoML's own dispatcher."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from prometheus_client import REGISTRY

from serving._bentoml.batching import Predictor
from serving.errors import TooManyRequests
from serving.records import Predictions


class PlainJSON:
    """An input and output spec: rows and predictions as JSON arrays."""

    parse = json.loads
    to_json = json.dumps


@pytest.fixture
def predict():
    """An API method that blocks until it is released, doubles rows, and records its batches."""

    def predict(service, rows):
        batches.append(rows)
        released.wait(10)
        return [2 * row for row in rows]

    predict.batches = batches = []
    released = threading.Event()
    predict.release, predict.hold = released.set, released.clear
    return predict


def make_predictor(predict, max_queue=10):
    """Return a predictor on a dispatcher such as BentoML creates."""
    api = SimpleNamespace(
        func=predict, input_spec=PlainJSON, output_spec=PlainJSON, name="predict", route="/p"
    )
    histogram = SimpleNamespace(labels=lambda **_: SimpleNamespace(observe=lambda _: None))
    return Predictor(
        SimpleNamespace(
            service=SimpleNamespace(apis={"predict": api}, name="service"),
            dispatchers={"predict": CorkDispatcher(60_000, 100, fallback=lambda: None)},
            adaptive_batch_size_hist=histogram,
            _service_instance=SimpleNamespace(
                model=SimpleNamespace(tag="tag:1"),
                prediction_metrics=SimpleNamespace(observe=lambda rows, predictions: None),
            ),
        ),
        "predict",
        max_queue,
        prediction_log=None,
    )


async def submit(predictor, *bodies):
    """Return a task for each body, once each is in the queue or in the running batch."""
    tasks = [asyncio.create_task(predictor("id", body)) for body in bodies]
    await asyncio.sleep(0.05)
    return tasks


def test_queued_requests_are_predicted_together(predict):
    """Each request gets its own part of the predictions."""

    async def scenario():
        predictor = make_predictor(predict)
        first = await submit(predictor, "[1, 2]")
        rest = await submit(predictor, "[3]", "[4, 5, 6]", "[7, 8]")
        predict.release()
        return await asyncio.gather(*first, *rest)

    parts = asyncio.run(scenario())
    assert [json.loads(part) for part, _ in parts] == [[2, 4], [6], [8, 10, 12], [14, 16]]
    assert {tag for _, tag in parts} == {"tag:1"}
    assert len(predict.batches) < 4


def test_single_request_bypasses_the_queue(predict):
    """Requests of the same turn of the event loop still form one batch."""

    async def scenario():
        predictor = make_predictor(predict)
        predict.release()
        predictor.inline_seconds = 0  # the model is fast enough for the event loop
        enqueue, predictor.enqueue = predictor.enqueue, None  # using the queue would fail
        single = await predictor("id", "[1]")
        predictor.enqueue = enqueue
        for _ in range(20):  # BentoML's dispatcher forms no batches until it has timed some
            await predictor("id", "[2, 2]")
        predict.batches.clear()
        await asyncio.gather(*(predictor("id", f"[{n}]") for n in range(3)))
        return single

    assert asyncio.run(scenario()) == ("[2]", "tag:1")
    assert list(map(sorted, predict.batches)) == [[0, 1, 2]]


def test_slow_model_does_not_block_the_event_loop(predict):
    """The first single request runs in a thread, and so does one after a slow prediction."""

    async def scenario():
        predictor = make_predictor(predict)
        for _ in range(2):
            predict.hold()
            (task,) = await submit(predictor, "[1]")
            assert not task.done()
            await asyncio.sleep(0.01)
            predict.release()
            await task

    asyncio.run(scenario())
    assert predict.batches == [[1], [1]]


def test_cancelled_request_is_not_predicted(predict):
    """Under overload, requests that timed out would delay those whose clients still wait."""

    async def scenario():
        predictor = make_predictor(predict)
        first = await submit(predictor, "[1, 2]")
        for task in (cancelled := await submit(predictor, "[3, 3]", "[4, 4]")):
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        last = await submit(predictor, "[5, 5]")
        predict.release()
        return await asyncio.gather(*first, *last)

    asyncio.run(scenario())
    assert [row for batch in predict.batches for row in batch] == [1, 2, 5, 5]


def batch_seconds(name):
    """Return the sum and the count of the histogram of the time in the queue or in the model."""
    return [
        REGISTRY.get_sample_value(f"batch_{name}_seconds_{part}", {"endpoint": "/p"}) or 0
        for part in ("sum", "count")
    ]


def test_queue_time_and_model_time_are_measured_separately(predict):
    """Once for each batch; the wait for the previous batch is queue time."""

    async def scenario():
        predictor = make_predictor(predict)
        predict.release()
        for _ in range(20):
            await predictor("id", "[1, 2]")
        predict.hold()
        before = batch_seconds("queue"), batch_seconds("model")
        tasks = await submit(predictor, "[1, 2]")
        tasks += await submit(predictor, "[3, 4]", "[5, 6]")
        predict.release()
        await asyncio.gather(*tasks)
        return before

    for name, (total, count) in zip(("queue", "model"), asyncio.run(scenario()), strict=True):
        total_after, count_after = batch_seconds(name)
        assert count_after - count == 2
        assert total_after - total >= 0.05  # one `submit` takes that long, and the model is held


def test_request_is_rejected_with_429_if_the_queue_is_full(predict):
    """Otherwise the queue would grow without limit while the model hangs."""

    async def scenario():
        predictor = make_predictor(predict, max_queue=1)
        tasks = await submit(predictor, "[1, 2]", "[3, 3]", "[4, 4]")
        predict.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *_, error = asyncio.run(scenario())
    assert isinstance(error, TooManyRequests)


async def predict_queued(predictor, release, *bodies):
    """Queue bodies behind a running batch; return the content or the exception type of each."""
    tasks = await submit(predictor, "[1, 1]")
    tasks += await submit(predictor, *bodies)
    release()
    first, *rest = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == ("[1.0, 1.0]", "tag:1")
    return [result[0] if isinstance(result, tuple) else type(result) for result in rest]


@pytest.fixture
def divide():
    """An API method that blocks until it is released, and raises if a row is 0."""

    def divide(service, rows):
        released.wait(10)
        return [1 / row for row in rows]

    divide.release = (released := threading.Event()).set
    return divide


def test_failed_batch_does_not_affect_other_batches(divide):
    """Each request of the batch fails; the requests before and after it succeed."""

    async def scenario():
        predictor = make_predictor(divide)
        failed = await predict_queued(predictor, divide.release, "[2, 2]", "[4, 0]", "[8, 8]")
        return failed, await predictor("id", "[4, 4]")

    failed, (after, _) = asyncio.run(scenario())
    assert failed == [ZeroDivisionError] * 3
    assert after == "[0.25, 0.25]"


@pytest.mark.parametrize(
    ("zero_index", "failed"), [(0, [True, True, False]), (59, [False, True, True])]
)
def test_request_split_over_two_batches_fails_if_either_fails(divide, zero_index, failed):
    """A batch of 100 rows has the first 40 of the second request, the next batch the other 20."""
    split = [2] * 60
    split[zero_index] = 0
    bodies = [json.dumps(rows) for rows in ([4] * 60, split, [8] * 30)]
    results = asyncio.run(predict_queued(make_predictor(divide), divide.release, *bodies))
    assert [result is ZeroDivisionError for result in results] == failed


def test_non_finite_prediction_fails_only_its_own_request(divide):
    """The other requests of its batch get their predictions."""
    predictor = make_predictor(divide)
    predictor.api.output_spec = Predictions
    bodies = ("[1e-320, 1]", "[2, 2]")

    async def scenario():
        await submit(predictor, "[1, 1]")
        tasks = await submit(predictor, *bodies)
        divide.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    error, (content, _) = asyncio.run(scenario())
    assert isinstance(error, ValueError)
    assert content == b'{"predictions": [0.5, 0.5]}'
