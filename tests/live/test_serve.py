"""The service as people run it: `bentoml serve` in the folder, and of a Bento from the store."""

import json
import re
import shutil
import socket
from pathlib import Path

import bentoml
import psutil
import pytest
from bentoml.models import BentoModel
from openapi_spec_validator import OpenAPIV31SpecValidator

from house import EXAMPLE
from serving.http.auth import BASIC_CHALLENGE
from tests.helpers import contract
from tests.helpers.commands import (
    ROOT,
    TUTORIAL_PREDICTION,
    TUTORIAL_RESPONSE,
    is_ready,
    run,
    running_server,
    wait_until,
)
from train import PROJECT

KEYS = ("first-key-of-the-tests", "second-key-of-the-tests")


@pytest.fixture(scope="module")
def bento(model):
    """A Bento, built from a folder that also holds what must not be in it."""
    build = run("bentoml", "build", "--output", "tag")
    return bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))


def test_tutorial_request_gives_the_tutorials_answer(live):
    """Over HTTP."""
    assert live.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_concurrent_requests_are_batched(live):
    """64 connections that send one record each in the same moment need far fewer batches."""
    contract.check_concurrent_requests_are_batched(live, EXAMPLE)


def test_neighbours_in_a_batch_do_not_mix(live, model):
    """Good and bad records and arrays, sent in the same moment, get each the model's own answer."""
    houses = [EXAMPLE | {"RM": 3 + n / 50, "LSTAT": n % 30} for n in range(300)]
    estimator = bentoml.sklearn.load_model(model)
    expected = estimator.predict([list(house.values()) for house in houses]).tolist()
    contract.check_neighbours_do_not_mix(live, houses, expected, "AGE")


def test_batches_that_are_split_and_joined_keep_their_order(live):
    """Requests for 700 records each do not fit into one batch of 1000, and come out whole."""
    contract.check_order_is_kept(live, [EXAMPLE | {"RM": 3 + n / 100} for n in range(700)])


def test_bentomls_python_client_calls_both_apis(live):
    """With a record, and with a list of them."""
    contract.check_bentomls_client(live, EXAMPLE, TUTORIAL_PREDICTION)


def test_each_request_is_one_log_line(live):
    """Also if it is a mistake of the caller: no traceback, for nobody has to look into it."""
    headers = {"Content-Type": "application/json", "X-Request-ID": "mistake"}
    live.post("/predict", content=b'{"RM": 6}', headers=headers)
    live.post("/predict", content=b"x=1", headers={"X-Request-ID": "mistake"})
    live.post("/predict", content=b"{" * 2**21, headers=headers)
    live.get("/nowhere", headers={"X-Request-ID": "mistake"})

    def lines():
        return [line.split() for line in live.log.read_text().splitlines() if "mistake" in line]

    wait_until(lambda: len(lines()) == 4, live.log)
    assert [line[3] for line in lines()] == ["400", "415", "413", "404"]
    assert "Traceback" not in live.log.read_text()


