"""The access log: its lines, and what happens if they cannot be written."""

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


def log_requests(style, *requests):
    """Log requests, and close the log."""
    log = AccessLog(style)
    for request in requests:
        log.add(*request)
    log.writer.close()


def test_text_line_has_all_fields(capfd):
    """Time, method, path, status, duration and request ID."""
    log_requests("text", ("POST", "/predict", 200, 0.0012345, "abc"))
    line = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z POST "/predict" 200 1\.23[45]ms abc\n'
    assert re.fullmatch(line, capfd.readouterr().out)


def test_json_line_has_all_fields(capfd):
    """The fields of the text line, by name."""
    log_requests("json", ("POST", "/predict", 200, 0.001, "abc"))
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
    """Control characters are escaped, and a long path is truncated."""
    log_requests(style, ("GET", "/\n\x1b[31mforged" + "x" * 10_000, 404, 0.001, "abc"))
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert len(out) < 400


def test_access_log_can_be_disabled(capfd):
    """Nothing is written then."""
    log_requests("off", ("GET", "/", 200, 0.001, "abc"))
    assert not capfd.readouterr().out


def test_lines_are_written_before_the_log_is_closed(capfd):
    """A background thread writes them, in order."""
    log = AccessLog("text")
    for number in range(1000):
        log.add("GET", "/", 200, 0.001, str(number))
    time.sleep(3 * FLUSH_SECONDS)
    out = capfd.readouterr().out
    assert re.findall(r'GET "/" 200 1.000ms (\d+)$', out, re.M) == list(map(str, range(1000)))


def test_lines_that_cannot_be_written_are_counted(monkeypatch):
    """A full disk loses lines, but fails no request."""
    before = REGISTRY.get_sample_value("access_log_lines_lost_total")
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too
    monkeypatch.setattr("sys.stdout", full)
    log_requests("text", *[("GET", "/", 200, 0.001, "abc")] * 3)
    with suppress(OSError):
        full.close()
    assert REGISTRY.get_sample_value("access_log_lines_lost_total") == before + 3


def test_log_goes_on_after_any_exception(capfd):
    """The item that caused it is lost and counted."""
    log = AccessLog("text")
    before = REGISTRY.get_sample_value("access_log_lines_lost_total")
    log.writer.add(None)  # not a request
    time.sleep(3 * FLUSH_SECONDS)
    log.add("GET", "/", 200, 0.001, "written")
    log.writer.close()
    assert REGISTRY.get_sample_value("access_log_lines_lost_total") == before + 1
    assert "written" in capfd.readouterr().out


def test_process_exits_even_if_its_log_is_not_read():
    """The lines that do not fit into the pipe are lost."""
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
