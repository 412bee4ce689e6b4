"""A Prometheus histogram of predictions that observes many values in one call."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cache

from prometheus_client import Histogram


class PredictionHistogram(Histogram):
    """A histogram that counts 1000 values in 0.2 ms instead of 4 ms."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count values, which must be finite: a NaN or an infinity would spoil the sum for good."""
        self._sum.inc(sum(values))
        buckets = Counter([bisect_left(self._upper_bounds, value) for value in values])
        for bucket, count in buckets.items():
            self._buckets[bucket].inc(count)


@cache
def prediction_histogram(bounds: tuple[float, ...]) -> PredictionHistogram:
    """Return the histogram with these upper bounds of its buckets, which the model determines."""
    # Not registered: models with other bounds may be served in one process, as in tests, and a
    # registry allows one metric of each name. It is in /metrics nevertheless, which reads the files
    # of the workers.
    return PredictionHistogram("prediction_value", "Predictions", buckets=bounds, registry=None)
