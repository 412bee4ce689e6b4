"""The page at /try in Chromium, for houses; tests/docs/test_own_model.py opens it for cars."""

import shlex
from itertools import pairwise

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from house import EXAMPLE, FEATURES
from tests.browser.conftest import KEY
from tests.helpers.chromium import network_requests
from tests.helpers.commands import run
from tests.helpers.try_page import TryPage, axe_script
from tests.helpers.tutorial import TUTORIAL_PREDICTION

pytestmark = pytest.mark.slow  # needs Chromium


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
    chart = page.find("svg", page.card("RM"))
    ActionChains(page.browser).move_to_element_with_offset(chart, 60, 0).click().perform()
    rooms = page.record()["RM"]
    assert 6.2 < rooms < 8.78
    assert page.prediction() == predict(live, RM=rooms)
    chart = page.find("svg", page.card("CHAS"))
    height = chart.size["height"]
    ActionChains(page.browser).move_to_element_with_offset(chart, 0, 39 - height / 2).perform()
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
    """A value that is no JSON, or of no feature, is ignored; "Reset to the example" leads back."""
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
    assert "X-What-If: true" in command
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


# Replace `fetch` by one that calls `answer` of a test, which may return a response of its own.
FAKE_SERVICE = """
const original = fetch;
const json = (status, content, headers) =>
  new Response(JSON.stringify(content), {status, headers});
window.requests = [];  // of predictions: the number of records of an array, or "single"
window.fetch = async (url, options) => {
  const records = options.body && JSON.parse(options.body);
  if (records) window.requests.push(records.length ?? "single");
  return (await answer(records, url, options)) ?? original(url, options);
};
async function answer(records, url, options) {
  %s
}
"""


@pytest.fixture
def open_page(browser, live):
    """A function that opens the page with the body of `answer`, and perhaps a record."""

    def open_page(answer, fragment=""):
        source = FAKE_SERVICE % answer
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
        return TryPage(browser, live.base_url, fragment)

    return open_page


@pytest.mark.parametrize(
    "failure",
    [
        'return json(504, {message: "No prediction within 5 s; try again"});',
        'return json(408, {message: "The request was not complete within 5 s; try again"});',
        'return json(413, {message: "The body is over 9 bytes; send less at a time"});',
        'throw new DOMException("", "TimeoutError");',
    ],
    ids=["504", "408", "413", "timeout of the page"],
)
def test_page_sends_fewer_records_to_a_slow_model(open_page, failure):
    """It halves their number until it gets predictions, and remembers it."""
    page = open_page(f"if (records?.length > 120) {{ {failure} }}")
    assert page.prediction() == TUTORIAL_PREDICTION
    lengths = page.browser.execute_script("return window.requests")
    assert min(lengths[:-1]) > 120 >= lengths[-1]
    assert all(after <= before / 2 for before, after in pairwise(lengths))
    page.move_slider("LSTAT", 5)
    assert page.browser.execute_script("return window.requests") == [*lengths, lengths[-1]]
    assert set(page.curves()) == set(FEATURES)


def test_wait_grows_while_the_service_does_not_answer(open_page):
    """An error of a proxy, which is no JSON, is shown by its status."""
    page = open_page(
        "if (records && window.requests.length < 3) return new Response('<p>', {status: 502});"
    )
    for seconds in (2, 4):
        message = f"The service answered 502. The page asks again in {seconds} s."
        page.wait(lambda message=message: page.status() == message)
    assert page.prediction() == TUTORIAL_PREDICTION
    assert page.status() == ""


def test_answer_that_was_cut_off_is_asked_for_again(open_page):
    """A 200 without valid JSON is an error like no answer."""
    page = open_page(
        """if (records && window.requests.length < 2) return new Response('{"predic');"""
    )
    message = "The service's answer was cut off. The page asks again in 2 s."
    page.wait(lambda: page.status() == message)
    assert page.prediction() == TUTORIAL_PREDICTION


def test_unexpected_error_is_shown(open_page):
    """The page does not wait for an answer that will never come."""
    page = open_page("if (records) return json(200, {});")
    page.wait(page.status)
    assert page.status().startswith("This page failed: ")
    assert page.prediction() is None


def test_refused_curves_leave_the_prediction(open_page):
    """The single request is repeated while the service is busy."""
    page = open_page(
        """
        if (records?.length) return json(400, {message: {3: "Both together are impossible"}});
        if (records && window.requests.indexOf("single") === window.requests.length - 1)
          return json(429, {message: "Too many predictions at once"}, {"Retry-After": "1"});
        """
    )
    message = "No curves for this record: Both together are impossible"
    page.wait(lambda: page.status() == message)
    assert page.prediction() == TUTORIAL_PREDICTION
    assert page.browser.execute_script("return window.requests.slice(2)") == ["single", "single"]


