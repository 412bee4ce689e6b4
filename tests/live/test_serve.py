"""`bentoml serve`, from the source folder and from a Bento: API, access log, keys and models."""

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
    """A Bento, built from this repository, where most files do not belong in a Bento."""
    build = run("bentoml", "build", "--output", "tag")
    return bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))


def test_example_record_gets_the_tutorials_prediction(live):
    """The prediction over HTTP equals the one that the tutorial publishes."""
    assert live.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_concurrent_requests_are_batched(live):
    """64 single records, sent at the same moment, need at most 16 batches."""
    contract.check_concurrent_requests_are_batched(live, EXAMPLE)


def test_concurrent_requests_get_their_own_predictions(live, model):
    """Valid and invalid records and arrays are sent at the same moment."""
    houses = [EXAMPLE | {"RM": 3 + n / 50, "LSTAT": n % 30} for n in range(300)]
    estimator = bentoml.sklearn.load_model(model)
    expected = estimator.predict([list(house.values()) for house in houses]).tolist()
    contract.check_neighbours_do_not_mix(live, houses, expected, "AGE")


def test_arrays_split_across_batches_keep_their_order(live):
    """A batch holds 1000 records, so that a second array of 700 is split between two batches."""
    contract.check_order_is_kept(live, [EXAMPLE | {"RM": 3 + n / 100} for n in range(700)])


def test_bentomls_python_client_calls_both_apis(live):
    """The client sends a record to `predict`, and a list of records to `predict_batch`."""
    contract.check_bentomls_client(live, EXAMPLE, TUTORIAL_PREDICTION)


def test_client_error_is_logged_in_one_line(live):
    """The log has no traceback, because the operator need not act on a client's mistake."""
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


HEADERS = b"HTTP/1.1\r\nHost: x\r\nX-Note: s3cr3t\r\nCookie: s3cr3t\r\n"
POST = b"POST /predict " + HEADERS + b"Content-Type: application/json\r\n"
RAW_REQUESTS = {
    "query string": b"GET /nowhere?s3cr3t " + HEADERS + b"\r\n",
    "encoded controls": b"GET /%0a%1b[31m%00%7f%c2%9b31m%e2%80%a8%ff%ed%a0%80 " + HEADERS + b"\r\n",
    "control character in path": b"GET /\x1b[31ms3cr3t " + HEADERS + b"\r\n",
    "control character in method": b"s3cr3t\x1b[31m / " + HEADERS + b"\r\n",
    "control character in header": b"GET / " + HEADERS + b"X-Request-ID: \x1b[31ms3cr3t\r\n\r\n",
    "folded header": b"GET / " + HEADERS + b"X-Request-ID: a\r\n s3cr3t\r\n\r\n",
    "non-ASCII header": b"GET / " + HEADERS + b"X-Request-ID: \xe9s3cr3t\r\n\r\n",
    "unknown feature": POST + b'Content-Length: 13\r\n\r\n{"s3cr3t": 1}',
    "invalid value": POST + b'Content-Length: 16\r\n\r\n{"RM": "s3cr3t"}',
    "invalid Content-Length": POST + b"Content-Length: s3cr3t\r\n\r\n",
    "invalid chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\ns3cr3t\r\n",
    "Upgrade header": b"GET / " + HEADERS + b"Connection: Upgrade\r\nUpgrade: s3cr3t\r\n\r\n",
    "not HTTP": b"\x16\x03\x01s3cr3t\x1b[31m\r\n\r\n",
}


@pytest.mark.parametrize("raw", RAW_REQUESTS.values(), ids=RAW_REQUESTS)
def test_log_contains_no_secret_and_no_control_character(live, raw):
    """Headers, query strings and values may be secret; a control character could forge a line."""
    before = len(live.log.read_text())
    with socket.create_connection((live.base_url.host, live.base_url.port), timeout=10) as peer:
        peer.sendall(raw)
        assert b"s3cr3t" not in peer.recv(65536).partition(b"\r\n\r\n")[0]
    live.get("/done")
    wait_until(lambda: '"/done"' in live.log.read_text()[before:], live.log)
    written = live.log.read_bytes()[before:]
    assert b"s3cr3t" not in written
    assert re.fullmatch(rb"[\n -~]*", written)