HEAD = b"HTTP/1.1\r\nHost: x\r\nX-Note: s3cr3t\r\nCookie: s3cr3t\r\n"
POST = b"POST /predict " + HEAD + b"Content-Type: application/json\r\n"
RAW = {
    "query": b"GET /nowhere?s3cr3t " + HEAD + b"\r\n",
    "escapes in the path": b"GET /%0a%1b[31m%00%7f%c2%9b31m%e2%80%a8%ff%ed%a0%80 " + HEAD + b"\r\n",
    "raw escapes in the path": b"GET /\x1b[31ms3cr3t " + HEAD + b"\r\n",
    "escapes in the method": b"s3cr3t\x1b[31m / " + HEAD + b"\r\n",
    "escapes in a header": b"GET / " + HEAD + b"X-Request-ID: \x1b[31ms3cr3t\r\n\r\n",
    "folded header": b"GET / " + HEAD + b"X-Request-ID: a\r\n s3cr3t\r\n\r\n",
    "no ASCII in a header": b"GET / " + HEAD + b"X-Request-ID: \xe9s3cr3t\r\n\r\n",
    "name of a feature": POST + b'Content-Length: 13\r\n\r\n{"s3cr3t": 1}',
    "value": POST + b'Content-Length: 16\r\n\r\n{"RM": "s3cr3t"}',
    "length": POST + b"Content-Length: s3cr3t\r\n\r\n",
    "no chunk": POST + b"Transfer-Encoding: chunked\r\n\r\ns3cr3t\r\n",
    "upgrade": b"GET / " + HEAD + b"Connection: Upgrade\r\nUpgrade: s3cr3t\r\n\r\n",
    "no HTTP": b"\x16\x03\x01s3cr3t\x1b[31m\r\n\r\n",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_log_has_nothing_of_a_request_but_its_path(live, raw):
    """No value, header or query, and no control character, which could forge a line."""
    before = len(live.log.read_text())
    with socket.create_connection((live.base_url.host, live.base_url.port), timeout=10) as peer:
        peer.sendall(raw)
        assert b"s3cr3t" not in peer.recv(65536).partition(b"\r\n\r\n")[0]
    live.get("/done")
    wait_until(lambda: '"/done"' in live.log.read_text()[before:], live.log)
    written = live.log.read_bytes()[before:]
    assert b"s3cr3t" not in written
    assert re.fullmatch(rb"[\n -~]*", written)


def test_unknown_paths_are_one_series(live):
    """Or else anybody could fill the metrics."""
    for number in range(100):
        live.get(f"/nowhere/{number}")
    text = live.get("/metrics").text
    assert "nowhere" not in text
    assert 'bentoml_service_request_total{endpoint="unknown",http_response_code="404"' in text


def test_values_outside_the_training_range_are_counted(live):
    """Where a scraper sees it."""
    live.post("/predict", json=EXAMPLE | {"RM": 50})
    assert 'feature_outside_training_range_total{feature="RM"}' in live.get("/metrics").text


@pytest.fixture(scope="module")
def guarded(model, tmp_path_factory):
    """A client of `bentoml serve` with API keys, which sends none."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    with running_server("bentoml", "serve", log=log, API_KEYS=",".join(KEYS)) as client:
        yield client


GUARDED = [
    "/",
    "/docs.json",
    "/schema.json",
    "/metrics",
    "/model",
    "/static_content/swagger-ui.css",
]


@pytest.mark.parametrize("path", GUARDED)
def test_all_that_can_be_looked_at_needs_a_key(guarded, path):
    """But whether the service is alive and ready."""
    assert guarded.get(path).status_code == 401
    assert guarded.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    for key in KEYS:
        answer = guarded.get(path, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
        assert not any(key in answer.text for key in KEYS)
    for probe in ("/livez", "/readyz", "/healthz"):
        assert guarded.get(probe).status_code == 200


def test_prediction_needs_a_key(guarded):
    """Which BentoML's client can send."""
    answer = guarded.post("/predict", json=EXAMPLE)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == BASIC_CHALLENGE
    with bentoml.SyncHTTPClient(str(guarded.base_url), token=KEYS[1]) as client:
        assert client.predict(EXAMPLE) == TUTORIAL_RESPONSE


def test_keys_are_described_exactly_if_there_are_any(guarded, live):
    """So that Swagger UI shows its button Authorize."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with_keys = guarded.get("/docs.json", headers=headers).json()
    OpenAPIV31SpecValidator(with_keys).validate()
    assert with_keys["components"]["securitySchemes"] == {
        "ApiKey": {"type": "http", "scheme": "bearer"}
    }
    for path, methods in with_keys["paths"].items():
        (operation,) = methods.values()
        is_open = path in ("/livez", "/readyz", "/healthz")
        assert operation.get("security") == (None if is_open else [{"ApiKey": []}])
        assert ("401" in operation["responses"]) != is_open
    without = json.dumps(live.get("/docs.json").json())
    # In quotes, for the port of the server may have these digits, too.
    assert not any(f'"{word}' in without for word in ("security", "401", "ApiKey"))


def test_keys_are_in_no_log_and_no_bento(guarded):
    """Nor is a wrong one, which may be somebody's for something else."""
    for key in (*KEYS, "wrong-key"):
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": f"last-{key[:5]}"}
        guarded.post("/predict", json=EXAMPLE, headers=headers)
    wait_until(lambda: "last-wrong" in guarded.log.read_text(), guarded.log)
    assert not any(key in guarded.log.read_text() for key in (*KEYS, "wrong-key"))
    build = run("bentoml", "build", "--output", "tag", API_KEYS=",".join(KEYS))
    built = bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))
    files = [path.read_bytes() for path in Path(built.path).rglob("*") if path.is_file()]
    bentoml.bentos.delete(built.tag)
    assert not any(key.encode() in file for file in files for key in KEYS)


