"""docs/your-own-model.md: its commands write a bundle for car prices, which works."""

import csv
import json
import re
import runpy
import shutil
from pathlib import Path

import bentoml
import numpy as np
import pandas as pd
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from selenium.webdriver.support.select import Select

from tests.helpers import service_checks
from tests.helpers.car import EXAMPLE as CAR
from tests.helpers.clones import clone_repository, share_venv
from tests.helpers.commands import ROOT, run, running_server
from tests.helpers.console_blocks import check_output, console_commands
from tests.helpers.containers import running_container
from tests.helpers.package_index import PRIVATE_INDEX
from tests.helpers.try_page import TryPage, axe_script

pytestmark = pytest.mark.slow  # trains, serves and builds another model

PAGE = (ROOT / "docs/your-own-model.md").read_text()
EXAMPLE_FILES = ROOT / "examples/cars"


@pytest.fixture(scope="module")
def car_bundle(tmp_path_factory):
    """A bundle that the commands of the page have written, edited and trained."""
    path = tmp_path_factory.mktemp("cars") / "clone"
    clone_repository(path)
    for command, expected in console_commands(PAGE):
        if "serve" in command:
            break
        check_output(command, expected, "3000", cwd=path)
    bundle = path.parent / "car_price"
    share_venv(bundle)
    run("make", "train", cwd=bundle)
    return bundle


@pytest.fixture(scope="module")
def model(car_bundle):
    """The stored model for cars; it replaces the fixture of this name for houses."""
    return bentoml.models.get("car_price:latest")


@pytest.fixture(scope="module")
def car_service(car_bundle, model, tmp_path_factory):
    """A client of `make serve` in the bundle."""
    log = tmp_path_factory.mktemp("cars") / "log"
    with running_server("make", "serve", log=log, cwd=car_bundle) as client:
        yield client


@pytest.fixture(scope="module")
def car_records():
    """300 records that differ in each kind of feature, some of them with missing values."""
    brands = ("Aster", "Borealis", "Cirrus", "Other: not listed")
    return [
        CAR
        | {
            "brand": brands[n % 4],
            "body": (None, "van, 7 or more seats", "saloon")[n % 3],
            "trim": f"Comfort {n % 40 / 10}",
            "mileage": 500.0 * n,
            "power": 50 + n % 150,
            "owners": n % 5 or None,
            "accident_free": (True, False, None)[n % 7 % 3],
        }
        for n in range(300)
    ]


def test_commands_give_the_shown_output(car_service, car_bundle):
    """These are the commands after `make serve`; the fixture `car_bundle` runs those before it."""
    *_, after_serve = PAGE.partition("serve\n```\n")
    commands = list(console_commands(after_serve))
    assert len(commands) == 2
    for command, expected in commands:
        check_output(command, expected, car_service.base_url.port, cwd=car_bundle)


