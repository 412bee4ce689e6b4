"""The page at /try in Chromium, for houses; tests/docs/test_own_model.py opens it for cars."""

import os
import shlex

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from house import EXAMPLE, FEATURES
from tests.conftest import STORE
from tests.helpers.chromium import network_requests
from tests.helpers.commands import run, running_server
from tests.helpers.try_page import TryPage, axe_script
from tests.helpers.tutorial import TUTORIAL_PREDICTION

pytestmark = pytest.mark.slow  # needs Chromium

KEY = "key-of-the-page-tests"


@pytest.fixture
def page(browser, live):
    """The page of the service without keys."""
    page = TryPage(browser, live.base_url)
    page.prediction()
    return page


def predict(client, **changes):
    """Return the prediction for the example with some other values."""
    return client.post("/predict", json=EXAMPLE | changes).json()["prediction"]


def test_page_shows_the_tutorials_prediction(page, live):
    """With its unit, the curves of all features, and those first that move it most."""
    assert page.prediction() == TUTORIAL_PREDICTION
    assert page.find(".prediction").text == "12.27 thousands of 1970 dollars"
    assert page.record() == EXAMPLE
    assert set(page.names()) == set(FEATURES) == set(page.curves())
    assert page.effects() == sorted(page.effects(), reverse=True)
    page.check_curves(live)


def test_page_contacts_nothing_but_the_service(page, live):
    """It reads two descriptions, and asks for all curves in one request, marked as what-if."""
    requests = network_requests(page.browser)
    url = f"{live.base_url}/"
    assert all(requested.startswith(url) for requested, _ in requests)
    api = [requested.removeprefix(url) for requested, headers in requests if "X-What-If" in headers]
    assert api == ["docs.json", "model", "predict_batch"]
    # Chromium logs violations of the Content-Security-Policy and failed requests here.
    assert page.browser.get_log("browser") == []


def test_slider_changes_prediction_and_curves(page, live):
    """The prediction is what /predict answers; the cards stay where they are until sorted."""
    before = page.names()
    page.move_slider("LSTAT", 5)
    assert page.prediction() == predict(live, LSTAT=5)
    assert page.record() == EXAMPLE | {"LSTAT": 5}
    page.check_curves(live)
    assert page.names() == before
    page.find("#sort").click()
    assert page.effects() == sorted(page.effects(), reverse=True)
    assert not page.find("#sort").is_displayed()