def test_log_is_complete_when_the_service_ends(model, tmp_path):
    """The last requests before the end are in it."""
    with running_server("bentoml", "serve", log=tmp_path / "log", ACCESS_LOG="json") as client:
        for number in range(100):
            client.post("/predict", json=EXAMPLE, headers={"X-Request-ID": f"number-{number}"})
    log = (tmp_path / "log").read_text()
    assert all(f'"request_id": "number-{number}"' in log for number in range(100))


def test_bento_holds_what_serving_needs_and_nothing_else(bento, model):
    """The service, its record type and the model; no tests, data or training code."""
    src = bento.path_of("src")
    files = {path.relative_to(src).as_posix() for path in Path(src).rglob("*.py")}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    assert files == {"service.py", "house.py"} | ours
    assert not Path(src, "data").exists()
    assert [info.tag for info in bento.info.all_models] == [model.tag]


@pytest.fixture
def newer_model(model, tmp_path):
    """A model of less data, trained after the other."""
    lines = PROJECT.data.read_text().splitlines(keepends=True)
    (tmp_path / "less.csv").write_text("".join(lines[:200]))

    def train():
        run("python", "train.py", "--data", tmp_path / "less.csv")
        return bentoml.models.get("house_price:latest").tag

    yield train
    newest = bentoml.models.get("house_price:latest").tag
    if newest != model.tag:
        bentoml.models.delete(newest)


def test_bento_serves_the_model_that_it_was_built_with(bento, model, newer_model, tmp_path):
    """Although a newer one has come into the store since."""
    assert newer_model() != model.tag
    with running_server("bentoml", "serve", "house_price:latest", log=tmp_path / "log") as client:
        answer = client.post("/predict", json=EXAMPLE)
        description = client.get("/docs.json").json()
    assert answer.json() == TUTORIAL_RESPONSE
    assert answer.headers["x-model-tag"] == str(model.tag)
    assert description["info"]["version"] == bento.tag.version


def test_worker_that_replaces_a_dead_one_serves_the_same_model(model, newer_model, tmp_path):
    """And not one that has come into the store since."""
    with running_server("bentoml", "serve", log=tmp_path / "log") as client:
        newer_model()
        (worker,) = psutil.Process(client.server.pid).children()
        worker.kill()
        worker.wait()
        wait_until(lambda: is_ready(client), client.log)
        answer = client.post("/predict", json=EXAMPLE)
    assert answer.headers["x-model-tag"] == str(model.tag)


def test_two_workers_serve(model, tmp_path):
    """Each with the model loaded."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        assert len(psutil.Process(client.server.pid).children()) == 2
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


@pytest.fixture
def container(bento, model, tmp_path):
    """The folder of a Bento as in an image: the model lies in it, and in no store."""
    path = shutil.copytree(bento.path, tmp_path / "bento")
    BentoModel(model.tag).resolve(path / "models")
    return path


def test_damaged_model_in_an_image_is_refused(container, tmp_path):
    """At once, by the supervisor: no worker fails over and over again."""
    command, home = ("bentoml", "serve", str(container)), str(tmp_path / "home")
    with running_server(*command, log=tmp_path / "log", BENTOML_HOME=home) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
    (pickled,) = container.rglob("saved_model.pkl")
    pickled.write_bytes(pickled.read_bytes()[:-1])
    failed = run(*command, check=False, BENTOML_HOME=home)
    assert failed.returncode == 1
    assert "is not as train.py saved it" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_damaged_model_in_the_store_is_refused(model, tmp_path):
    """At once, by the supervisor, and it goes into no Bento."""
    store = shutil.copytree(Path(model.path).parents[1], tmp_path / "models")
    (pickled,) = store.rglob(f"{model.tag.version}/saved_model.pkl")
    pickled.unlink()
    for command in ("serve", "build"):
        failed = run(
            "bentoml", command, check=False, BENTOML_HOME=str(tmp_path), MODEL=str(model.tag)
        )
        assert failed.returncode == 1
        assert "saved_model.pkl: No such file or directory): restore it" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_serving_without_a_model_says_what_to_do(tmp_path):
    """And ends."""
    failed = run("bentoml", "serve", check=False, BENTOML_HOME=str(tmp_path))
    assert failed.returncode == 1
    assert "run `make train`" in failed.stderr
    assert "Traceback" not in failed.stderr
