"""The page at /try in Chromium, for any record type."""

import json
import os
import shutil
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.helpers.commands import run

# Of each card: the name of its feature, the points of its curve, and the path that is drawn.
CHARTS = """
return [...document.querySelectorAll(".card")].map(card => [
  card.querySelector("h3").textContent,
  card.querySelector("svg")?.firstChild ? card.querySelector("svg").points : null,
  card.querySelector(".curve")?.getAttribute("d") ?? null,
])"""
# The milliseconds from moving a slider until the redrawn curves are on the screen.
REDRAW = """
const [card, value, done] = arguments;
const slider = card.querySelector("[type=range]");
const cards = document.querySelector("#cards");
const observer = new MutationObserver(() => {
  if (cards.getAttribute("aria-busy") === "false") {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }
});
observer.observe(cards, {attributes: true});
slider.value = value;
const start = performance.now();
slider.dispatchEvent(new Event("input"));
"""

AXE = "axe-core@4.14.1"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN_AXE = """
const [tags, done] = arguments;
axe.run({runOnly: tags}).then(({violations, passes}) => done([
  violations.map(({id, impact, nodes}) => [id, impact, nodes.map(({html}) => html)]),
  passes.length,
]), error => done(String(error)));
"""


def axe_script(folder):
    """Return the script of axe-core, from npm; outside CI, skip the test if npm is missing."""
    if not shutil.which("npm") and "CI" not in os.environ:
        pytest.skip("npm is not installed")
    run("npm", "install", "--silent", "--prefix", str(folder), AXE)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


class TryPage:
    """What a person sees of the page, and does with it."""

    def __init__(self, browser, url, fragment=""):
        self.browser = browser
        browser.get(f"{str(url).rstrip('/')}/try{fragment}")

    def wait(self, condition):
        """Return the first true value of a condition."""
        return WebDriverWait(self.browser, 30).until(lambda _: condition())

    def find(self, selector, within=None):
        """Return the element of a selector."""
        return (within or self.browser).find_element(By.CSS_SELECTOR, selector)

    def is_settled(self):
        """Tell whether prediction and curves are those of the record."""
        return self.find("#cards").get_attribute("aria-busy") == "false"

    def prediction(self):
        """Return the prediction with all digits, once it is that of the record; None without."""
        self.wait(self.is_settled)
        value = self.find("#prediction").get_attribute("data-value")
        return float(value) if value else None

    def status(self):
        """Return the line below the prediction."""
        return self.find("#status").text

    def card(self, name):
        """Return the card of a feature."""
        cards = self.browser.find_elements(By.CSS_SELECTOR, ".card")
        (card,) = [card for card in cards if self.find("h3", card).text == name]
        return card

    def names(self):
        """Return the features in the order of their cards."""
        return [name for name, *_ in self.browser.execute_script(CHARTS)]

    def curves(self):
        """Return the pairs of value and prediction of each feature that has a chart."""
        return {
            name: [(point["value"], point["prediction"]) for point in points]
            for name, points, _ in self.browser.execute_script(CHARTS)
            if points
        }

    def type_value(self, name, text):
        """Replace the content of a field."""
        self.find(".control", self.card(name)).send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def move_slider(self, name, value):
        """Move a slider to a value; return the milliseconds until the curves are redrawn."""
        return self.browser.execute_async_script(REDRAW, self.card(name), value)

    def record(self):
        """Return the record in the address, in which each change arrives."""
        self.wait(self.is_settled)
        previous = None
        while previous != self.browser.current_url:  # it is written 0.4 s after the last change
            previous = self.browser.current_url
            self.browser.execute_async_script("setTimeout(arguments[0], 600)")
        pairs = parse_qsl(urlsplit(previous).fragment, keep_blank_values=True)
        return {name: json.loads(value) for name, value in pairs}

    def check_curves(self, client):
        """Check that each point is a prediction of the service, and drawn at its place."""
        record, curves = self.record(), self.curves()
        for name, points in curves.items():
            records = [record | {name: value} for value, _ in points]
            expected = client.post("/predict_batch", json=records).json()["predictions"]
            assert [prediction for _, prediction in points] == pytest.approx(expected, abs=1e-9)
        drawn = [
            pair
            for name, _, path in self.browser.execute_script(CHARTS)
            if path
            for pair in drawn_points(curves[name], (record[name], self.prediction()), path)
        ]
        predictions, y = np.transpose(drawn)
        slope, intercept = np.polyfit(predictions, y, 1)
        assert slope < 0
        assert np.abs(y - slope * predictions - intercept).max() < 0.1  # pixels

    def check_accessibility(self, script):
        """Check that axe-core, given as its script, finds no violation of WCAG 2.2 AA."""
        self.browser.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
        violations, n_passes = self.browser.execute_async_script(RUN_AXE, WCAG)
        assert violations == []
        assert n_passes > 15

    def effects(self):
        """Return how far the prediction goes along the curve of each card, in their order."""
        curves = self.curves()
        return [
            float(np.ptp([prediction for _, prediction in curves[name]]))
            for name in self.names()
            if name in curves
        ]


def drawn_points(points, record_point, path):
    """Return the prediction and the vertical position of each point of a path (M1.5 2L3 4)."""
    y = [float(vertex.split(" ")[1]) for vertex in path[1:].split("L")]
    points = [point for point in points if point[0] is not None]
    if len(y) > len(points):  # the record is on the curve, unless its value is outside or missing
        points = sorted([*points, record_point])
    return zip([prediction for _, prediction in points], y, strict=True)
