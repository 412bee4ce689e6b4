"""Metrics of HTTP requests."""

import pytest
from prometheus_client import REGISTRY

from serving.observability.request_metrics import RequestMetrics

LABELS = {"service_name": "", "service_version": "not available", "runner_name": "None"}


def request_metrics(*endpoints):
    """Return the metrics of some endpoints, with the labels of a service that is not a Bento."""
    return RequestMetrics(endpoints, LABELS, "request_tests", (0.01, 0.1, 1.0))


def test_requests_are_counted_by_endpoint_and_status():
    """With their duration, and with the number in progress."""
    metrics = request_metrics("/p")
    labels = LABELS | {"endpoint": "/p"}
    successful = labels | {"http_response_code": "200"}
    assert REGISTRY.get_sample_value("request_tests_request_total", successful) == 0
    metrics.start("/p", is_probe=False)
    assert REGISTRY.get_sample_value("request_tests_request_in_progress", labels) == 1
    metrics.finish("/p", 200, 0.02)
    assert REGISTRY.get_sample_value("request_tests_request_in_progress", labels) == 0
    assert REGISTRY.get_sample_value("request_tests_request_total", successful) == 1
    duration = "request_tests_request_duration_seconds_sum"
    assert REGISTRY.get_sample_value(duration, successful) == pytest.approx(0.02)


def test_probe_does_not_update_the_time_of_the_last_request():
    """Otherwise an unused service would seem to be in use."""
    last = "request_tests_last_request_timestamp_seconds"
    metrics = request_metrics()
    metrics.start("/p", is_probe=False)
    before = REGISTRY.get_sample_value(last, LABELS)
    metrics.start("/livez", is_probe=True)
    assert REGISTRY.get_sample_value(last, LABELS) == before > 0