def test_redraw_is_fast(page):
    """Print the 95th percentile of 60 changes, and the number of records of each."""
    values = np.linspace(3.6, 8.7, 60)
    milliseconds = [page.move_slider("RM", value) for value in values]
    n_records = 1 + sum(map(len, page.curves().values()))
    p50, p95 = np.percentile(milliseconds, [50, 95])
    print(f"\n{n_records} records a redraw; p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    assert n_records <= 1000
    assert p95 < 1000


def test_page_works_by_keyboard(page, live):
    """An arrow moves a slider by one step, End to the end of the training range."""
    slider = page.find("[type=range]", page.card("RM"))
    slider.send_keys(Keys.ARROW_RIGHT)
    rooms = page.record()["RM"]
    assert 5.3 < rooms < 5.4
    assert page.prediction() == predict(live, RM=rooms)
    slider.send_keys(Keys.END)
    assert page.record()["RM"] == 8.78
    slider.send_keys(Keys.HOME)
    assert page.record()["RM"] == 3.561


def test_click_on_a_curve_sets_the_value(page, live):
    """The value is that of the nearest point; a bar sets the value of its row."""
    picture = page.find("svg", page.card("RM"))
    ActionChains(page.browser).move_to_element_with_offset(picture, 60, 0).click().perform()
    rooms = page.record()["RM"]
    assert 6.2 < rooms < 8.78
    assert page.prediction() == predict(live, RM=rooms)
    picture = page.find("svg", page.card("CHAS"))
    height = picture.size["height"]
    ActionChains(page.browser).move_to_element_with_offset(picture, 0, 39 - height / 2).perform()
    ActionChains(page.browser).click().perform()
    assert page.record()["CHAS"] == 1
    assert page.prediction() == predict(live, RM=rooms, CHAS=1)


def test_legal_value_outside_the_training_range_is_marked(page, live):
    """It is predicted; a value inside the range has no mark."""
    page.type_value("RM", "12")
    assert page.record()["RM"] == 12
    assert page.prediction() == predict(live, RM=12)
    note = page.find(".note", page.card("RM"))
    assert note.text == "Outside the training range, 3.561 to 8.78"
    page.type_value("RM", "6")
    page.record()
    assert not note.is_displayed()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LSTAT", "101", "LSTAT should be less than or equal to 100, got 101"),
        ("RM", Keys.BACKSPACE, "No RM provided"),
    ],
    ids=["over the bound", "empty"],
)
def test_refused_value_shows_the_message_of_the_service(page, live, name, text, message):
    """Beside its field, which is marked; with a legal value all is as before."""
    page.type_value(name, text)
    page.wait(lambda: page.status())
    assert page.status() == "No prediction: see the marked fields."
    assert page.prediction() is None
    card = page.card(name)
    assert page.find(".error", card).text == message
    assert page.find(".control", card).get_attribute("aria-invalid") == "true"
    page.type_value(name, "6")
    page.wait(lambda: not page.status())
    assert page.prediction() == predict(live, **{name: 6})
    assert not page.find(".error", card).is_displayed()


def test_address_holds_the_record(browser, live):
    """A value that is no JSON, or of no feature, is ignored; "Example record" leads back."""
    page = TryPage(browser, live.base_url, "#RM=6.5&LSTAT=5&AGE=old&nothing=1")
    assert page.prediction() == predict(live, RM=6.5, LSTAT=5)
    assert page.record() == EXAMPLE | {"RM": 6.5, "LSTAT": 5}
    page.find("#reset").click()
    assert page.record() == EXAMPLE
    assert page.prediction() == TUTORIAL_PREDICTION


def test_copied_curl_command_gives_the_prediction(page):
    """Where the browser does not allow the clipboard, the command can be selected."""
    page.move_slider("RM", 7)
    page.browser.execute_script("navigator.clipboard.writeText = () => Promise.reject()")
    page.find("#copy").click()
    command = page.wait(lambda: page.find("#curl").get_attribute("value"))
    assert page.find("#curl").is_displayed()
    prediction = float(run(*shlex.split(command)).stdout.partition(": ")[2].strip("}"))
    assert prediction == page.prediction()


# Answer the first prediction of the page with 429, the third after 0.5 s; count those underway.
SLOW_SERVICE = """
const original = fetch;
let predictions = 0;
window.underway = window.most = 0;
window.fetch = async (url, options) => {
  if (!options.body) return original(url, options);
  predictions += 1;
  window.most = Math.max(window.most, ++window.underway);
  try {
    const message = JSON.stringify({message: "Too many predictions at once"});
    const busy = {status: 429, headers: {"Retry-After": "1"}};
    if (predictions === 1) return new Response(message, busy);
    if (predictions === 3) await new Promise(resolve => setTimeout(resolve, 500));
    return await original(url, options);
  } finally {
    window.underway -= 1;
  }
};
"""


def test_page_waits_for_a_busy_service_and_shows_the_newest_answer(browser, live):
    """It says that it waits, as Retry-After says; a slow answer can't overwrite a newer one."""
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SLOW_SERVICE})
    page = TryPage(browser, live.base_url)
    message = "Too many predictions at once. The page asks again in 1 s."
    page.wait(lambda: page.status() == message)
    page.wait(lambda: not page.status())
    assert page.prediction() == TUTORIAL_PREDICTION
    for rooms in ("5", "6", "7", "8"):
        page.type_value("RM", rooms)
    assert page.record()["RM"] == 8
    assert page.prediction() == predict(live, RM=8)
    assert browser.execute_script("return window.most") == 1


