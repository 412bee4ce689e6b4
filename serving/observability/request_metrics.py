"""Metrics of the HTTP requests, under BentoML's names and labels."""

import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge, Histogram


class RequestMetrics:
    """Counts requests and those in progress, and measures durations, by endpoint.

    BentoML's middleware looks up four labelled series for each request, and adds twenty series for
    each unknown path. Here each series is looked up once; the caller counts all paths without a
    route of their own as one endpoint.
    """

    def __init__(
        self,
        initial_endpoints: Iterable[str],  # their series exist, as 0, before the first request
        service_labels: dict[str, str],
        namespace: str,
        duration_buckets: Sequence[float],
    ) -> None:
        total, duration, in_progress, last = register_metrics(
            namespace, tuple(duration_buckets), tuple(service_labels)
        )
        labels = service_labels
        self.last_request = last.labels(**labels)
        self.in_progress = cache(lambda endpoint: in_progress.labels(endpoint=endpoint, **labels))
        self.responses = cache(
            lambda endpoint, status: tuple(
                metric.labels(endpoint=endpoint, http_response_code=status, **labels)
                for metric in (total, duration)
            )
        )
        for endpoint in initial_endpoints:
            # PromQL's `rate` misses an increase without a sample before it.
            self.responses(endpoint, 200)
            self.responses(endpoint, 500)

    def start(self, endpoint: str, is_probe: bool) -> None:
        """Count a request that begins; set the time of the last request, unless it is a probe.

        A scrape of /metrics counts as a probe.
        """
        self.in_progress(endpoint).inc()
        if not is_probe:
            self.last_request.set(time.time())

    def finish(self, endpoint: str, status: int, seconds: float) -> None:
        """Count and time a request that ends, by the status of its response."""
        total, duration = self.responses(endpoint, status)
        total.inc()
        duration.observe(seconds)
        self.in_progress(endpoint).dec()


@cache
def register_metrics(
    namespace: str, duration_buckets: tuple[float, ...], service_labels: tuple[str, ...]
) -> tuple[Any, ...]:
    """Register the four metrics; the Prometheus client allows that once in a process."""
    labels = ["endpoint", *service_labels]
    response_labels = [*labels, "http_response_code"]
    return (
        Counter("request_total", "HTTP requests", response_labels, namespace=namespace),
        Histogram(
            "request_duration_seconds",
            "Duration of HTTP requests",
            response_labels,
            buckets=duration_buckets,
            namespace=namespace,
        ),
        Gauge(
            "request_in_progress",
            "HTTP requests in progress",
            labels,
            multiprocess_mode="livesum",
            namespace=namespace,
        ),
        Gauge(
            "last_request_timestamp_seconds",
            "Time of the last request",
            service_labels,
            multiprocess_mode="max",
            namespace=namespace,
        ),
    )
