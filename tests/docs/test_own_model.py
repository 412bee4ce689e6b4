"""docs/your-own-model.md: what it says to do turns a clone into a service of the example."""

import csv
import difflib
import json
import re
import runpy
import shutil
from pathlib import Path

import bentoml
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.helpers import contract
from tests.helpers.commands import ROOT, run, running_server
from tests.helpers.console import SERVERS, check_output, console_commands
from tests.helpers.containers import running_container
from tests.helpers.package_index import PRIVATE_INDEX

PAGE = (ROOT / "docs/your-own-model.md").read_text()
EXAMPLE_FILES = ROOT / "examples/cars"
NOT_IN_A_CLONE = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache")
CAR = {
    "brand": "Borealis",
    "fuel": "hybrid",
    "body": "estate",
    "age": 3.5,
    "mileage": 41000.0,
    "power": 110,
    "owners": 2,
    "accident_free": True,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in which the page's commands were run, and the model was trained."""
    path = tmp_path_factory.mktemp("clone") / "clone"
    shutil.copytree(ROOT, path, ignore=NOT_IN_A_CLONE)
    (path / ".venv").symlink_to(ROOT / ".venv")
    for command, _ in console_commands(PAGE):
        if command.startswith(SERVERS):
            break
        run("bash", "-c", command, cwd=path)
    run("make", "train", cwd=path)
    return path


@pytest.fixture(scope="module")
def model(clone):
    """The model of cars."""
    return bentoml.models.get("car_price:latest")


@pytest.fixture(scope="module")
def cars(clone, model, tmp_path_factory):
    """A client of `make serve` in the clone."""
    log = tmp_path_factory.mktemp("cars") / "log"
    with running_server("make", "serve", log=log, cwd=clone) as client:
        yield client


@pytest.fixture(scope="module")
def many():
    """Cars that differ in every kind of feature."""
    brands = ("Aster", "Borealis", "Cirrus", "Other: not listed")
    return [
        CAR
        | {
            "brand": brands[n % 4],
            "body": "van, 7 or more seats" if n % 5 else "saloon",
            "mileage": 500.0 * n,
            "power": 50 + n % 150,
            "accident_free": n % 3 > 0,
        }
        for n in range(300)
    ]


def test_commands_give_the_output_that_is_shown(cars, clone):
    """But for what is done before serving."""
    *_, shown = PAGE.partition("make serve\n```\n")
    commands = list(console_commands(shown))
    assert len(commands) == 2
    for command, expected in commands:
        check_output(command, expected, cars.base_url.port, cwd=clone)


def changes(clone):
    """Return the lines that are removed and added between this folder and the clone."""
    names = ("train.py", "service.py", "bentofile.yaml")
    pages = [[(path / name).read_text().splitlines() for path in (ROOT, clone)] for name in names]
    return {line for before, after in pages for line in difflib.unified_diff(before, after)}


def test_snippets_are_lines_of_the_example(clone):
    """The page shows no second version of it, and fits on a page itself."""
    blocks = re.findall(r"^```(python|diff)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = {kind: [] for kind in ("python", "diff")}
    for kind, block in blocks:
        lines[kind] += block.splitlines()
    assert lines["python"]
    assert set(lines["python"]) <= set((EXAMPLE_FILES / "car.py").read_text().splitlines())
    assert lines["diff"]
    assert set(lines["diff"]) <= changes(clone)
    assert len(PAGE.splitlines()) <= 80


def test_nothing_else_is_edited(clone):
    """All that serves and trains is as it is here."""
    for folder in ("serving", "training"):
        for path in (ROOT / folder).glob("*.py"):
            assert (clone / folder / path.name).read_bytes() == path.read_bytes()


def test_report_and_drift_are_of_cars(clone, model, tmp_path):
    """Their categories and booleans, too; there is no prediction log to compare."""
    run(
        "python",
        "-m",
        "training",
        "report",
        "--output",
        tmp_path,
        "--card",
        tmp_path / "card.md",
        cwd=clone,
    )
    assert "<code>brand</code>" in (tmp_path / "index.html").read_text()
    card = (tmp_path / "card.md").read_text()
    assert "are made up" in card
    assert not re.search("house|boston|census", card, re.IGNORECASE)
    failed = run("python", "-m", "training", "drift", tmp_path, cwd=clone, check=False)
    assert "predictions-*.jsonl" in failed.stderr


def test_data_are_those_of_the_generator(tmp_path):
    """So that whoever wonders where they come from can look."""
    script = shutil.copy(EXAMPLE_FILES / "data/generate.py", tmp_path)
    runpy.run_path(script, run_name="__main__")
    assert (tmp_path / "used_cars.csv").read_bytes() == (
        EXAMPLE_FILES / "data/used_cars.csv"
    ).read_bytes()


def test_model_is_far_better_than_the_mean(model):
    """The example is worth looking at. Measured: test_r2 0.97."""
    assert model.info.metadata["metrics"]["test_r2"] > 0.9


def test_prediction_is_the_estimators(cars, model):
    """With the model that made it."""
    answer = cars.post("/predict", json=CAR)
    expected = bentoml.sklearn.load_model(model).predict([list(CAR.values())])
    assert answer.json() == {"prediction": expected[0]}
    assert answer.headers["x-model-tag"] == str(model.tag)


def test_concurrent_requests_are_batched(cars):
    """As those for houses are."""
    contract.check_concurrent_requests_are_batched(cars, CAR)


def test_neighbours_in_a_batch_do_not_mix(cars, model, many):
    """Good and bad records and arrays, sent in the same moment, get each the model's own answer."""
    expected = bentoml.sklearn.load_model(model).predict([list(car.values()) for car in many])
    contract.check_neighbours_do_not_mix(cars, many, expected.tolist(), "mileage")


def test_batches_that_are_split_and_joined_keep_their_order(cars, many):
    """Requests for 600 records each do not fit into one batch of 1000."""
    contract.check_order_is_kept(cars, many * 2)


def test_bentomls_python_client_calls_both_apis(cars):
    """With a record, and with a list of them."""
    prediction = cars.post("/predict", json=CAR).json()["prediction"]
    contract.check_bentomls_client(cars, CAR, prediction)


def test_array_may_be_full_of_commas_and_colons(cars):
    """A thousand categories that have them are a thousand values."""
    car = CAR | {"brand": "Other: not listed", "body": "van, 7 or more seats"}
    answer = cars.post("/predict_batch", json=[car] * 1000)
    assert len(answer.json()["predictions"]) == 1000


BRANDS = "'Aster', 'Borealis', 'Cirrus' or 'Other: not listed'"
BAD_VALUES = [
    ("brand", "borealis", f'brand should be {BRANDS}, got "borealis"'),
    ("brand", " Borealis", f'brand should be {BRANDS}, got " Borealis"'),
    ("brand", "", f'brand should be {BRANDS}, got ""'),
    ("brand", None, f"brand should be {BRANDS}, got null"),
    ("brand", ["Aster"], f'brand should be {BRANDS}, got ["Aster"]'),
    (
        "fuel",
        "PETROL",
        "fuel should be 'petrol', 'diesel', 'hybrid', 'electric' or 'hydrogen', got \"PETROL\"",
    ),
    ("accident_free", 1, "accident_free should be a valid boolean, got 1"),
    ("accident_free", "true", 'accident_free should be a valid boolean, got "true"'),
    ("accident_free", None, "accident_free should be a valid boolean, got null"),
    ("power", 110.0, "power should be a valid integer, got 110.0"),
    ("power", True, "power should be a valid integer, got true"),
    ("power", "110", 'power should be a valid integer, got "110"'),
    ("power", 10**400, f"power should be less than or equal to 2000, got 1{'0' * 36}..."),
    ("mileage", True, "mileage should be a valid number, got true"),
    ("mileage", "41000", 'mileage should be a valid number, got "41000"'),
]


@pytest.mark.parametrize(("feature", "value", "reason"), BAD_VALUES)
def test_bad_value_is_refused(cars, feature, value, reason):
    """A stand-in for a category, a boolean or a number is none."""
    answer = cars.post("/predict", json=CAR | {feature: value})
    assert answer.status_code == 400
    assert answer.json() == {"message": {feature: reason}}


def test_all_faults_are_named_at_once(cars):
    """Of each record, by its number, and a feature given twice if there is nothing worse."""
    bad = {name: value for name, value in CAR.items() if name != "owners"} | {"age": -1, "x": 1}
    assert cars.post("/predict_batch", json=[CAR, bad]).json() == {
        "message": {
            "1.age": "age should be greater than or equal to 0, got -1",
            "1.owners": "No owners provided",
            "1.x": "There is no feature x",
        }
    }
    twice = json.dumps(CAR).replace("{", '{"fuel": "diesel", ')
    headers = {"Content-Type": "application/json"}
    answer = cars.post("/predict", content=twice, headers=headers)
    assert answer.json() == {"message": {"fuel": "fuel is given 2 times"}}


def test_what_training_lacked_is_predicted_and_counted(cars):
    """A category and a number that are legal, but not in the data."""
    odd = CAR | {"fuel": "hydrogen", "mileage": 9e6}
    assert cars.post("/predict", json=odd).status_code == 200
    outside = contract.samples(cars, "feature_outside_training_range")
    assert {sample.labels["feature"] for sample in outside} >= {"fuel", "mileage"}


def test_model_is_described(cars, model):
    """Each feature with its legal values, and with those of the training."""
    card = cars.get("/model").json()
    assert card["target"] == {
        "name": "price",
        "description": "Price that was asked",
        "unit": "euros",
    }
    assert list(card["features"]) == list(CAR)
    assert card["features"]["fuel"]["enum"][-1] == "hydrogen"
    assert card["features"]["accident_free"]["type"] == "boolean"
    assert card["features"]["power"]["type"] == "integer"
    assert card["training_range"].keys() == {"age", "mileage", "power", "owners"}
    assert card["training_values"]["fuel"] == ["diesel", "electric", "hybrid", "petrol"]
    assert card["training_values"]["accident_free"] == [False, True]


def test_description_is_valid_openapi(cars):
    """With the categories as enumerations."""
    description = cars.get("/docs.json").json()
    OpenAPIV31SpecValidator(description).validate()
    schemas = description["components"]["schemas"]
    assert schemas["Fuel"]["enum"][0] == "petrol"
    assert schemas["Car"]["properties"]["body"]["enum"][-1] == "van, 7 or more seats"
    assert schemas["Car"]["properties"]["accident_free"]["type"] == "boolean"


def test_bento_holds_the_record_type_and_serves(clone, model, tmp_path):
    """Without the data, the training and the houses."""
    built = run("bentoml", "build", "--output", "tag", cwd=clone)
    bento = bentoml.bentos.get(built.stdout.strip().removeprefix("__tag__:"))
    src = Path(bento.path_of("src"))
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    files = {path.relative_to(src).as_posix() for path in src.rglob("*.py")}
    assert files == {"service.py", "car.py"} | ours
    with running_server("bentoml", "serve", str(bento.tag), log=tmp_path / "log") as client:
        answer = client.post("/predict", json=CAR)
    assert answer.status_code == 200
    assert answer.headers["x-model-tag"] == str(model.tag)


@pytest.mark.docker
def test_image_answers(engine, clone, model):
    """With the packages of the houses' image."""
    tag = {"TAG": "car_price:test", "UV_DEFAULT_INDEX": PRIVATE_INDEX}
    told = run("make", "image", cwd=clone, timeout=900, **tag).stdout
    (command,) = re.findall(r"^ +(docker run .*)$", told, re.MULTILINE)
    try:
        with running_container(command) as client:
            answer = client.post("/predict", json=CAR)
    finally:
        run("docker", "rmi", "--force", "car_price:test")
    assert answer.status_code == 200
    assert answer.headers["x-model-tag"] == str(model.tag)


UNSERVABLE = {
    "strict encoder": (
        'handle_unknown="ignore"',
        "",
        ["legal record", "handle_unknown", "hydrogen"],
    ),
    "function of train.py": (
        'remainder="passthrough"',
        "remainder=FunctionTransformer(logs)",
        ["needs logs, which the service does not find"],
    ),
    "lambda": (
        'remainder="passthrough"',
        "remainder=FunctionTransformer(lambda X: X)",
        ["lambda", "a function has to have a name"],
    ),
    "record type": ("fit, LabelledCar", "fit, Vague", ["Vague.owners needs ge and le"]),
}
MORE = """
from sklearn.preprocessing import FunctionTransformer

def logs(X):
    return X

class Vague(LabelledCar):
    owners: int

"""


@pytest.mark.parametrize(("old", "new", "words"), UNSERVABLE.values(), ids=UNSERVABLE)
def test_model_that_could_not_be_served_is_not_saved(clone, model, old, new, words):
    """It would fail the requests of others, or the start of the service."""
    train = (clone / "train.py").read_text().replace(old, new)
    (clone / "bad.py").write_text(train.replace("def fit", MORE + "def fit"))
    failed = run("python", "bad.py", cwd=clone, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Nothing is saved. ")
    for word in words:
        assert word in failed.stderr
    assert "Traceback" not in failed.stderr
    assert bentoml.models.get("car_price:latest").tag == model.tag


BAD_CELLS = [
    ("fuel", "gas", "fuel should be 'petrol'"),
    ("accident_free", "perhaps", "accident_free should be a valid boolean"),
    ("power", "110.5", "power should be a valid integer"),
]


@pytest.mark.parametrize(("column", "value", "reason"), BAD_CELLS)
def test_bad_cell_of_the_data_is_named(clone, tmp_path, column, value, reason):
    """By its line, as for houses."""
    with (EXAMPLE_FILES / "data/used_cars.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[5][column] = value
    with (tmp_path / "bad.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    failed = run("python", "train.py", "--data", tmp_path / "bad.csv", cwd=clone, check=False)
    assert failed.returncode == 1
    assert f"line 7: {reason}" in failed.stderr
