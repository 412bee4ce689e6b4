"""Batching, inline prediction and failures of the model, on BentoML's own dispatcher."""

import asyncio
import json
import threading
import time
from traceback import walk_tb
from types import SimpleNamespace

import pytest
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from prometheus_client import REGISTRY

from serving._bentoml.batching import Batcher
from serving._bentoml.predictor import Predictor
from serving.errors import UNPREDICTABLE, TooManyRequests, UnpredictableError
from serving.isolation import BatchTimeoutError, ModelFailedError
from serving.records import WhatIfRow


class PlainJSON:
    """An input and output spec: rows and predictions as JSON arrays."""

    parse = json.loads
    to_json = json.dumps
    max_records = 100


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
    batcher = Batcher(
        SimpleNamespace(
            service=SimpleNamespace(apis={"predict": api}, name="service"),
            dispatchers={"predict": CorkDispatcher(60_000, 100, fallback=lambda: None)},
            adaptive_batch_size_hist=histogram,
            _service_instance=SimpleNamespace(
                model=SimpleNamespace(tag="tag:1"),
                prediction_metrics=SimpleNamespace(
                    observe=lambda rows, predictions: None, is_outside=lambda row: False
                ),
                golden_row=1,
            ),
        ),
        "predict",
        max_queue,
        timeout=60,
        open_requests=range(2),
    )
    return Predictor(api, batcher, prediction_log=None)


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
    assert {tag for _, tag in parts} == {b"tag:1"}
    assert len(predict.batches) < 4


def test_single_request_bypasses_the_queue(predict):
    """Requests of the same turn of the event loop still form one batch."""

    async def scenario():
        predictor = make_predictor(predict)
        predict.release()
        predictor.batcher.single_row_seconds = 0  # the model is fast enough for the event loop
        predict_queued = predictor.batcher.predict_queued
        predictor.batcher.predict_queued = None  # would fail
        single = await predictor("id", "[1]")
        predictor.batcher.predict_queued = predict_queued
        for _ in range(20):  # BentoML's dispatcher forms no batches until it has timed some
            await predictor("id", "[2, 2]")
        predict.batches.clear()
        await asyncio.gather(*(predictor("id", f"[{n}]") for n in range(3)))
        return single

    assert asyncio.run(scenario()) == ("[2]", b"tag:1")
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


@pytest.mark.parametrize(
    ("seconds", "requests", "inline"),
    [
        (0.004, [[1]], True),
        (0.006, [[1]], False),
        (0.004, [[1, 2]], False),
        (0.004, [[1], [2]], False),
    ],
)
def test_single_row_of_a_fast_model_runs_on_the_event_loop(predict, seconds, requests, inline):
    """The model is fast if the last single row took at most 5 ms."""
    predictor = make_predictor(predict)
    predictor.batcher.single_row_seconds = seconds
    assert predictor.batcher.runs_inline(requests) == inline


def test_cancelled_request_is_not_predicted(predict):
    """Under overload it would delay the requests whose clients still wait."""

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
        predictor.batcher.runs_inline = lambda requests: False
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


@pytest.fixture
def divide():
    """An API method that blocks until it is released, and raises if a row is 0."""

    def divide(service, rows):
        released.wait(10)
        return [1 / row for row in rows]

    divide.release = (released := threading.Event()).set
    return divide


async def predict_queued(predictor, release, *bodies):
    """Queue bodies behind a running batch; return the content or the exception of each."""
    tasks = await submit(predictor, "[1, 1]")
    tasks += await submit(predictor, *bodies)
    release()
    first, *rest = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == ("[1.0, 1.0]", b"tag:1")
    return [result[0] if isinstance(result, tuple) else result for result in rest]


def test_record_that_the_model_fails_on_is_rejected_with_422(divide):
    """The other requests of its batch get their predictions, and a counter counts the record."""
    counted = REGISTRY.get_sample_value("unpredictable_records_total")
    bodies = "[2, 2]", "[4, 0]", "[8, 8]"
    before, error, after = asyncio.run(
        predict_queued(make_predictor(divide), divide.release, *bodies)
    )
    assert (before, after) == ("[0.5, 0.5]", "[0.125, 0.125]")
    assert (error.status, error.message) == (422, {"1": UNPREDICTABLE})
    assert isinstance(error.reason, ZeroDivisionError)
    assert REGISTRY.get_sample_value("unpredictable_records_total") == counted + 1


@pytest.mark.parametrize("zeros", [[0], [59], [3, 41]], ids=str)
def test_record_numbers_are_those_of_a_request_that_two_batches_share(divide, zeros):
    """A batch of 100 rows has the first 40 of the second request, the next batch the other 20."""
    split = [0 if n in zeros else 2 for n in range(60)]
    bodies = [json.dumps(rows) for rows in ([4] * 60, split, [8] * 30)]
    first, error, last = asyncio.run(
        predict_queued(make_predictor(divide), divide.release, *bodies)
    )
    assert (json.loads(first), json.loads(last)) == ([0.25] * 60, [0.125] * 30)
    assert error.message == dict.fromkeys(map(str, zeros), UNPREDICTABLE)


