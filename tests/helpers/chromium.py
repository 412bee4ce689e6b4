"""Start Chromium, in a fixture that conftest.py files import, and read its log of requests."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = [
    "headless",
    "no-sandbox",  # Chromium needs it to run as root
    "disable-gpu",
    "disable-dev-shm-usage",  # /dev/shm is small in a container
    "disable-quic",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "no-first-run",
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@contextmanager
def running_chromium(profile):
    """Run Chromium with an empty profile; outside CI, skip the test if it is not installed."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(paths) and "CI" not in os.environ:
        pytest.skip("Chromium or its driver is not installed")
    options = ChromeOptions()
    options.binary_location, driver = paths
    for flag in [*FLAGS, f"user-data-dir={profile}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options, ChromeService(driver)) as browser:
        browser.set_window_size(1280, 1600)
        browser.set_script_timeout(30)
        yield browser


@pytest.fixture
def browser(tmp_path):
    """Chromium with an empty profile."""
    with running_chromium(tmp_path) as browser:
        yield browser


def network_requests(browser):
    """Return the URL and headers of each request over the network that the page has sent."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    requests = [event["params"]["request"] for event in events if is_network_request(event)]
    return [(request["url"], request["headers"]) for request in requests]


def is_network_request(event):
    """Return whether an event is a request over the network, not of a data URL."""
    if event["method"] != "Network.requestWillBeSent":
        return False
    return event["params"]["request"]["url"].startswith(("http", "ws"))
