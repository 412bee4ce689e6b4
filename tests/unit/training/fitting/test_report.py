"""The report command: the training report and the model card of models in the store."""

from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from house import FEATURES, House, LabelledHouse
from tests.helpers.commands import ROOT
from tests.helpers.training_cli import run_training
from train import PROJECT
from training.data import parse_csv, split_train_test
from training.fitting.evaluation import evaluate
from training.fitting.store import save
from training.formatting import format_number

SVG = "data:image/svg+xml;base64,"


class Page(HTMLParser):
    """A parsed page: tags with attributes, text, images, and the rows of its tables."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.rows = [], "", []
        self.feed(path.read_text())
        self.images = [dict(attributes) for tag, attributes in self.tags if tag == "img"]

    def handle_starttag(self, tag, attributes):
        """Record a tag; start a row or a cell."""
        self.tags.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        """Record text; append it to the current cell, if there is one."""
        self.text += data
        if self.rows and data.strip():
            self.rows[-1][-1] += data.strip()


def run_report(folder, *options, check=True):
    """Run `python -m training report`; write the report and the model card to a folder."""
    output = ("--output", folder / "report", "--card", folder / "card.md")
    return run_training("report", *output, *options, check=check)


@pytest.fixture(scope="module")
def report_folder(model, tmp_path_factory):
    """The folder with the report and the model card of the trained model."""
    folder = tmp_path_factory.mktemp("report")
    run_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(report_folder):
    """The page of that report."""
    return Page(report_folder / "report" / "index.html")


def svg_elements(image):
    """Return the elements of an image, which must be an SVG embedded in the page."""
    assert image["src"].startswith(SVG)
    svg = b64decode(image["src"].removeprefix(SVG), validate=True)
    return list(ElementTree.fromstring(svg).iter())  # noqa: S314 - our own


def test_page_has_the_model_and_its_metrics(page, model):
    """It has the tag, each metric in the metadata, and the SHA-256 of the data."""
    assert str(model.tag) in page.text
    assert model.info.metadata["data_sha256"] in page.text
    for name, value in model.info.metadata["metrics"].items():
        assert [name, format_number(value)] in [row[:2] for row in page.rows]


def test_page_has_each_feature_and_its_training_range(page, model):
    """Each row has the description and the unit, too."""
    for name, schema in House.model_json_schema()["properties"].items():
        bounds = model.info.metadata["training_range"][name]
        training_range = " to ".join(format_number(bound, 6) for bound in bounds)
        assert [name, schema["description"], schema["unit"], training_range] in page.rows


def test_images_are_embedded_and_have_alt_text(page):
    """Each is an SVG with points, bars or lines."""
    assert len(page.images) == 4
    for image in page.images:
        assert sum(element.tag.endswith("}path") for element in svg_elements(image)) > 10
        assert len(image["alt"]) > 50


def test_alt_text_has_the_features_by_importance(page):
    """LSTAT and RM matter most; all other features follow."""
    (alt,) = (image["alt"] for image in page.images if "Bars" in image["alt"])
    order = alt.rpartition(": ")[2].rstrip(".").split(", ")
    assert order[:2] == ["LSTAT", "RM"]
    assert sorted(order) == sorted(FEATURES)


def test_page_is_self_contained(page):
    """It has no script, and no link to anything outside."""
    assert "script" not in {tag for tag, _ in page.tags}
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes
        if name in ("src", "href") and not value.startswith(SVG)
    ]
    assert addresses == []
    assert "url(" not in page.text


def test_model_card_of_the_repository_is_up_to_date(report_folder):
    """After a change of the data, the estimator or the text, run `make report`."""
    assert (ROOT / "docs/MODEL_CARD.md").read_text() == (report_folder / "card.md").read_text()


def test_data_that_the_model_was_not_trained_on_are_rejected(model, tmp_path):
    """Even if a single value differs: the metrics of the report would not be the model's."""
    other = tmp_path / "other.csv"
    other.write_text(PROJECT.data.read_text().replace("0.00632", "0.00633"))
    failed = run_report(tmp_path, "--data", other, check=False)
    assert failed.returncode == 1
    assert "The model was trained on other data: give that file with --data" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "nowhere"), "run `make train`"),
        (("--data", "nowhere.csv"), "No such file"),
    ],
    ids=["missing model", "missing data"],
)
def test_missing_model_or_data_are_reported(model, tmp_path, options, message):
    """Nothing is written."""
    failed = run_report(tmp_path, *options, check=False)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), RandomForestRegressor(10, random_state=0)],
    ids=["linear", "forest"],
)
def test_learning_curve_of_unstaged_estimator_is_by_number_of_rows(model, tmp_path, estimator):
    """For an estimator with `staged_predict`, it is by boosting stage."""
    data = split_train_test(parse_csv(PROJECT.data.read_text(), LabelledHouse))
    estimator.fit(data.X_train, data.y_train)
    metrics, target = evaluate(estimator, data), model.info.metadata["target"]
    sha256 = model.info.metadata["data_sha256"]
    save("unstaged", estimator, data, House, metrics, target, sha256)
    run_report(tmp_path, "--name", "unstaged")
    curve = Page(tmp_path / "report" / "index.html").images[-1]
    assert "number of rows" in " ".join(curve["alt"].split())
    assert svg_elements(curve)
    assert type(estimator).__name__ in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(87.4922, 3, "87.5"), (-0.02162, 3, "-0.0216"), (342123.4, 3, "342000"), (711.0, 6, "711")],
)
def test_numbers_have_significant_digits_and_no_exponent(value, digits, text):
    """Targets may be in dollars or in thousands of dollars."""
    assert format_number(value, digits) == text
