"""Metrics of the worker processes."""

import subprocess
import sys

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.observability.worker_metrics import register_worker


@pytest.fixture
def scrape(tmp_path, monkeypatch):
    """A function that returns the metrics of all workers, from their files in one folder."""

    def scrape():
        families = MultiProcessCollector(None, str(tmp_path)).collect()
        return {sample.name: sample.value for family in families for sample in family.samples}

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return scrape


WORKER = """
import sys
from serving._bentoml.prediction_histogram import PredictionHistogram
from serving.observability.worker_metrics import register_worker
register_worker()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start_worker(scrape):
    """A function that starts a process which registers as a worker; it returns the process."""
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_new_worker_removes_the_gauges_of_a_dead_worker(start_worker, scrape):
    """The counters of the dead worker stay."""
    first, _ = start_worker(), start_worker()
    assert scrape() == scrape() | {"live_workers": 2, "worker_starts_total": 2}
    first.kill()
    first.wait()
    start_worker()
    assert scrape() == scrape() | {"live_workers": 2, "worker_starts_total": 3}


def test_worker_without_metrics_folder_removes_no_files(monkeypatch, tmp_path):
    """A user's test that calls the Service's application may have no such folder."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.chdir(tmp_path)
    gauge = tmp_path / "gauge_livesum_0.db"
    gauge.touch()
    register_worker()
    assert gauge.exists()
