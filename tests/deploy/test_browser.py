"""Swagger UI, API keys and CORS in Chromium, as its user meets them."""

import json
import os
import re
import shutil
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.wait import WebDriverWait

from house import EXAMPLE
from tests.conftest import STORE
from tests.docs.test_clients import block, here
from tests.helpers.commands import TUTORIAL_RESPONSE, running_server

KEY = "key-of-the-browser-tests"
FLAGS = [
    "headless",
    "no-sandbox",  # in which root cannot run it
    "disable-gpu",
    "disable-dev-shm-usage",  # which is small in a container
    "disable-quic",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "no-first-run",
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.fixture
def browser(tmp_path):
    """Chromium with an empty profile: CI has it, elsewhere the tests are skipped without."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(paths) and "CI" not in os.environ:
        pytest.skip("Chromium or its driver is not installed")
    options = ChromeOptions()
    options.binary_location, driver = paths
    for flag in [*FLAGS, f"user-data-dir={tmp_path}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options, ChromeService(driver)) as browser:
        browser.set_window_size(1280, 1600)
        browser.set_script_timeout(30)
        yield browser


@contextmanager
def blank_page(folder):
    """Serve an empty page; yield its origin."""
    (folder / "index.html").touch()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The origin of somebody's web page."""
    with blank_page(tmp_path_factory.mktemp("page")) as origin:
        yield origin


@pytest.fixture(scope="module")
def guarded(model, origin, tmp_path_factory):
    """A client of `bentoml serve` with an API key, which that page may call."""
    home = tmp_path_factory.mktemp("guarded")
    # When a server starts, BentoML empties the folder of its home's metrics, which `live` fills.
    (home / "models").symlink_to(Path(STORE, "models"))
    env = {"BENTOML_HOME": str(home), "API_KEYS": KEY, "CORS_ORIGINS": origin}
    with running_server("bentoml", "serve", log=home / "log", **env) as client:
        yield client


def click(browser, selector, within=None):
    """Click an element once it can be clicked."""
    target = (By.CSS_SELECTOR, f"{within or ''} {selector}")
    WebDriverWait(browser, 30).until(element_to_be_clickable(target)).click()


def execute(browser, api):
    """Open an API in Swagger UI, try it out as it is, and return what is shown as the answer."""
    operation = f"#operations-Prediction-{api}"
    if not browser.find_elements(By.CSS_SELECTOR, f"{operation} .execute"):
        click(browser, ".opblock-summary-control", operation)
        click(browser, ".try-out__btn", operation)
    click(browser, ".execute", operation)
    shown = (By.CSS_SELECTOR, f"{operation} .live-responses-table .response")
    return WebDriverWait(browser, 30).until(lambda browser: browser.find_element(*shown).text)


def requests(browser):
    """Return the URL and the headers of each request that a page made."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    made = [event["params"]["request"] for event in events if is_request(event)]
    return [(request["url"], request["headers"]) for request in made]


def is_request(event):
    """Tell whether an event is a request over the network."""
    if event["method"] != "Network.requestWillBeSent":
        return False
    return event["params"]["request"]["url"].startswith(("http", "ws"))


@pytest.mark.parametrize(
    ("api", "answer"),
    [("predict", '"prediction": 12.2734'), ("predict_batch", '"predictions": [\n    12.2734')],
)
def test_example_predicts_at_once(browser, live, api, answer):
    """Open, "Try it out", "Execute": the tutorial's answer, and no word to anybody else."""
    url = f"{live.base_url}/"
    browser.get(url)
    shown = execute(browser, api)
    assert answer in shown
    assert "x-model-tag: house_price:" in shown
    assert browser.title == "house_price"
    assert not browser.find_elements(By.CSS_SELECTOR, ".authorize")
    assert {made.removeprefix(url) for made, _ in requests(browser)} == {
        "",
        "static_content/swagger-ui.css",
        "static_content/swagger-ui-bundle.js",
        "static_content/favicon-light-32x32.png",
        "docs.json",
        api,
    }
    # Chromium notes here what the page's policy has forbidden, and what has failed.
    assert browser.get_log("browser") == []


def test_browser_asks_for_the_key(browser, guarded):
    """Here a URL answers for its user; with the key all of the page loads, and works."""
    address = f"{guarded.base_url.host}:{guarded.base_url.port}/"
    browser.get(f"http://{address}")
    assert "swagger" not in browser.page_source
    browser.get(f"http://me:{KEY}@{address}")
    assert '"prediction": 12.2734' in execute(browser, "predict")


@pytest.mark.parametrize(
    ("key", "answer"),
    [(KEY, '"prediction": 12.2734'), ("wrong", "Send the header Authorization: Bearer KEY")],
    ids=["valid", "wrong"],
)
def test_authorize_sends_the_key(browser, guarded, key, answer):
    """As Bearer; if it is wrong, the page says so, and the browser does not ask for another."""
    browser.get(f"http://me:{KEY}@{guarded.base_url.host}:{guarded.base_url.port}/")
    click(browser, ".authorize")
    browser.find_element(By.CSS_SELECTOR, ".auth-container input").send_keys(key)
    click(browser, ".auth-btn-wrapper .authorize")
    click(browser, ".auth-btn-wrapper .btn-done")
    assert answer in execute(browser, "predict")
    (headers,) = [headers for url, headers in requests(browser) if url.endswith("/predict")]
    assert headers["Authorization"] == f"Bearer {key}"


FETCH = """
const [url, key, record, done] = arguments;
const headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key};
fetch(url, {method: "POST", headers, body: JSON.stringify(record)}).then(
  async answer => done([answer.status, await answer.json(), [...answer.headers.keys()]]),
  error => done(String(error)));
"""


def fetch(browser, client, key=KEY):
    """Ask for the example's prediction on the page that the browser shows."""
    return browser.execute_async_script(FETCH, f"{client.base_url}/predict", key, EXAMPLE)


def test_page_of_a_chosen_origin_can_call(browser, guarded, origin):
    """And reads the answer with its headers, be it an error."""
    browser.get(origin)
    status, answer, headers = fetch(browser, guarded)
    assert (status, answer) == (200, TUTORIAL_RESPONSE)
    assert {"x-model-tag", "x-request-id"} <= set(headers)
    status, answer, headers = fetch(browser, guarded, key="wrong")
    assert (status, answer.keys()) == (401, {"message"})
    assert "x-request-id" in headers


def test_javascript_of_the_page_about_clients(browser, guarded, origin):
    """On a web page, with the key that this service wants."""
    script = here(block("js"), guarded)
    script = script.replace("headers: {", f'headers: {{"Authorization": "Bearer {KEY}", ')
    browser.get(origin)
    wrapped = f"(async console => {{{script}}})({{log: arguments[0]}}).catch(arguments[0])"
    assert browser.execute_async_script(wrapped) == TUTORIAL_RESPONSE
    assert json.loads(re.search("// (.*)", script)[1]) == TUTORIAL_RESPONSE


def test_page_of_another_origin_cannot(browser, live, guarded, origin, tmp_path):
    """Neither one that was not chosen, nor any if none was."""
    browser.get(origin)
    assert fetch(browser, live) == "TypeError: Failed to fetch"
    with blank_page(tmp_path) as other:
        browser.get(other)
        assert fetch(browser, guarded) == "TypeError: Failed to fetch"