def test_snippet_has_lines_of_the_edits():
    """The snippet cannot differ from the edits; the page has at most 80 lines."""
    (snippet,) = re.findall(r"^```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    edits = (EXAMPLE_FILES / "edits.diff").read_text()
    assert set(snippet.splitlines()) <= set(edits.splitlines())
    assert len(PAGE.splitlines()) <= 80


def test_tests_and_lint_of_the_new_bundle_pass(car_bundle):
    """As `.ci/run` of the new bundle runs them."""
    tested = run("bash", ".ci/run", cwd=car_bundle, timeout=600).stdout
    assert re.search(r"\d\d passed", tested)


def test_report_and_drift_commands_work_for_cars(car_bundle, model, tmp_path):
    """Report and model card describe cars; the drift report fails for lack of a prediction log."""
    run(
        "python",
        "-m",
        "training",
        "report",
        "--output",
        tmp_path,
        "--card",
        tmp_path / "card.md",
        cwd=car_bundle,
    )
    assert "<code>brand</code>" in (tmp_path / "index.html").read_text()
    card = (tmp_path / "card.md").read_text()
    assert "are made up" in card
    assert not re.search("house|boston|census", card, re.IGNORECASE)
    failed = run("python", "-m", "training", "drift", tmp_path, cwd=car_bundle, check=False)
    assert "predictions-*.jsonl" in failed.stderr


def test_generator_reproduces_the_data(tmp_path):
    """The script documents where the made-up data come from."""
    script = shutil.copy(EXAMPLE_FILES / "generate.py", tmp_path)
    runpy.run_path(script, run_name="__main__")
    assert (tmp_path / "used_cars.csv").read_bytes() == (
        EXAMPLE_FILES / "used_cars.csv"
    ).read_bytes()


def test_model_has_high_r2(model):
    """The measured test_r2 is 0.97; predicting the mean would give 0."""
    assert model.info.metadata["metrics"]["test_r2"] > 0.9


def predict(model, records):
    """Return scikit-learn's predictions; a missing value is NaN, or None for strings."""
    frame = pd.DataFrame(records).astype(object)
    strings = frame.columns.isin(["brand", "fuel", "body", "trim"])
    X = np.where(frame.isna(), np.where(strings, None, np.nan), frame)
    return bentoml.sklearn.load_model(model).predict(X).tolist()


def test_prediction_equals_that_of_the_estimator(car_service, model):
    """The response names the model tag in a header."""
    response = car_service.post("/predict", json=CAR)
    assert response.json() == {"prediction": predict(model, [CAR])[0]}
    assert response.headers["x-model-tag"] == str(model.tag)


def test_concurrent_requests_are_batched(car_service):
    """Batching works for any record type."""
    service_checks.check_concurrent_requests_are_batched(car_service, CAR)


def test_concurrent_requests_get_their_own_predictions(car_service, model, car_records):
    """Valid and invalid records and arrays are sent at the same moment."""
    expected = predict(model, car_records)
    service_checks.check_concurrent_requests_do_not_mix(
        car_service, car_records, expected, "mileage"
    )


def test_arrays_split_across_batches_keep_their_order(car_service, car_records):
    """A batch holds 1000 records, so that a second array of 600 is split between two batches."""
    service_checks.check_order_is_kept(car_service, car_records * 2)


def test_bentomls_python_client_calls_both_apis(car_service):
    """The client sends a record to `predict`, and a list of records to `predict_batch`."""
    prediction = car_service.post("/predict", json=CAR).json()["prediction"]
    service_checks.check_bentomls_client(car_service, CAR, prediction)


def test_categories_with_commas_and_colons_are_accepted(car_service):
    """Punctuation in strings does not count towards the limit of records in an array."""
    car = CAR | {"brand": "Other: not listed", "body": "van, 7 or more seats"}
    response = car_service.post("/predict_batch", json=[car] * 1000)
    assert len(response.json()["predictions"]) == 1000


BRANDS = "'Aster', 'Borealis', 'Cirrus' or 'Other: not listed'"
INVALID_VALUES = [
    ("brand", "borealis", f'brand should be {BRANDS}, got "borealis"'),
    ("brand", " Borealis", f'brand should be {BRANDS}, got " Borealis"'),
    ("brand", "", f'brand should be {BRANDS}, got ""'),
    ("brand", None, f"brand should be {BRANDS}, got null"),
    ("brand", ["Aster"], f'brand should be {BRANDS}, got ["Aster"]'),
    (
        "fuel",
        "PETROL",
        "fuel should be 'diesel', 'electric', 'hybrid', 'hydrogen' or 'petrol', got \"PETROL\"",
    ),
    ("accident_free", 1, "accident_free should be a valid boolean or null, got 1"),
    ("accident_free", "true", 'accident_free should be a valid boolean or null, got "true"'),
    ("power", 110.5, "power should be a valid integer, got 110.5"),
    ("power", None, "power should be a valid integer, got null"),
    ("owners", 2.5, "owners should be a valid integer or null, got 2.5"),
    ("age", None, "age should be a valid number, got null"),
    ("trim", None, "trim should be a valid string, got null"),
    ("trim", 16, "trim should be a valid string, got 16"),
    ("trim", "x" * 41, f'trim should have at most 40 characters, got "{"x" * 36}...'),
    ("power", True, "power should be a valid integer, got true"),
    ("power", "110", 'power should be a valid integer, got "110"'),
    ("power", 10**400, f"power should be less than or equal to 2000, got 1{'0' * 36}..."),
    ("mileage", True, "mileage should be a valid number or null, got true"),
    ("mileage", "41000", 'mileage should be a valid number or null, got "41000"'),
]


@pytest.mark.parametrize(
    ("feature", "value", "message"),
    INVALID_VALUES,
    ids=[f"{feature}={value!r:.20}" for feature, value, _ in INVALID_VALUES],
)
def test_invalid_value_is_rejected(car_service, feature, value, message):
    """Values are not converted: for example, 1 is not a boolean, and "110" not an integer."""
    response = car_service.post("/predict", json=CAR | {feature: value})
    assert response.status_code == 400
    assert response.json() == {"message": {feature: message}}


def test_all_validation_errors_are_reported_at_once(car_service):
    """An error in an array has the index of the record. A repeated feature is an error as well."""
    invalid = {name: value for name, value in CAR.items() if name != "owners"} | {"age": -1, "x": 1}
    assert car_service.post("/predict_batch", json=[CAR, invalid]).json() == {
        "message": {
            "1.age": "age should be greater than or equal to 0, got -1",
            "1.owners": "No owners provided",
            "1.x": "There is no feature x",
        }
    }
    repeated = json.dumps(CAR).replace("{", '{"fuel": "diesel", ')
    headers = {"Content-Type": "application/json"}
    response = car_service.post("/predict", content=repeated, headers=headers)
    assert response.json() == {"message": {"fuel": "fuel is given 2 times"}}


@pytest.mark.parametrize(
    ("feature", "value"),
    [("body", None), ("mileage", None), ("owners", None), ("accident_free", None), ("owners", 2.0)],
)
def test_missing_value_and_whole_float_are_predicted(car_service, model, feature, value):
    """They equal scikit-learn's predictions; a missing value is counted."""
    before = missing_count(car_service, feature)
    car = CAR | {feature: value}
    response = car_service.post("/predict", json=car)
    assert response.json() == {"prediction": pytest.approx(predict(model, [car])[0], rel=1e-12)}
    assert missing_count(car_service, feature) == before + (value is None)


def missing_count(client, feature):
    """Return the number of missing values that the metric has counted."""
    counters = service_checks.samples(client, "feature_gaps")
    return sum(each.value for each in counters if each.labels["feature"] == feature)


def test_valid_values_outside_the_training_data_are_counted(car_service):
    """The category, the text and the number are valid, and get a prediction."""
    unseen = CAR | {"fuel": "hydrogen", "trim": "Grand 9", "mileage": 9e6}
    assert car_service.post("/predict", json=unseen).status_code == 200
    counters = service_checks.samples(car_service, "feature_outside_training_range")
    assert {sample.labels["feature"] for sample in counters} >= {"fuel", "trim", "mileage"}


def test_model_card_describes_the_features(car_service, model):
    """It has the valid values of each feature, and those of the training data."""
    card = car_service.get("/model").json()
    assert card["target"] == {
        "name": "price",
        "description": "Asking price",
        "unit": "euros",
    }
    assert list(card["features"]) == list(CAR)
    assert "hydrogen" in card["features"]["fuel"]["enum"]
    assert card["features"]["accident_free"]["type"] == "boolean"
    assert card["features"]["power"]["type"] == "integer"
    assert card["training_range"].keys() == {"age", "mileage", "power", "owners"}
    assert card["training_values"]["fuel"] == ["diesel", "electric", "hybrid", "petrol"]
    assert card["training_values"]["accident_free"] == [False, True]
    assert "trim" not in card["training_values"]
    assert card["training_gaps"].keys() == {"body", "mileage", "owners", "accident_free"}
    assert card["features"]["owners"]["nullable"] is True


@pytest.fixture
def car_page(car_service, browser):
    """The page at /try in Chromium."""
    return TryPage(browser, car_service.base_url)


def test_page_fits_categories_booleans_and_missing_values(car_page, car_service, tmp_path):
    """It has a choice, a switch and a box "missing"; a text has no chart."""
    features = car_service.get("/model").json()["features"]
    example = {name: schema["example"] for name, schema in features.items()}
    assert car_page.record() == example
    car_page.check_curves(car_service)
    curves = car_page.curves()
    assert set(curves) == set(CAR) - {"trim"}
    assert [value for value, _ in curves["fuel"]] == features["fuel"]["enum"]
    assert [value for value, _ in curves["accident_free"]] == [False, True, None]
    assert curves["mileage"][-1][0] is None
    assert all(isinstance(value, int) for value, _ in curves["power"])
    Select(car_page.find(".control", car_page.card("fuel"))).select_by_visible_text("hydrogen")
    car_page.find("[role=switch]", car_page.card("accident_free")).click()
    for name in ("mileage", "body"):
        car_page.find(".missing input", car_page.card(name)).click()
    car_page.type_value("trim", "Sport 2.0")
    changed = {"fuel": "hydrogen", "accident_free": False, "mileage": None, "body": None}
    record = example | changed | {"trim": "Sport 2.0"}
    assert car_page.record() == record
    expected = car_service.post("/predict", json=record).json()["prediction"]
    assert car_page.prediction() == pytest.approx(expected, abs=1e-9)
    assert car_page.find(".note", car_page.card("fuel")).text == "Not in the training data"
    assert not car_page.find(".control", car_page.card("mileage")).is_enabled()
    car_page.check_curves(car_service)
    car_page.check_accessibility(axe_script(tmp_path / "axe"))
    car_page.find(".missing input", car_page.card("mileage")).click()
    assert car_page.record() == record | {"mileage": example["mileage"]}


def test_openapi_document_is_valid(car_service):
    """It describes categories as enumerations."""
    document = car_service.get("/docs.json").json()
    OpenAPIV31SpecValidator(document).validate()
    schemas = document["components"]["schemas"]
    properties = schemas["Record"]["properties"]
    assert properties["fuel"]["enum"][-1] == "petrol"
    assert list(schemas["Record"]["default"]) == list(CAR)
    body, null = properties["body"]["anyOf"]
    assert body["enum"][-1] == "van, 7 or more seats"
    assert null == {"type": "null"}
    assert properties["trim"]["maxLength"] == 40


def test_bento_contains_only_files_for_serving_and_works(car_bundle, model, tmp_path):
    """It contains the record type of cars; no data, training code or record type of houses."""
    built = run("bentoml", "build", "--output", "tag", cwd=car_bundle)
    bento = bentoml.bentos.get(built.stdout.strip().removeprefix("__tag__:"))
    src = Path(bento.path_of("src"))
    serving_files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    files = {path.relative_to(src).as_posix() for path in src.rglob("*.py")}
    assert files == {"service.py", "record.py"} | serving_files
    assert (src / "serving/http/static/try.html").exists()
    with running_server("bentoml", "serve", str(bento.tag), log=tmp_path / "log") as client:
        response = client.post("/predict", json=CAR)
    assert response.status_code == 200
    assert response.headers["x-model-tag"] == str(model.tag)


@pytest.mark.docker
def test_image_predicts(engine, car_bundle, model):
    """The requirements of the bundle are enough for the example."""
    tag = {"TAG": "car_price:test", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    output = run("make", "image", cwd=car_bundle, timeout=900, **tag).stdout
    (command,) = re.findall(r"^ +(docker run .*)$", output, re.MULTILINE)
    try:
        with running_container(command) as client:
            response = client.post("/predict", json=CAR)
    finally:
        run("docker", "rmi", "--force", "car_price:test")
    assert response.status_code == 200
    assert response.headers["x-model-tag"] == str(model.tag)


UNSERVABLE_MODELS = {
    "estimator that rejects missing values": (
        "HistGradientBoostingRegressor(categorical_features=codes, random_state=0)",
        "LinearRegression()",
        ["values are missing in", "SimpleImputer"],
    ),
    "encoder fails on unknown category": (
        'handle_unknown="use_encoded_value", unknown_value=float("nan"), ',
        "",
        ["can't predict rows of the data", "handle_unknown", "unknown categories"],
    ),
    "function in train.py": (
        'remainder="passthrough"',
        "remainder=FunctionTransformer(logs)",
        ["needs logs of train.py, which the service does not have"],
    ),
    "lambda": (
        'remainder="passthrough"',
        "remainder=FunctionTransformer(lambda X: X)",
        ["lambda", "may contain only functions with a name"],
    ),
    "integer without bounds": (
        "labelled_type=LabelledRecord",
        "labelled_type=Vague",
        ["Vague.owners needs ge and le"],
    ),
}
DEFINITIONS = """
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

def logs(X):
    return X

class Vague(LabelledRecord):
    owners: int

"""


@pytest.mark.parametrize(
    ("old", "new", "messages"), UNSERVABLE_MODELS.values(), ids=UNSERVABLE_MODELS
)
def test_unservable_model_is_not_saved(car_bundle, model, old, new, messages):
    """The model would fail requests, or the start of the service."""
    train = (car_bundle / "train.py").read_text()
    assert old in train
    train = train.replace(old, new)
    (car_bundle / "unservable.py").write_text(train.replace("def fit", DEFINITIONS + "def fit"))
    failed = run("python", "unservable.py", cwd=car_bundle, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Nothing is saved. ")
    for message in messages:
        assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert bentoml.models.get("car_price:latest").tag == model.tag


INVALID_CELLS = [
    ("fuel", "gas", "fuel should be 'diesel'"),
    ("accident_free", "perhaps", "accident_free should be a valid boolean or an empty cell"),
    ("age", "", "age should be a valid number"),
    ("power", "110.5", "power should be a valid integer"),
]


@pytest.mark.parametrize(
    ("column", "value", "message"), INVALID_CELLS, ids=[column for column, *_ in INVALID_CELLS]
)
def test_invalid_cell_of_the_data_is_reported(car_bundle, tmp_path, column, value, message):
    """The error names the line of the CSV file."""
    with (EXAMPLE_FILES / "used_cars.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[5][column] = value
    with (tmp_path / "bad.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    failed = run("python", "train.py", "--data", tmp_path / "bad.csv", cwd=car_bundle, check=False)
    assert failed.returncode == 1
    assert f"line 7: {message}" in failed.stderr
