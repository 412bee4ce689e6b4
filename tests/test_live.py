"""The service as people run it: `bentoml serve` in the folder, and of a Bento from the store."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import pytest
from conftest import ROOT, run, serving
from prometheus_client.parser import text_string_to_metric_families

from house import EXAMPLE
from train import DATA

TUTORIAL = pytest.approx(12.273424794987879, abs=1e-9)


@pytest.fixture(scope="module")
def bento(model):
    """A Bento, built from a folder that also holds what must not be in it."""
    build = run("bentoml", "build", "--output", "tag")
    return bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))


def batches(client):
    """Return how many batches `predict` has run, and how many records were in them."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    sizes = {
        sample.name.rpartition("_")[2]: sample.value
        for family in families
        if family.name == "bentoml_service_adaptive_batch_size"
        for sample in family.samples
        if sample.labels["method_name"] == "predict"
    }
    return sizes.get("count", 0), sizes.get("sum", 0)


def test_tutorial_request_gives_the_tutorials_answer(live):
    """Over HTTP."""
    assert live.post("/predict", json=EXAMPLE).json() == {"prediction": TUTORIAL}


def test_concurrent_requests_are_batched(live):
    """64 clients at once, each with one record: several of those share a batch."""
    with ThreadPoolExecutor(64) as clients:
        count, size = batches(live)
        answers = list(clients.map(lambda _: live.post("/predict", json=EXAMPLE), range(640)))
        more, larger = batches(live)
    assert {answer.status_code for answer in answers} == {200}
    assert larger - size == 640
    assert more - count < 320


def test_neighbours_in_a_batch_do_not_mix(live):
    """Good and bad records, sent in the same moment, get each its own answer."""
    houses = [EXAMPLE | {"RM": 3 + n / 50} for n in range(300)]
    expected = live.post("/predict_batch", json=houses).json()["predictions"]
    assert len(set(expected)) > 20
    sent = [house if n % 3 else house | {"AGE": -n - 1} for n, house in enumerate(houses)]
    with ThreadPoolExecutor(64) as clients:
        answers = list(clients.map(lambda house: live.post("/predict", json=house).json(), sent))
    for n, answer in enumerate(answers):
        if n % 3:
            assert answer == {"prediction": expected[n]}
        else:
            reason = f"AGE should be greater than or equal to 0, got {-n - 1}"
            assert answer == {"message": {"AGE": reason}}


def test_batches_that_are_split_and_joined_keep_their_order(live):
    """Requests for 700 records each do not fit into one batch of 1000, and come out whole."""
    houses = [EXAMPLE | {"RM": 3 + n / 100} for n in range(700)]
    expected = live.post("/predict_batch", json=houses).json()["predictions"]
    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda _: live.post("/predict_batch", json=houses).json(), range(24))
    assert all(answer["predictions"] == expected for answer in answers)


def test_bentomls_python_client_calls_both_apis(live):
    """With a record, and with a list of them."""
    with bentoml.SyncHTTPClient(str(live.base_url)) as client:
        assert client.predict(EXAMPLE) == {"prediction": TUTORIAL}
        assert client.predict_batch([EXAMPLE] * 2) == {"predictions": [TUTORIAL] * 2}


def test_callers_mistake_costs_one_log_line(live):
    """No traceback: nobody has to look into it."""
    live.post("/predict", json=[EXAMPLE])  # what was logged before is on its way
    before = len(live.log.read_text().splitlines())
    live.post("/predict", json={"RM": 6})
    live.post("/predict", content=b"x=1")
    live.post("/predict", content=b"{" * 2**21, headers={"Content-Type": "application/json"})
    lines = live.log.read_text().splitlines()[before:]
    assert [re.search(r"status=(\d+)", line)[1] for line in lines] == ["400", "415", "413"]


def test_bento_holds_what_serving_needs_and_nothing_else(bento, model):
    """The service, its record type and the model; no tests, data or training code."""
    src = bento.path_of("src")
    files = {path.relative_to(src).as_posix() for path in Path(src).rglob("*.py")}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").glob("*.py")}
    assert files == {"service.py", "house.py"} | ours
    assert not Path(src, "data").exists()
    assert [info.tag for info in bento.info.all_models] == [model.tag]


def test_bento_serves_the_model_that_it_was_built_with(bento, model, tmp_path):
    """Although a newer one, of other data, has come into the store since."""
    lines = DATA.read_text().splitlines(keepends=True)
    (tmp_path / "less.csv").write_text("".join(lines[:200]))
    run("python", "train.py", "--data", tmp_path / "less.csv")
    newest = bentoml.models.get("house_price:latest").tag
    assert newest != model.tag
    try:
        with serving("bentoml", "serve", "house_price:latest", log=tmp_path / "log") as client:
            answer = client.post("/predict", json=EXAMPLE)
    finally:
        bentoml.models.delete(newest)
    assert answer.json() == {"prediction": TUTORIAL}
    assert answer.headers["x-model-tag"] == str(model.tag)


def test_serving_without_a_model_says_what_to_do(tmp_path):
    """And ends."""
    failed = run("bentoml", "serve", check=False, BENTOML_HOME=str(tmp_path))
    assert failed.returncode == 1
    assert "run `make train`" in failed.stderr
    assert "Traceback" not in failed.stderr
