"""The access log."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from serving.observability.access_log import AccessLog
from serving.observability.background_writer import FLUSH_SECONDS
from tests.helpers.commands import ROOT


def logged(style, *requests):
    """Log requests, and let the log close."""
    log = AccessLog(style)
    for request in requests:
        log.add(*request)
    log.writer.close()


def test_line_for_people(capfd):
    """Time, method, path, status, duration and request ID."""
    logged("text", ("POST", "/predict", 200, 0.0012345, "abc"))
    line = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z POST "/predict" 200 1\.23[45]ms abc\n'
    assert re.fullmatch(line, capfd.readouterr().out)


def test_line_for_machines(capfd):
    """The same, as JSON."""
    logged("json", ("POST", "/predict", 200, 0.001, "abc"))
    line = json.loads(capfd.readouterr().out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "duration_ms": 1.0,
        "request_id": "abc",
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_path_cannot_forge_or_flood_the_log(capfd, style):
    """A line feed stays inside the quotes, and a long path is cut."""
    logged(style, ("GET", "/\n\x1b[31mforged" + "x" * 10_000, 404, 0.001, "abc"))
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert len(out) < 400


def test_log_can_be_switched_off(capfd):
    """Then nothing is formatted either."""
    logged("off", ("GET", "/", 200, 0.001, "abc"))
    assert not capfd.readouterr().out


def test_lines_are_written_while_the_service_runs(capfd):
    """In their order, without waiting for its end."""
    log = AccessLog("text")
    for number in range(1000):
        log.add("GET", "/", 200, 0.001, str(number))
    time.sleep(3 * FLUSH_SECONDS)
    out = capfd.readouterr().out
    assert re.findall(r'GET "/" 200 1.000ms (\d+)$', out, re.M) == list(map(str, range(1000)))


def test_lines_that_nobody_takes_are_counted(monkeypatch):
    """A full disk costs lines, and no request."""
    before = REGISTRY.get_sample_value("access_log_lines_lost_total")
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too
    monkeypatch.setattr("sys.stdout", full)
    logged("text", *[("GET", "/", 200, 0.001, "abc")] * 3)
    with suppress(OSError):
        full.close()
    assert REGISTRY.get_sample_value("access_log_lines_lost_total") == before + 3


def test_reader_that_has_stopped_reading_does_not_hold_up_the_end():
    """The lines are lost to it, and the process ends all the same."""
    script = """
from serving.observability.access_log import AccessLog
log = AccessLog("text")
for _ in range(10_000):
    log.add("GET", "/", 200, 0.001, "abc")
log.writer.close()
"""
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=writer)
    try:
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)
