"""The contract over HTTP: one server for all tests, and one with API keys."""

import json
import re
import socket
from pathlib import Path

import bentoml
import httpx2
import psutil
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from house import EXAMPLE
from serving.http.auth import BASIC_CHALLENGE
from tests.helpers import service_checks
from tests.helpers.commands import is_ready, run, running_server, wait_until
from tests.helpers.json_lines import read_json_lines
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

KEYS = ("first-key-of-the-tests", "second-key-of-the-tests")


def test_example_record_gets_the_tutorials_prediction(live):
    """The prediction over HTTP equals the one that the tutorial publishes."""
    assert live.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_concurrent_requests_are_batched(live):
    """64 single records, sent at the same moment, need at most 16 batches."""
    service_checks.check_concurrent_requests_are_batched(live, EXAMPLE)


def test_concurrent_requests_get_their_own_predictions(live, model):
    """Valid and invalid records and arrays are sent at the same moment."""
    houses = [EXAMPLE | {"RM": 3 + n / 50, "LSTAT": n % 30} for n in range(300)]
    estimator = bentoml.sklearn.load_model(model)
    expected = estimator.predict([list(house.values()) for house in houses]).tolist()
    service_checks.check_concurrent_requests_do_not_mix(live, houses, expected, "AGE")


def test_arrays_split_across_batches_keep_their_order(live):
    """A batch holds 1000 records, so that a second array of 700 is split between two batches."""
    service_checks.check_order_is_kept(live, [EXAMPLE | {"RM": 3 + n / 100} for n in range(700)])


def test_bentomls_python_client_calls_both_apis(live):
    """The client sends a record to `predict`, and a list of records to `predict_batch`."""
    service_checks.check_bentomls_client(live, EXAMPLE, TUTORIAL_PREDICTION)


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


def count_traffic(client):
    """Return the number of predictions, of values outside the range, and of what-if records."""
    families = "prediction_value", "feature_outside_training_range", "what_if_records"
    return [
        sum(
            sample.value
            for sample in service_checks.samples(client, family)
            if sample.name.endswith(("_count", "_total"))
        )
        for family in families
    ]


@pytest.mark.parametrize(
    ("headers", "increase"),
    [({}, [3, 1, 0]), ({"X-What-If": "true"}, [0, 0, 3])],
    ids=["traffic", "what-if"],
)
def test_what_if_records_are_counted_separately(live, headers, increase):
    """They are predicted like other records, but no other metric of records counts them."""
    before = count_traffic(live)
    assert live.post("/predict", json=EXAMPLE, headers=headers).json() == TUTORIAL_RESPONSE
    outside = [EXAMPLE, EXAMPLE | {"RM": 50}]
    assert live.post("/predict_batch", json=outside, headers=headers).status_code == 200
    after = count_traffic(live)
    assert [b - a for a, b in zip(before, after, strict=True)] == increase


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


@pytest.mark.parametrize(
    ("path", "status"),
    [("/try", 200), ("/try/main.js", 200), ("/try/%2e%2e/model", 404), ("/try/..%2fmodel", 404)],
)
def test_try_page_needs_no_key(protected, path, status):
    """Its files contain no data of the service, and its path leads to no other path."""
    url = httpx2.URL(protected.base_url, raw_path=path.encode())
    assert protected.send(protected.build_request("GET", url)).status_code == status


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


@pytest.mark.slow  # builds a Bento
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


def test_each_line_on_standard_output_is_json_if_configured(model, tmp_path):
    """This includes lines about the start, a warning and a dead worker."""
    log = tmp_path / "log"
    env = {"ACCESS_LOG": "json", "ACESS_LOG": "text"}
    with running_server("bentoml", "serve", "--api-workers", "2", log=log, **env) as client:
        client.post("/predict", json=EXAMPLE)
        wait_until(lambda: "/predict" in log.read_text(), log)
        (worker,) = psutil.Process(client.server.pid).children()
        worker.kill()
        wait_until(lambda: "starting a replacement" in log.read_text() and is_ready(client), log)
    entries = read_json_lines(log)
    assert any(entry.get("path") == "/predict" for entry in entries)
    messages = [entry["message"] for entry in entries if "message" in entry]
    assert "ACESS_LOG is not a setting; did you mean ACCESS_LOG?" in messages
    assert any("Worker was killed by signal 9" in message for message in messages)


def test_options_of_bentoml_without_effect_are_logged(model, tmp_path):
    """They may be on the command line, in the environment and in BentoML's configuration."""
    log = tmp_path / "log"
    options = "services.traffic.timeout=30 services.logging.access.enabled=false"
    env = {"BENTOML_CONFIG_OPTIONS": options, "BENTOML_API_WORKERS": "2"}
    with running_server("bentoml", "serve", "--timeout", "9", log=log, **env):
        pass
    warnings = re.findall(r"(\S+) has no effect on this service: set (.*)", log.read_text())
    assert warnings == [
        ("--api-workers", "WORKERS"),
        ("--timeout", "REQUEST_TIMEOUT"),
        ("traffic.timeout", "REQUEST_TIMEOUT or MAX_CONCURRENCY"),
        ("logging.access.enabled", "ACCESS_LOG"),
    ]