def test_closed_key_dialog_leaves_its_sentence(open_page):
    """The page sends no other request without a key."""
    page = open_page('if (records) return json(401, {message: "Send the header"});')
    cancel = page.find("#key-dialog [value=cancel]")
    page.wait(cancel.is_displayed)
    cancel.click()
    assert page.prediction() is None
    assert page.status() == "The service needs a key: reload this page to give one"
    assert len(page.browser.execute_script("return window.requests")) == 1


def test_points_refused_for_several_features_come_back(open_page, live):
    """Those refused for their own value do not; a curve without points is no chart."""
    page = open_page(
        """
        if (!records?.length) return;
        const message = {};
        records.forEach(({RM, TAX, AGE}, n) => {
          if (RM > 8 && records[0].LSTAT > 20) message[n] = "RM and LSTAT do not fit";
          if (TAX > 700) message[`${n}.TAX`] = "TAX should be at most 700";
          if (n && AGE !== records[0].AGE && records[0].LSTAT > 20) message[n] = "AGE has to stay";
        });
        if (Object.keys(message).length) return json(400, {message});
        """
    )
    page.check_curves(live)
    curves = page.curves()
    assert max(curves["RM"])[0] <= 8
    assert max(curves["TAX"])[0] <= 700
    assert "AGE" not in curves
    assert page.find(".ends", page.card("AGE")).text.split("\n")[1] == "no chart"
    page.move_slider("LSTAT", 5)
    page.check_curves(live)
    curves = page.curves()
    assert max(curves["RM"])[0] > 8
    assert max(curves["TAX"])[0] <= 700
    assert len(curves["AGE"]) > 10
    page.move_slider("LSTAT", 24)
    assert "AGE" not in page.curves()


def test_page_says_how_many_features_have_no_chart(open_page):
    """One of those with the longest curve is left out."""
    page = open_page(
        """
        if (!url.endsWith("docs.json")) return;
        const content = await (await original(url, options)).json();
        const {requestBody} = content.paths["/predict_batch"].post;
        requestBody.content["application/json"].schema.maxItems = 60;
        return json(200, content);
        """
    )
    assert page.prediction() == TUTORIAL_PREDICTION
    assert len(page.curves()) == len(FEATURES) - 1
    assert "CHAS" in page.curves()
    message = "1 feature has no chart: this service accepts too few records per request."
    assert page.find("#omitted").text == message


def test_features_may_have_the_names_of_properties_of_objects(open_page, live):
    """Even `__proto__` keeps its value, and `constructor` has no message."""
    page = open_page(
        """
        const names = [["RM", "__proto__"], ["LSTAT", "constructor"]];
        let body = options.body;
        for (const [name, other] of names) body = body?.replaceAll(`"${other}"`, `"${name}"`);
        const response = await original(url, {...options, body});
        let text = await response.text();
        for (const [name, other] of names) text = text.replaceAll(`"${name}"`, `"${other}"`);
        return new Response(text, response);
        """,
        "#__proto__=6.5",
    )
    assert page.prediction() == predict(live, RM=6.5)
    assert page.record()["__proto__"] == 6.5
    assert not page.find(".error", page.card("constructor")).is_displayed()
    page.type_value("__proto__", "7")
    assert page.record()["__proto__"] == 7
    assert page.prediction() == predict(live, RM=7)


def test_null_for_a_feature_that_may_not_be_missing_can_be_replaced(browser, live):
    """Its field stays enabled, and has the message of the service."""
    page = TryPage(browser, live.base_url, "#RM=null")
    page.wait(page.status)
    assert page.find(".error", page.card("RM")).text == "RM should be a valid number, got null"
    page.type_value("RM", "6")
    page.wait(lambda: not page.status())
    assert page.prediction() == predict(live, RM=6)


# What the page makes of the only feature of a model card.
DESCRIBE = """
const [card, done] = arguments;
import("/try/features.js").then(({curveValues, describeFeatures, exampleOf}) => {
  const [feature] = describeFeatures(card);
  const values = curveValues(feature, 41);
  done({
    values,
    stops: feature.stops,
    example: exampleOf(feature),
    labels: values.map(feature.format),
    inTraining: values.map(feature.wasInTraining),
  });
});
"""


