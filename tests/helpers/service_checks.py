"""Checks for any record type; `client` is a client of `bentoml serve`."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import bentoml
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.raw_http import connect, request


def samples(client, family):
    """Return the samples of a metric family."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [sample for each in families if each.name == family for sample in each.samples]


def batch_counts(client):
    """Return the number of batches of `predict`, and the number of records in them."""
    sizes = {
        sample.name.rpartition("_")[2]: sample.value
        for sample in samples(client, "bentoml_service_adaptive_batch_size")
        if sample.labels["method_name"] == "predict"
    }
    return sizes.get("count", 0), sizes.get("sum", 0)


def check_concurrent_requests_are_batched(client, record):
    """Check that 64 single records, sent at the same time, are predicted in at most 16 batches."""
    count, size = batch_counts(client)
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(client)) for _ in range(64)]
        # While the worker is suspended, all requests arrive; it then sees them at once.
        (worker,) = psutil.Process(client.server.pid).children()
        worker.suspend()
        for connection in connections:
            connection.sendall(request(body=json.dumps(record).encode()))
        worker.resume()
        answers = [connection.recv(65536) for connection in connections]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    more, larger = batch_counts(client)
    assert larger - size == 64
    assert more - count <= 16


def check_concurrent_requests_do_not_mix(client, records, expected, feature):
    """Check that concurrent valid and invalid requests each get their own response.

    `feature` is one whose negative values are invalid.
    """
    assert len(set(expected)) > 100

    def ask(n):
        if n % 3 == 0:
            return client.post("/predict", json=records[n] | {feature: -n - 1}).json()
        if n % 3 == 1:
            return client.post("/predict", json=records[n]).json()
        return client.post("/predict_batch", json=records[n:] + records[:n]).json()

    with ThreadPoolExecutor(64) as clients:
        answers = list(clients.map(ask, range(len(records))))
    for n, answer in enumerate(answers):
        message = {feature: f"{feature} should be greater than or equal to 0, got {-n - 1}"}
        assert (
            answer
            == (
                {"message": message},
                {"prediction": expected[n]},
                {"predictions": expected[n:] + expected[:n]},
            )[n % 3]
        )


def check_order_is_kept(client, records):
    """Check that predictions keep their order if arrays are split and joined in batches."""
    expected = client.post("/predict_batch", json=records).json()["predictions"]
    assert len(set(expected)) > 10
    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda _: client.post("/predict_batch", json=records), range(24))
    assert all(answer.json()["predictions"] == expected for answer in answers)


def check_bentomls_client(client, record, prediction):
    """Check both APIs with BentoML's client."""
    with bentoml.SyncHTTPClient(str(client.base_url)) as own:
        assert own.predict(record) == {"prediction": prediction}
        assert own.predict_batch([record] * 2) == {"predictions": [prediction] * 2}
