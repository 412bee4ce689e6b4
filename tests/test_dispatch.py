"""The way from the edge to an API and back, on BentoML's own dispatcher."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
from bentoml._internal.marshal.dispatcher import CorkDispatcher

from serving.dispatch import Predictor
from serving.refusal import Refusal


class Body:
    """A body of plain JSON rows, and an answer of plain JSON."""

    rows = json.loads
    render = json.dumps


@pytest.fixture
def predict():
    """A function that doubles rows once it is released, and remembers its batches."""

    def predict(service, rows):
        batches.append(rows)
        released.wait(10)
        return [2 * row for row in rows]

    predict.batches = batches = []
    predict.release = (released := threading.Event()).set
    return predict


def predictor(predict, max_queue=10):
    """Return a predictor on a dispatcher such as BentoML makes."""
    api = SimpleNamespace(func=predict, input_spec=Body, output_spec=Body, name="predict")
    histogram = SimpleNamespace(labels=lambda **_: SimpleNamespace(observe=lambda _: None))
    return Predictor(
        SimpleNamespace(
            service=SimpleNamespace(apis={"predict": api}, name="service"),
            dispatchers={"predict": CorkDispatcher(60_000, 100, fallback=lambda: None)},
            adaptive_batch_size_hist=histogram,
            _service_instance=SimpleNamespace(model=SimpleNamespace(tag="tag:1")),
        ),
        "predict",
        max_queue,
    )


async def submitted(predictor, *bodies):
    """Return a task for each body, all of them in the queue or already in a batch."""
    tasks = [asyncio.create_task(predictor(body)) for body in bodies]
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


def test_queue_is_bounded(predict):
    """503 with Retry-After, at once."""

    async def scenario():
        busy = predictor(predict, max_queue=1)
        tasks = await submitted(busy, "[1, 2]", "[3, 3]", "[4, 4]")
        predict.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *_, refused = asyncio.run(scenario())
    assert isinstance(refused, Refusal)
    assert refused.status == 503
    assert refused.headers == {"Retry-After": "1"}


def test_failed_batch_does_not_stop_the_next():
    """Each request in it fails, and the dispatcher goes on."""

    def fail_once(service, rows):
        fail_once.calls += 1
        if fail_once.calls == 1:
            raise ZeroDivisionError
        return rows

    async def scenario():
        healing = predictor(fail_once)
        with pytest.raises(ZeroDivisionError):
            await healing("[1, 2]")
        return await healing("[3, 4]")

    fail_once.calls = 0
    assert asyncio.run(scenario()) == ("[3, 4]", "tag:1")
