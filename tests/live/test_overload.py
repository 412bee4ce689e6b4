"""More clients than prediction slots."""

from collections import Counter
from contextlib import ExitStack

import pytest

from house import EXAMPLE
from tests.helpers.commands import running_server
from tests.helpers.raw_http import connect, read_last_response, request
from tests.helpers.tutorial import TUTORIAL_RESPONSE

pytestmark = pytest.mark.slow  # a server for each test, with one or a few slots


def test_slow_uploads_occupy_no_prediction_slot(model, tmp_path):
    """Incomplete bodies of more than 64 times MAX_BODY_BYTES get 429, to limit the memory."""
    limits = {"MAX_CONCURRENCY": "1", "MAX_BODY_BYTES": "1000"}
    with (
        running_server("bentoml", "serve", log=tmp_path / "log", **limits) as client,
        ExitStack() as stack,
    ):
        slow = [stack.enter_context(connect(client)) for _ in range(66)]
        for connection in slow:
            connection.sendall(request(length=1000, body=b" " * 999))
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        statuses = Counter(status for status, *_ in map(read_last_response, slow))
        assert statuses[429] >= 1
        assert statuses[429] + statuses[408] == 66
