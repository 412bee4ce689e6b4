"""The way from the edge to an API and back, on BentoML's own dispatcher."""

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


class Body:
    """A body of plain JSON rows, and an answer of plain JSON."""

    parse = json.loads
    to_json = json.dumps


@pytest.fixture
def predict():
    """A function that doubles rows once it is released, and remembers its batches."""

    def predict(service, rows):
        batches.append(rows)
        released.wait(10)
        return [2 * row for row in rows]

    predict.batches = batches = []
    released = threading.Event()
    predict.release, predict.hold = released.set, released.clear
    return predict


def predictor(predict, max_queue=10):
    """Return a predictor on a dispatcher such as BentoML makes."""
    api = SimpleNamespace(
        func=predict, input_spec=Body, output_spec=Body, name="predict", route="/p"
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


async def submitted(predictor, *bodies):
    """Return a task for each body, all of them in the queue or already in a batch."""
    tasks = [asyncio.create_task(predictor("id", body)) for body in bodies]
    await asyncio.sleep(0.05)
    return tasks


def test_requests_that_wait_together_are_predicted_together(predict):
    """And each gets its own part of the predictions."""

    async def scenario():
        busy = predictor(predict)
        first = await submitted(busy, "[1, 2]")
        rest = await submitted(busy, "[3]", "[4, 5, 6]", "[7, 8]")
        predict.release()
        return await asyncio.gather(*first, *rest)

    parts = asyncio.run(scenario())
    assert [json.loads(part) for part, _ in parts] == [[2, 4], [6], [8, 10, 12], [14, 16]]
    assert {tag for _, tag in parts} == {"tag:1"}
    assert len(predict.batches) < 4


def test_record_that_is_alone_waits_for_no_queue(predict):
    """And those that come in the same turn of the event loop are predicted together."""

    async def scenario():
        busy = predictor(predict)
        predict.release()
        busy.inline_seconds = 0  # is what the model takes
        queued, busy.enqueue = busy.enqueue, None
        alone = await busy("id", "[1]")
        busy.enqueue = queued
        for _ in range(20):  # while BentoML's dispatcher learns, it joins none
            await busy("id", "[2, 2]")
        predict.batches.clear()
        await asyncio.gather(*(busy("id", f"[{n}]") for n in range(3)))
        return alone

    assert asyncio.run(scenario()) == ("[2]", "tag:1")
    assert list(map(sorted, predict.batches)) == [[0, 1, 2]]


def test_slow_model_holds_nobody_up(predict):
    """The event loop goes on while it predicts a record that is alone, the first one and others."""

    async def scenario():
        busy = predictor(predict)
        for _ in range(2):
            predict.hold()
            (task,) = await submitted(busy, "[1]")
            assert not task.done()
            await asyncio.sleep(0.01)
            predict.release()
            await task

    asyncio.run(scenario())
    assert predict.batches == [[1], [1]]


def test_prediction_that_was_given_up_is_not_made(predict):
    """Under overload those that nobody waits for would push out those that somebody does."""

    async def scenario():
        busy = predictor(predict)
        first = await submitted(busy, "[1, 2]")
        for task in (abandoned := await submitted(busy, "[3, 3]", "[4, 4]")):
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)
        last = await submitted(busy, "[5, 5]")
        predict.release()
        return await asyncio.gather(*first, *last)

    asyncio.run(scenario())
    assert [row for batch in predict.batches for row in batch] == [1, 2, 5, 5]


def seconds(name):
    """Return the sum and the count of a histogram of batches."""
    return [
        REGISTRY.get_sample_value(f"batch_{name}_seconds_{part}", {"endpoint": "/p"}) or 0
        for part in ("sum", "count")
    ]


def test_time_in_the_queue_and_in_the_model_is_told_apart(predict):
    """Once for each batch: what waits for the one before it waits in the queue."""

    async def scenario():
        busy = predictor(predict)
        predict.release()
        for _ in range(20):
            await busy("id", "[1, 2]")
        predict.hold()
        before = seconds("queue"), seconds("model")
        tasks = await submitted(busy, "[1, 2]")
        tasks += await submitted(busy, "[3, 4]", "[5, 6]")
        predict.release()
        await asyncio.gather(*tasks)
        return before

    for name, (total, count) in zip(("queue", "model"), asyncio.run(scenario()), strict=True):
        more, batches = seconds(name)
        assert batches - count == 2
        assert more - total >= 0.05  # the first batch took as long


def test_queue_is_bounded(predict):
    """429, at once: a model that hangs would collect requests without end."""

    async def scenario():
        busy = predictor(predict, max_queue=1)
        tasks = await submitted(busy, "[1, 2]", "[3, 3]", "[4, 4]")
        predict.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *_, refused = asyncio.run(scenario())
    assert isinstance(refused, TooManyRequests)


async def outcomes(predictor, release, *bodies):
    """Return what comes of bodies that wait together while another request is predicted."""
    tasks = await submitted(predictor, "[1, 1]")
    tasks += await submitted(predictor, *bodies)
    release()
    first, *rest = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == ("[1.0, 1.0]", "tag:1")
    return [done[0] if isinstance(done, tuple) else type(done) for done in rest]


@pytest.fixture
def divide():
    """A function that divides by rows once it is released, and so fails if one is 0."""

    def divide(service, rows):
        released.wait(10)
        return [1 / row for row in rows]

    divide.release = (released := threading.Event()).set
    return divide


def test_failed_batch_fails_alone(divide):
    """Each request in it does, none before it and none after it."""

    async def scenario():
        healing = predictor(divide)
        failed = await outcomes(healing, divide.release, "[2, 2]", "[4, 0]", "[8, 8]")
        return failed, await healing("id", "[4, 4]")

    failed, (after, _) = asyncio.run(scenario())
    assert failed == [ZeroDivisionError] * 3
    assert after == "[0.25, 0.25]"


@pytest.mark.parametrize(("place", "failed"), [(0, [True, True, False]), (59, [False, True, True])])
def test_request_in_two_batches_fails_with_either(divide, place, failed):
    """A batch of 100 rows has the first 40 of the second request, and the next one its others."""
    split = [2] * 60
    split[place] = 0
    bodies = [json.dumps(rows) for rows in ([4] * 60, split, [8] * 30)]
    done = asyncio.run(outcomes(predictor(divide), divide.release, *bodies))
    assert [outcome is ZeroDivisionError for outcome in done] == failed


def test_prediction_that_is_not_finite_fails_its_request_alone(divide):
    """The others in its batch get theirs."""
    infinite = predictor(divide)
    infinite.api.output_spec = Predictions
    bodies = ("[1e-320, 1]", "[2, 2]")

    async def scenario():
        await submitted(infinite, "[1, 1]")
        tasks = await submitted(infinite, *bodies)
        divide.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    failed, (answer, _) = asyncio.run(scenario())
    assert isinstance(failed, ValueError)
    assert answer == b'{"predictions": [0.5, 0.5]}'