def describe(page, schema, training_range, **card):
    """Return the values, slider stops, example and labels of a feature."""
    card |= {"features": {"x": schema}, "training_range": {"x": training_range}}
    return page.browser.execute_async_script(DESCRIBE, card)


@pytest.mark.parametrize(
    "ends", [[0.3, 0.30000000000000004], [100, 100.00000000000001], [5]], ids=str
)
def test_nearly_constant_feature_has_only_its_ends(page, ends):
    """Numbers between them could hardly be told apart."""
    feature = describe(page, {"type": "number"}, [ends[0], ends[-1]])
    assert feature["stops"] == feature["values"] == ends


def test_curve_in_a_narrow_range_of_large_numbers(page):
    """Its values are round for the range; their labels differ."""
    feature = describe(page, {"type": "number"}, [1_700_000_000, 1_700_000_400])
    assert feature["values"] == list(range(1_700_000_000, 1_700_000_401, 10))
    assert feature["labels"][1] == "1,700,000,010"
    assert len(set(feature["labels"])) == 41


def test_integer_without_example_begins_with_an_integer(page):
    """The median is interpolated."""
    deciles = [0, 1, 2, 3, 4, 4.5, 6, 7, 8, 9, 10]
    feature = describe(page, {"type": "integer"}, [0, 10], training_deciles={"x": deciles})
    assert feature["example"] == 5
    assert feature["values"] == feature["stops"] == list(range(11))


def test_numeric_choice_has_all_digits_and_is_known_by_its_range(page):
    """The metadata have the share of each category, but of no number."""
    feature = describe(page, {"enum": [0.12345, 0.12346, 7]}, [0.12345, 0.12346])
    assert feature["labels"] == ["0.12345", "0.12346", "7"]
    assert feature["inTraining"] == [True, True, False]


def test_prediction_is_announced_once_it_is_that_of_the_record(open_page):
    """Not while an answer is on its way, and not without a prediction."""
    page = open_page(
        "if (window.requests.length > 1) await new Promise(resolve => setTimeout(resolve, 1000));"
    )
    announcement = page.find("#announcement")
    page.wait(lambda: announcement.get_property("textContent"))
    page.browser.execute_script(
        """
        window.announced = [];
        new MutationObserver(() => window.announced.push(arguments[0].textContent))
          .observe(arguments[0], {childList: true});
        """,
        announcement,
    )
    page.type_value("LSTAT", "5")
    page.record()
    text = page.find(".prediction").text
    assert page.browser.execute_script("return window.announced") == [text]
    page.type_value("LSTAT", "101")
    page.record()
    assert page.browser.execute_script("return window.announced") == [text, ""]


def test_sorting_keeps_or_moves_the_focus(page):
    """A card in use is not moved; after a click the focus is on the heading."""
    last = page.names()[-1]
    control = page.find(".control", page.card(last))
    control.click()
    before = page.names()
    page.browser.execute_script("location.hash = 'LSTAT=5&RM=8'")
    assert page.record() == EXAMPLE | {"LSTAT": 5, "RM": 8}
    assert page.names() == before
    assert page.browser.switch_to.active_element == control
    page.find("#sort").click()
    assert page.effects() == sorted(page.effects(), reverse=True)
    assert page.browser.switch_to.active_element.get_attribute("id") == "curves-title"


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
        None,  # the files of the page, and the first request
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


def test_unusable_key_is_not_sent(browser, protected):
    """A header could not hold it; spaces around a key are ignored."""
    page = TryPage(browser, protected.base_url)
    field = page.find("#key")
    page.wait(field.is_displayed)
    for key in ("k\u00e9y \u2713", "   "):
        field.clear()
        field.send_keys(key, Keys.ENTER)
        assert field.is_displayed()
        assert not browser.execute_script("return arguments[0].checkValidity()", field)
    field.clear()
    field.send_keys(f" {KEY} ", Keys.ENTER)
    assert page.prediction() == TUTORIAL_PREDICTION


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
    chart = page.find("svg", page.card("RM"))
    centre = page.browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center'});"
        "const {x, y, width, height} = arguments[0].getBoundingClientRect();"
        "return {x: x + width / 2, y: y + height / 2}",
        chart,
    )
    for kind, points in (("touchStart", [centre]), ("touchEnd", [])):
        page.browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )
    rooms = page.record()["RM"]
    assert 5.9 < rooms < 6.4
    assert page.prediction() == predict(live, RM=rooms)
    assert page.find("#prediction").rect["y"] >= 0