def test_record_with_a_non_finite_prediction_is_rejected_with_422(divide):
    """JSON has no infinity; the other requests of the batch get their predictions."""
    bodies = "[1e-320, 1]", "[2, 2]"
    error, content = asyncio.run(predict_queued(make_predictor(divide), divide.release, *bodies))
    assert (error.status, error.message) == (422, {"0": UNPREDICTABLE})
    assert "inf" in str(error.reason)
    assert content == "[0.5, 0.5]"


def test_single_record_is_rejected_with_422_if_the_model_works(divide):
    """The prediction of the golden row, here 1, shows that it works. The message is a sentence."""
    divide.release()
    predictor = make_predictor(divide)
    predictor.api.input_spec = type("OneRecord", (PlainJSON,), {"max_records": None})
    with pytest.raises(UnpredictableError) as caught:
        asyncio.run(predictor("id", "[0]"))
    assert (caught.value.status, caught.value.message) == (422, UNPREDICTABLE)


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "in a batch"])
def test_broken_model_raises_one_exception_for_each_request(divide, inline):
    """An exception raised for several requests would accumulate all their tracebacks."""
    predictor = make_predictor(divide)
    predictor.batcher.instance.golden_row = 0

    async def scenario():
        if inline:
            divide.release()
            predictor.batcher.single_row_seconds = 0
            return await asyncio.gather(predictor("id", "[0]"), return_exceptions=True)
        return await predict_queued(predictor, divide.release, "[0, 0]", "[0, 0]", "[0, 0]")

    errors = asyncio.run(scenario())
    assert {type(error) for error in errors} == {ModelFailedError}
    assert {type(error.__cause__) for error in errors} == {ZeroDivisionError}
    assert len({id(error) for error in errors}) == len(errors)
    depths = {len(list(walk_tb(error.__traceback__))) for error in errors}
    assert len(depths) == 1


def test_array_with_many_unpredictable_records_names_some(divide):
    """Finding all of them would take two calls of the model for each record."""
    (error,) = asyncio.run(
        predict_queued(make_predictor(divide), divide.release, json.dumps([0] * 100))
    )
    assert error.status == 422
    assert error.message.startswith("The model can't predict many of the records, such as 0, 1, 2,")


class TupleRows(PlainJSON):
    """An input spec whose rows are tuples, as those of records."""

    @staticmethod
    def parse(body):
        """Return a row for each number of an array."""
        return [(number,) for number in json.loads(body)]


def test_what_if_rows_are_predicted_with_the_others_but_not_observed():
    """One batch holds rows of both kinds; each request gets its own predictions."""
    batches, observed = [], []
    released = threading.Event()

    def double(service, rows):
        released.wait(10)
        batches.append(len(rows))
        return [2 * number for (number,) in rows]

    async def scenario():
        predictor = make_predictor(double)
        predictor.api.input_spec = TupleRows
        metrics = predictor.batcher.instance.prediction_metrics
        metrics.observe = lambda rows, predictions: observed.extend(
            zip(rows, predictions, strict=True)
        )
        tasks = await submit(predictor, "[1, 1]")
        tasks.append(asyncio.create_task(predictor("id", "[2, 3]", what_if=True)))
        tasks += await submit(predictor, "[4, 5]")
        released.set()
        return [json.loads(content) for content, _ in await asyncio.gather(*tasks)]

    assert asyncio.run(scenario()) == [[2, 2], [4, 6], [8, 10]]
    assert 4 in batches
    assert observed == [((1,), 2), ((1,), 2), ((4,), 8), ((5,), 10)]
    assert not any(isinstance(row, WhatIfRow) for row, _ in observed)


def test_unpredictable_what_if_record_is_rejected_but_not_counted(divide):
    """An alert watches the counter, and what-if records must not trigger it."""
    divide.release()
    predictor = make_predictor(lambda service, rows: [1 / number for (number,) in rows])
    predictor.api.input_spec = TupleRows
    predictor.batcher.instance.golden_row = (1,)
    counted = REGISTRY.get_sample_value("unpredictable_records_total")
    with pytest.raises(UnpredictableError):
        asyncio.run(predictor("id", "[2, 0]", what_if=True))
    assert REGISTRY.get_sample_value("unpredictable_records_total") == counted


def test_api_method_that_returns_too_few_predictions_fails(predict):
    """Otherwise requests would get the predictions of others."""
    predict.release()
    predictor = make_predictor(lambda service, rows: rows[1:])
    with pytest.raises(ModelFailedError) as caught:
        asyncio.run(predictor("id", "[1, 2, 3]"))
    assert "0 predictions for" in str(caught.value.__cause__)


def test_hanging_model_delays_the_next_batch_by_the_timeout_at_most():
    """While a batch is divided, its requests get 504; then the next batch is predicted."""

    def hang(service, rows):
        time.sleep(0.15)
        return [1 / row for row in rows]

    async def scenario():
        predictor = make_predictor(hang)
        predictor.batcher.timeout = 0.3
        tasks = await submit(predictor, json.dumps([0] * 40))
        start = time.monotonic()
        after = await predictor("id", "[2, 2]")
        return time.monotonic() - start, after, await asyncio.gather(*tasks, return_exceptions=True)

    seconds, (after, _), (error,) = asyncio.run(scenario())
    assert after == "[0.5, 0.5]"
    assert isinstance(error, BatchTimeoutError)
    assert seconds < 2