def test_unknown_paths_share_one_time_series(live):
    """Otherwise a client could add any number of time series to the metrics."""
    for number in range(100):
        live.get(f"/nowhere/{number}")
    text = live.get("/metrics").text
    assert "nowhere" not in text
    assert 'bentoml_service_request_total{endpoint="unknown",http_response_code="404"' in text


def test_values_outside_the_training_range_are_counted(live):
    """The counter of the feature appears in /metrics."""
    live.post("/predict", json=EXAMPLE | {"RM": 50})
    assert 'feature_outside_training_range_total{feature="RM"}' in live.get("/metrics").text


@pytest.fixture(scope="module")
def protected(model, tmp_path_factory):
    """A client, without a key, of a service that requires API keys."""
    log = tmp_path_factory.mktemp("protected") / "log"
    with running_server("bentoml", "serve", log=log, API_KEYS=",".join(KEYS)) as client:
        yield client


PROTECTED_PATHS = [
    "/",
    "/docs.json",
    "/schema.json",
    "/metrics",
    "/model",
    "/static_content/swagger-ui.css",
]


@pytest.mark.parametrize("path", PROTECTED_PATHS)
def test_get_requires_a_key_except_for_probes(protected, path):
    """Any of the keys is accepted, and none is in the response."""
    assert protected.get(path).status_code == 401
    assert protected.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    for key in KEYS:
        response = protected.get(path, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200
        assert not any(key in response.text for key in KEYS)
    for probe in ("/livez", "/readyz", "/healthz"):
        assert protected.get(probe).status_code == 200


def test_prediction_requires_a_key(protected):
    """BentoML's client sends its `token` as the key."""
    response = protected.post("/predict", json=EXAMPLE)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == BASIC_CHALLENGE
    with bentoml.SyncHTTPClient(str(protected.base_url), token=KEYS[1]) as client:
        assert client.predict(EXAMPLE) == TUTORIAL_RESPONSE


def test_openapi_document_declares_keys_only_if_configured(protected, live):
    """Swagger UI shows its button Authorize if the document declares a security scheme."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with_keys = protected.get("/docs.json", headers=headers).json()
    OpenAPIV31SpecValidator(with_keys).validate()
    assert with_keys["components"]["securitySchemes"] == {
        "ApiKey": {"type": "http", "scheme": "bearer"}
    }
    for path, methods in with_keys["paths"].items():
        (operation,) = methods.values()
        public = path in ("/livez", "/readyz", "/healthz")
        assert operation.get("security") == (None if public else [{"ApiKey": []}])
        assert ("401" in operation["responses"]) != public
    without = json.dumps(live.get("/docs.json").json())
    # With a quote before it: the port of the server may contain the digits 401, too.
    assert not any(f'"{name}' in without for name in ("security", "401", "ApiKey"))


def test_keys_are_in_neither_log_nor_bento(protected):
    """An invalid key is not logged either, because it may be valid for another service."""
    for key in (*KEYS, "wrong-key"):
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": f"last-{key[:5]}"}
        protected.post("/predict", json=EXAMPLE, headers=headers)
    wait_until(lambda: "last-wrong" in protected.log.read_text(), protected.log)
    assert not any(key in protected.log.read_text() for key in (*KEYS, "wrong-key"))
    build = run("bentoml", "build", "--output", "tag", API_KEYS=",".join(KEYS))
    built = bentoml.bentos.get(build.stdout.strip().removeprefix("__tag__:"))
    files = [path.read_bytes() for path in Path(built.path).rglob("*") if path.is_file()]
    bentoml.bentos.delete(built.tag)
    assert not any(key.encode() in file for file in files for key in KEYS)


def test_shutdown_flushes_the_access_log(model, tmp_path):
    """The log is written in the background; the last requests are in it, too."""
    with running_server("bentoml", "serve", log=tmp_path / "log", ACCESS_LOG="json") as client:
        for number in range(100):
            client.post("/predict", json=EXAMPLE, headers={"X-Request-ID": f"number-{number}"})
    log = (tmp_path / "log").read_text()
    assert all(f'"request_id": "number-{number}"' in log for number in range(100))


def test_bento_contains_only_files_for_serving(bento, model):
    """It contains the service, the record type and the model; no tests, data or training code."""
    src = bento.path_of("src")
    files = {path.relative_to(src).as_posix() for path in Path(src).rglob("*.py")}
    serving_files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    assert files == {"service.py", "house.py"} | serving_files
    assert not Path(src, "data").exists()
    assert [info.tag for info in bento.info.all_models] == [model.tag]


@pytest.fixture
def train_newer_model(model, tmp_path):
    """A function that trains a newer model on less data, which is deleted after the test."""
    lines = PROJECT.data.read_text().splitlines(keepends=True)
    (tmp_path / "less.csv").write_text("".join(lines[:200]))

    def train():
        run("python", "train.py", "--data", tmp_path / "less.csv")
        return bentoml.models.get("house_price:latest").tag

    yield train
    newest = bentoml.models.get("house_price:latest").tag
    if newest != model.tag:
        bentoml.models.delete(newest)


def test_bento_serves_the_model_that_it_was_built_with(bento, model, train_newer_model, tmp_path):
    """It does so even if the store has a newer model."""
    assert train_newer_model() != model.tag
    with running_server("bentoml", "serve", "house_price:latest", log=tmp_path / "log") as client:
        response = client.post("/predict", json=EXAMPLE)
        description = client.get("/docs.json").json()
    assert response.json() == TUTORIAL_RESPONSE
    assert response.headers["x-model-tag"] == str(model.tag)
    assert description["info"]["version"] == bento.tag.version


def test_replacement_worker_serves_the_pinned_model(model, train_newer_model, tmp_path):
    """It does so even if a newer model was saved after the start of the service."""
    with running_server("bentoml", "serve", log=tmp_path / "log") as client:
        train_newer_model()
        (worker,) = psutil.Process(client.server.pid).children()
        worker.kill()
        worker.wait()
        wait_until(lambda: is_ready(client), client.log)
        response = client.post("/predict", json=EXAMPLE)
    assert response.headers["x-model-tag"] == str(model.tag)


def test_workers_setting_starts_two_workers(model, tmp_path):
    """Each worker is a process of its own."""
    with running_server("bentoml", "serve", log=tmp_path / "log", WORKERS="2") as client:
        assert len(psutil.Process(client.server.pid).children()) == 2
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


@pytest.fixture
def bento_with_model(bento, model, tmp_path):
    """The folder of a Bento that contains its model, as in an image; it needs no model store."""
    path = shutil.copytree(bento.path, tmp_path / "bento")
    BentoModel(model.tag).resolve(path / "models")
    return path


def test_damaged_model_in_image_aborts_the_start(bento_with_model, tmp_path):
    """The supervisor checks the model, before it starts workers that would fail repeatedly."""
    command, home = ("bentoml", "serve", str(bento_with_model)), str(tmp_path / "home")
    with running_server(*command, log=tmp_path / "log", BENTOML_HOME=home) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
    (model_file,) = bento_with_model.rglob("saved_model.pkl")
    model_file.write_bytes(model_file.read_bytes()[:-1])
    failed = run(*command, check=False, BENTOML_HOME=home)
    assert failed.returncode == 1
    assert "is not as train.py saved it" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_missing_model_file_aborts_start_and_build(model, tmp_path):
    """The supervisor checks the model before it starts workers, and the build before it packs."""
    store = shutil.copytree(Path(model.path).parents[1], tmp_path / "models")
    (model_file,) = store.rglob(f"{model.tag.version}/saved_model.pkl")
    model_file.unlink()
    for command in ("serve", "build"):
        failed = run(
            "bentoml", command, check=False, BENTOML_HOME=str(tmp_path), MODEL=str(model.tag)
        )
        assert failed.returncode == 1
        assert "saved_model.pkl: No such file or directory): restore it" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_missing_model_aborts_the_start_with_instructions(tmp_path):
    """The message names the command that trains a model."""
    failed = run("bentoml", "serve", check=False, BENTOML_HOME=str(tmp_path))
    assert failed.returncode == 1
    assert "run `make train`" in failed.stderr
    assert "Traceback" not in failed.stderr
