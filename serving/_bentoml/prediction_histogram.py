"""A Prometheus histogram that observes many values in one call."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cache

from prometheus_client import Histogram


class PredictionHistogram(Histogram):
    """A histogram of predictions that counts a batch at once.

    1000 values take 0.2 ms that way, and 4 ms with `observe`.
    """

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value; all are finite, or the sum would never be so again."""
        self._sum.inc(sum(values))
        buckets = Counter([bisect_left(self._upper_bounds, value) for value in values])
        for bucket, count in buckets.items():
            self._buckets[bucket].inc(count)


@cache
def prediction_histogram(bounds: tuple[float, ...]) -> PredictionHistogram:
    """Return the histogram with these upper bounds, which depend on the served model."""
    # Not registered: a registry takes one metric of a name, and /metrics reads the workers' files.
    return PredictionHistogram(
        "prediction_value", "What was predicted", buckets=bounds, registry=None
    )
