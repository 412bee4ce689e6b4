"""One prediction API of a Service: from the JSON of a request to the JSON of its predictions."""

from collections.abc import Sequence
from functools import cached_property
from math import isfinite
from time import time
from typing import Any

from serving._bentoml.batching import Batcher
from serving.errors import UnpredictableError
from serving.isolation import Unpredicted
from serving.observability.prediction_log import PredictedRequest, PredictionLog
from serving.observability.prediction_metrics import UNPREDICTABLE_RECORDS, WHAT_IF_RECORDS
from serving.records import WhatIfRow


class Predictor:
    """Parses the body of each request, predicts its rows through a `Batcher`, and logs them."""

    def __init__(self, api: Any, batcher: Batcher, prediction_log: PredictionLog | None) -> None:
        self.api = api  # BentoML's `APIMethod`
        self.batcher = batcher
        self.prediction_log = prediction_log

    async def __call__(
        self, request_id: str, body: bytes, *, what_if: bool = False
    ) -> tuple[bytes, bytes]:
        """Return the JSON of the predictions, and the tag of the model.

        `what_if`: count the records separately, and do not log them.

        Raise APIError; ModelFailedError, if the model also fails on the golden row; or
        BatchTimeoutError.
        """
        rows = self.api.input_spec.parse(body)
        if what_if:
            rows = list(map(WhatIfRow, rows))
        predictions = await self.batcher.predict(rows)
        # `Batch` puts an `Unpredicted`, which is a NaN, in place of each prediction that is
        # missing or not finite.
        if not all(map(isfinite, predictions)):
            raise self.unpredictable_error(predictions, what_if)
        content = self.api.output_spec.to_json(predictions)
        if what_if:
            WHAT_IF_RECORDS.inc(len(rows))
        elif self.prediction_log:
            request = PredictedRequest(time(), request_id, self.model_tag, rows, predictions)
            self.prediction_log.add(request)
        return content, self.model_tag_header

    def unpredictable_error(
        self, predictions: Sequence[float], what_if: bool
    ) -> UnpredictableError:
        """Count the records known to be unpredictable; return the error of their request."""
        unpredicted = {n: y for n, y in enumerate(predictions) if isinstance(y, Unpredicted)}
        # Never empty: `Batch` stops dividing the rows of a request only once some failed alone.
        numbers = [n for n, each in unpredicted.items() if each.failed_alone]
        if not what_if:
            UNPREDICTABLE_RECORDS.inc(len(numbers))
        return UnpredictableError(
            numbers if self.api.input_spec.max_records else None,
            all_found=len(numbers) == len(unpredicted),
            reason=unpredicted[numbers[0]].error,
            delay_seconds=self.batcher.failure_history.delay_seconds(),
        )

    @cached_property
    def model_tag(self) -> str:
        """The tag of the model that predicts."""
        return str(self.batcher.instance.model.tag)

    @cached_property
    def model_tag_header(self) -> bytes:
        """The tag of the model as the value of a header."""
        return self.model_tag.encode()