@pytest.fixture(scope="module")
def protected(model, tmp_path_factory):
    """A client of a service that requires an API key, and takes arrays of 120 records."""
    home = tmp_path_factory.mktemp("protected")
    (home / "models").symlink_to(os.path.join(STORE, "models"))  # noqa: PTH118
    env = {"BENTOML_HOME": str(home), "API_KEYS": KEY, "MAX_RECORDS": "120"}
    with running_server("bentoml", "serve", log=home / "log", **env) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


def test_page_asks_once_for_the_key_and_keeps_it_for_the_tab(browser, protected):
    """A wrong key is asked for again; a reload needs none, another tab does."""
    page = TryPage(browser, protected.base_url)
    for key in ("wrong", KEY):
        field = page.find("#key")
        page.wait(field.is_displayed)
        field.send_keys(key, Keys.ENTER)
        page.wait(lambda: "not accept" in page.find("#key-message").text or page.is_settled())
    assert page.prediction() == TUTORIAL_PREDICTION
    assert {headers.get("Authorization") for _, headers in network_requests(browser)} == {
        None,  # the files of the page
        "Bearer none",
        "Bearer wrong",
        f"Bearer {KEY}",
    }
    browser.refresh()
    assert page.prediction() == TUTORIAL_PREDICTION
    page.browser.execute_script("navigator.clipboard.writeText = () => Promise.reject()")
    page.find("#copy").click()
    command = page.wait(lambda: page.find("#curl").get_attribute("value"))
    assert "Bearer $API_KEY" in command
    assert KEY not in command
    browser.switch_to.new_window("tab")
    page = TryPage(browser, protected.base_url)
    page.wait(page.find("#key").is_displayed)


def test_curves_have_fewer_points_if_arrays_are_short(browser, protected):
    """All of them still fit in one array of MAX_RECORDS."""
    page = TryPage(browser, protected.base_url)
    page.wait(page.find("#key").is_displayed)
    page.find("#key").send_keys(KEY, Keys.ENTER)
    assert page.prediction() == TUTORIAL_PREDICTION
    lengths = [len(points) for points in page.curves().values()]
    assert len(lengths) == len(FEATURES)
    assert 100 < 1 + sum(lengths) <= 120
    page.check_curves(protected)


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The script of axe-core."""
    return axe_script(tmp_path_factory.mktemp("axe"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_page_is_accessible(page, scheme, width, axe):
    """axe-core finds no violation of WCAG 2.2 AA, in any state; nothing is wider than the page."""
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    colours = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
    page.type_value("RM", "12")
    page.record()
    page.check_accessibility(axe)
    page.type_value("LSTAT", "101")
    page.wait(lambda: page.status())
    page.check_accessibility(axe)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.browser.execute_script(overflow) == 0


def test_swagger_ui_links_to_the_page(browser, live):
    """The link is relative, as all others are."""
    browser.get(f"{live.base_url}/")
    browser.find_element(By.CSS_SELECTOR, 'a[href="try"]').click()
    assert browser.current_url.partition("#")[0] == f"{live.base_url}/try"


def test_page_can_be_used_by_touch_on_a_telephone(page, live):
    """A tap on a curve sets the value; the prediction stays in view."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    picture = page.find("svg", page.card("RM"))
    centre = page.browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center'});"
        "const {x, y, width, height} = arguments[0].getBoundingClientRect();"
        "return {x: x + width / 2, y: y + height / 2}",
        picture,
    )
    for kind, points in (("touchStart", [centre]), ("touchEnd", [])):
        page.browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
    rooms = page.record()["RM"]
    assert 5.9 < rooms < 6.4
    assert page.prediction() == predict(live, RM=rooms)
    assert page.find("#prediction").rect["y"] >= 0
