"""The training report and the model card, written from real models in the model store."""

from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from house import FEATURES, House, LabelledHouse
from tests.helpers.commands import ROOT, run
from train import PROJECT
from training.data import parse_csv, split
from training.evaluation import evaluate
from training.report import format_number
from training.store import save

SVG = "data:image/svg+xml;base64,"


class Page(HTMLParser):
    """A page: its tags with their attributes, its text, its pictures and the rows of its tables."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.rows = [], "", []
        self.feed(path.read_text())
        self.images = [dict(attributes) for tag, attributes in self.tags if tag == "img"]

    def handle_starttag(self, tag, attributes):
        """Note a tag; begin a row or a cell."""
        self.tags.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        """Note a text, in its cell if it has one."""
        self.text += data
        if self.rows and data.strip():
            self.rows[-1][-1] += data.strip()


def report(folder, *options, check=True):
    """Run `python report.py` with what it writes in a folder."""
    written = ("--output", folder / "report", "--card", folder / "card.md")
    return run("python", "-m", "training", "report", *written, *options, check=check)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Where the report on the trained model is."""
    folder = tmp_path_factory.mktemp("report")
    report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The page of that report."""
    return Page(folder / "report" / "index.html")


def drawn(image):
    """Return the elements of a picture, which has to be an SVG in the page itself."""
    assert image["src"].startswith(SVG)
    svg = b64decode(image["src"].removeprefix(SVG), validate=True)
    return list(ElementTree.fromstring(svg).iter())  # noqa: S314 - our own


def test_page_tells_the_model_and_its_metrics(page, model):
    """Its tag, each metric that training recorded, and the hash of the data."""
    assert str(model.tag) in page.text
    assert model.info.metadata["data_sha256"] in page.text
    for name, value in model.info.metadata["metrics"].items():
        assert [name, format_number(value)] in [row[:2] for row in page.rows]


def test_page_tells_each_feature_and_its_training_range(page, model):
    """With its meaning and its unit."""
    for name, schema in House.model_json_schema()["properties"].items():
        bounds = model.info.metadata["training_range"][name]
        seen = " to ".join(format_number(bound, 6) for bound in bounds)
        assert [name, schema["description"], schema["unit"], seen] in page.rows


def test_pictures_are_in_the_page_and_in_words(page):
    """Each has points, bars or lines, and a text for those who cannot see it."""
    assert len(page.images) == 4
    for image in page.images:
        assert sum(element.tag.endswith("}path") for element in drawn(image)) > 10
        assert len(image["alt"]) > 50


def test_importance_is_in_words_too(page):
    """The two features that matter most, and all others, in their order."""
    (alt,) = (image["alt"] for image in page.images if "Bars" in image["alt"])
    order = alt.rpartition(": ")[2].rstrip(".").split(", ")
    assert order[:2] == ["LSTAT", "RM"]
    assert sorted(order) == sorted(FEATURES)


def test_page_needs_nothing_else(page):
    """No script, and no address of anything outside."""
    assert "script" not in {tag for tag, _ in page.tags}
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes
        if name in ("src", "href") and not value.startswith(SVG)
    ]
    assert addresses == []
    assert "url(" not in page.text


def test_model_card_of_the_repository_is_that_of_the_recipe(folder):
    """Whoever changes the data, the recipe or the words runs `make report`."""
    assert (ROOT / "docs/MODEL_CARD.md").read_text() == (folder / "card.md").read_text()


def test_other_data_are_refused(model, tmp_path):
    """Be it one value that is different, for the figures would not be those of the model."""
    other = tmp_path / "other.csv"
    other.write_text(PROJECT.data.read_text().replace("0.00632", "0.00633"))
    failed = report(tmp_path, "--data", other, check=False)
    assert failed.returncode == 1
    assert "The model was trained on other data: give that with --data" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--name", "nowhere"), "run `make train`"),
        (("--data", "nowhere.csv"), "No such file"),
    ],
    ids=["model", "data"],
)
def test_what_is_missing_is_said(model, tmp_path, options, words):
    """And nothing is written."""
    failed = report(tmp_path, *options, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Nothing is written.\n")
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), RandomForestRegressor(10, random_state=0)],
    ids=["linear", "forest"],
)
def test_estimator_without_stages_is_drawn_by_rows(model, tmp_path, estimator):
    """Its learning curve is over the number of rows that it is fitted on."""
    data = split(parse_csv(PROJECT.data.read_text(), LabelledHouse))
    estimator.fit(data.X_train, data.y_train)
    metrics, target = evaluate(estimator, data), model.info.metadata["target"]
    sha256 = model.info.metadata["data_sha256"]
    save("unstaged", estimator, data.X_train, metrics, target, sha256)
    report(tmp_path, "--name", "unstaged")
    curve = Page(tmp_path / "report" / "index.html").images[-1]
    assert "number of rows" in " ".join(curve["alt"].split())
    assert drawn(curve)
    assert type(estimator).__name__ in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(87.4922, 3, "87.5"), (-0.02162, 3, "-0.0216"), (342123.4, 3, "342000"), (711.0, 6, "711")],
)
def test_numbers_have_significant_digits_and_no_exponent(value, digits, text):
    """Whether a target is in dollars or in thousands of them."""
    assert format_number(value, digits) == text
