"""Swagger UI, with and without API keys, and requests of pages from other origins (CORS)."""

import json
import re

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.wait import WebDriverWait

from house import EXAMPLE
from tests.browser.conftest import KEY, blank_page
from tests.docs.test_clients import code_block, use_server
from tests.helpers.chromium import network_requests
from tests.helpers.tutorial import TUTORIAL_RESPONSE

pytestmark = pytest.mark.slow  # needs Chromium


def click(browser, selector, within=None):
    """Click an element once it can be clicked."""
    target = (By.CSS_SELECTOR, f"{within or ''} {selector}")
    WebDriverWait(browser, 30).until(element_to_be_clickable(target)).click()


def execute_example(browser, api):
    """Execute the example of an API in Swagger UI; return the text of the response."""
    operation = f"#operations-Prediction-{api}"
    if not browser.find_elements(By.CSS_SELECTOR, f"{operation} .execute"):
        click(browser, ".opblock-summary-control", operation)
        click(browser, ".try-out__btn", operation)
    click(browser, ".execute", operation)
    response = (By.CSS_SELECTOR, f"{operation} .live-responses-table .response")
    return WebDriverWait(browser, 30).until(lambda browser: browser.find_element(*response).text)


@pytest.mark.parametrize(
    ("api", "prediction"),
    [("predict", '"prediction": 12.2734'), ("predict_batch", '"predictions": [\n    12.2734')],
    ids=["predict", "predict_batch"],
)
def test_swagger_ui_predicts_the_example(browser, live, api, prediction):
    """The example needs no edit, and the page sends no request to another server."""
    url = f"{live.base_url}/"
    browser.get(url)
    response = execute_example(browser, api)
    assert prediction in response
    assert "x-model-tag: house_price:" in response
    assert browser.title == "house_price"
    assert not browser.find_elements(By.CSS_SELECTOR, ".authorize")
    assert {requested.removeprefix(url) for requested, _ in network_requests(browser)} == {
        "",
        "static_content/swagger-ui.css",
        "static_content/swagger-ui-bundle.js",
        "static_content/favicon-light-32x32.png",
        "docs.json",
        api,
    }
    # Chromium logs violations of the Content-Security-Policy and failed requests here.
    assert browser.get_log("browser") == []


def test_swagger_ui_accepts_the_key_as_basic_password(browser, protected):
    """The URL contains the password, because the test cannot fill in Chromium's dialog."""
    address = f"{protected.base_url.host}:{protected.base_url.port}/"
    browser.get(f"http://{address}")
    assert "swagger" not in browser.page_source
    browser.get(f"http://me:{KEY}@{address}")
    assert '"prediction": 12.2734' in execute_example(browser, "predict")


@pytest.mark.parametrize(
    ("key", "expected"),
    [(KEY, '"prediction": 12.2734'), ("wrong", "Send the header Authorization: Bearer KEY")],
    ids=["valid", "wrong"],
)
def test_authorize_button_sets_the_bearer_key(browser, protected, key, expected):
    """Swagger UI shows the error for a wrong key; Chromium opens no password dialog."""
    browser.get(f"http://me:{KEY}@{protected.base_url.host}:{protected.base_url.port}/")
    click(browser, ".authorize")
    browser.find_element(By.CSS_SELECTOR, ".auth-container input").send_keys(key)
    click(browser, ".auth-btn-wrapper .authorize")
    click(browser, ".auth-btn-wrapper .btn-done")
    assert expected in execute_example(browser, "predict")
    (headers,) = [headers for url, headers in network_requests(browser) if url.endswith("/predict")]
    assert headers["Authorization"] == f"Bearer {key}"


FETCH = """
const [url, key, record, done] = arguments;
const headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key};
fetch(url, {method: "POST", headers, body: JSON.stringify(record)}).then(
  async response => done([response.status, await response.json(), [...response.headers.keys()]]),
  error => done(String(error)));
"""


def fetch_prediction(browser, client, key=KEY):
    """Request the example's prediction from a script of the page that the browser shows."""
    return browser.execute_async_script(FETCH, f"{client.base_url}/predict", key, EXAMPLE)


def test_page_of_allowed_origin_can_call(browser, protected, origin):
    """Its script can read the response and its headers, also those of an error."""
    browser.get(origin)
    status, body, headers = fetch_prediction(browser, protected)
    assert (status, body) == (200, TUTORIAL_RESPONSE)
    assert {"x-model-tag", "x-request-id"} <= set(headers)
    status, body, headers = fetch_prediction(browser, protected, key="wrong")
    assert (status, body.keys()) == (401, {"message"})
    assert "x-request-id" in headers


def test_javascript_example_works_in_a_page(browser, protected, origin):
    """The example of docs/clients.md runs with the API key of this service added."""
    script = use_server(code_block("js"), protected)
    script = script.replace("headers: {", f'headers: {{"Authorization": "Bearer {KEY}", ')
    browser.get(origin)
    wrapped = f"(async console => {{{script}}})({{log: arguments[0]}}).catch(arguments[0])"
    assert browser.execute_async_script(wrapped) == TUTORIAL_RESPONSE
    assert json.loads(re.search("// (.*)", script)[1]) == TUTORIAL_RESPONSE


def test_page_of_other_origin_cannot_call(browser, live, protected, origin, tmp_path):
    """The browser blocks an origin that CORS_ORIGINS does not name, and all if it is empty."""
    browser.get(origin)
    assert fetch_prediction(browser, live) == "TypeError: Failed to fetch"
    with blank_page(tmp_path) as other:
        browser.get(other)
        assert fetch_prediction(browser, protected) == "TypeError: Failed to fetch"
