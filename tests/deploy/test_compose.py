"""Replicas behind HAProxy in Docker: deploy/compose.yaml and deploy/rollout.sh."""

import json
import ssl
from contextlib import suppress

import httpx2
import pytest

from house import EXAMPLE
from tests.helpers.client_load import Load, kill_worker
from tests.helpers.commands import ROOT, free_port, is_ready, run, wait_until
from tests.helpers.logs import write_log
from tests.helpers.try_page import TryPage
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

pytestmark = [pytest.mark.docker, pytest.mark.slow]  # builds an image, runs replicas

HTTP_PORT, HTTPS_PORT, PROMETHEUS_PORT = free_port(), free_port(), free_port()
SETTINGS = {
    "COMPOSE_PROJECT_NAME": "house-price-tests",
    "IMAGE": "house_price:test",
    "PUBLISH": f"127.0.0.1:{HTTP_PORT}",
    "PUBLISH_TLS": f"127.0.0.1:{HTTPS_PORT}",
    "PUBLISH_PROMETHEUS": f"127.0.0.1:{PROMETHEUS_PORT}",
}
MONITORING_FILES = ["--file", "compose.yaml", "--file", "compose.prometheus.yaml"]
PREDICT = f"""
from urllib.request import Request, urlopen
body = {json.dumps(EXAMPLE)!r}.encode()
headers = {{"Content-Type": "application/json"}}
urlopen(Request("http://127.0.0.1:3000/predict", body, headers))
"""
HAS_COMPOSE_V2 = run("docker", "compose", "version", check=False).returncode == 0


def compose(*arguments, **env):
    """Run Docker Compose, version 2 or 1, in deploy/; return its output."""
    command = ["docker", "compose"] if HAS_COMPOSE_V2 else ["docker-compose"]
    done = run(*command, *arguments, cwd=ROOT / "deploy", timeout=600, **SETTINGS | env)
    return done.stdout


class Logs:
    """The logs of all containers, with the interface of a file."""

    @staticmethod
    def read_text():
        """Return the last 50 lines of each container."""
        return compose("logs", "--no-color", "--tail", "50")


def replicas(**env):
    """Return the `docker inspect` document of each replica."""
    names = compose("ps", "--quiet", "service", **env).split()
    return json.loads(run("docker", "inspect", *names).stdout)


def all_healthy(**env):
    """Return whether the health check of every replica succeeds."""
    return all(replica["State"]["Health"]["Status"] == "healthy" for replica in replicas(**env))


@pytest.fixture(scope="module")
def proxy(image):
    """A client of the proxy, with all replicas healthy and a rate limit that no test reaches."""
    try:
        compose("up", "--detach", "--build", RATE_LIMIT="1000000")
        with httpx2.Client(base_url=f"http://127.0.0.1:{HTTP_PORT}", timeout=30) as client:
            wait_until(lambda: is_ready(client) and all_healthy(), Logs, seconds=120)
            yield client
    finally:
        compose(*MONITORING_FILES, "down", "--volumes")


def test_proxy_forwards_predictions(proxy):
    """The response has the tutorial's prediction, and the model tag in a header."""
    response = proxy.post("/predict", json=EXAMPLE)
    assert response.json() == TUTORIAL_RESPONSE
    assert response.headers["x-model-tag"].startswith("house_price:")


EXPOSED_PATHS = [
    "/",
    "/static_content/swagger-ui.css",
    "/try",
    "/try/main.js",
    "/docs.json",
    "/schema.json",
    "/model",
    "/readyz",
]
BLOCKED_PATHS = [
    "/nowhere",
    "/metrics",
    "/metrics/",
    "//metrics",
    "/%6detrics",
    "/predict/../metrics",
]


@pytest.mark.parametrize(
    ("path", "status"),
    [(path, 200) for path in EXPOSED_PATHS] + [(path, 404) for path in BLOCKED_PATHS],
)
def test_proxy_forwards_only_exposed_paths(path, status, proxy):
    """Metrics are not public, whatever the spelling of the path."""
    response = proxy.send(
        proxy.build_request("GET", httpx2.URL(proxy.base_url, raw_path=path.encode()))
    )
    assert response.status_code == status
    assert "bentoml_service_request" not in response.text
    if status == 404:
        assert response.json() == {"message": "Nothing is here; GET / describes the API"}


def test_page_predicts_behind_the_proxy(proxy, browser):
    """The proxy forwards the requests for all curves."""
    page = TryPage(browser, proxy.base_url)
    assert page.prediction() == TUTORIAL_PREDICTION
    page.move_slider("RM", 7)
    expected = proxy.post("/predict", json=EXAMPLE | {"RM": 7}).json()
    assert {"prediction": page.prediction()} == expected
    assert browser.get_log("browser") == []


def test_proxy_removes_forged_headers(proxy):
    """A client can't forge the address in `/docs.json`."""
    forged = {
        "X-Forwarded-Host": "other.example",
        "X-Forwarded-Prefix": "/other",
        "X-Forwarded-Proto": "https",
    }
    document = proxy.get("/docs.json", headers=forged).json()
    assert document["servers"] == [{"url": str(proxy.base_url).rstrip("/")}]


def test_proxy_rejects_oversized_body_with_413(proxy):
    """The proxy checks Content-Length, and sends the same message as the service."""
    response = proxy.post("/predict", content=b" " * (2**20 + 1))
    assert response.status_code == 413
    assert "over 1048576 bytes" in response.json()["message"]


def test_replicas_run_without_privileges(proxy):
    """Each has a read-only root, no capability, only an internal network and no public port."""
    for replica in replicas():
        host = replica["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert not host["PortBindings"]
        assert replica["Config"]["User"] == "1034:1034"
        (network,) = replica["NetworkSettings"]["Networks"]
        is_internal = run("docker", "network", "inspect", "--format", "{{.Internal}}", network)
        assert is_internal.stdout == "true\n"


def test_stopping_a_replica_loses_no_request(proxy):
    """While a replica shuts down, the proxy retries requests on the others."""
    (replica, *others) = replicas()
    assert len(others) == 2
    with Load("127.0.0.1", HTTP_PORT, clients=32) as load:
        load.await_answers(500, Logs)
        run("docker", "stop", replica["Id"])
        load.await_answers(500, Logs)
        run("docker", "start", replica["Id"])
        wait_until(all_healthy, Logs, seconds=120)
        load.await_answers(500, Logs)
    assert load.failed == 0


def test_killing_a_worker_loses_no_request(proxy):
    """The proxy uses the other replicas until the worker is replaced.

    In one of four runs it closed one or two of the kept-alive connections without a response.
    """
    (replica, *_) = replicas()
    with Load("127.0.0.1", HTTP_PORT, clients=32, resend=True) as load:
        load.await_answers(500, Logs)
        kill_worker(replica["Id"])
        load.await_answers(2000, Logs)
    assert load.failed == 0
    assert load.resent <= 3
    wait_until(all_healthy, Logs, seconds=120)


def test_rollout_loses_no_request(proxy):
    """Afterwards all replicas are new, and their number is the same."""
    before = {replica["Id"] for replica in replicas()}
    with Load("127.0.0.1", HTTP_PORT, clients=32) as load:
        load.await_answers(500, Logs)
        run("deploy/rollout.sh", timeout=300, **SETTINGS)
        load.await_answers(500, Logs)
    assert load.failed == 0
    after = {replica["Id"] for replica in replicas()}
    assert len(after) == len(before) == 3
    assert not after & before


def test_rollout_replays_the_log_with_the_model_of_the_image(proxy, model, tmp_path):
    """A log whose predictions differ from the model's stops the rollout before it begins."""
    before = {replica["Id"] for replica in replicas()}
    write_log(tmp_path, EXAMPLE, [([list(EXAMPLE.values())], [99.0])], tag=str(model.tag))
    done = run("deploy/rollout.sh", check=False, **SETTINGS, REPLAY_LOG=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert f"replayed with {model.tag}" in done.stdout
    assert {replica["Id"] for replica in replicas()} == before


def test_prediction_log_file_gives_each_replica_a_folder(image, tmp_path):
    """The name of the folder is that of the container."""
    tmp_path.chmod(0o777)  # the replicas run as another user
    env = {
        "COMPOSE_PROJECT_NAME": "house-price-log-tests",
        "COMPOSE_FILE": "compose.yaml:compose.prediction-log.yaml",
        "LOG_FOLDER": str(tmp_path),
        "REPLICAS": "2",
    }
    try:
        compose("up", "--detach", "service", **env)
        wait_until(lambda: all_healthy(**env), Logs, seconds=120)
        names = {replica["Id"][:12] for replica in replicas(**env)}
        for name in names:
            run("docker", "exec", name, "python", "-c", PREDICT)
        wait_until(lambda: {log.parent.name for log in tmp_path.glob("*/*.jsonl")} == names, Logs)
    finally:
        compose("down", **env)


def test_compose_tls_file_enables_https(proxy, tmp_path):
    """TLS_CERT is a PEM file with the certificate and its key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)  # fmt: skip
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(certificate.read_text() + key.read_text())
    for path in [bundle, *list(bundle.parents)[:-2]]:
        path.chmod(0o755)  # the proxy runs as another user
    files = ["--file", "compose.yaml", "--file", "compose.tls.yaml"]
    compose(
        *files, "up", "--detach", "--no-deps", "proxy", TLS_CERT=str(bundle), RATE_LIMIT="1000000"
    )
    context = ssl.create_default_context(cafile=certificate)
    with httpx2.Client(base_url=f"https://127.0.0.1:{HTTPS_PORT}", verify=context) as client:
        wait_until(lambda: is_ready(client), Logs)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_prometheus_scrapes_every_replica(proxy):
    """It finds the replicas directly, not through the proxy, and loads the alert rules."""
    compose(*MONITORING_FILES, "up", "--detach", "--build", "--no-deps", "prometheus")
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/", timeout=30
    ) as client:

        def all_scraped():
            with suppress(httpx2.TransportError):
                response = client.get("query", params={"query": "served_model_info"}).json()
                return len(response["data"]["result"]) == 3

        wait_until(all_scraped, Logs)
        assert "NoReplica" in client.get("rules").text


def test_requests_over_the_rate_limit_get_429(proxy):
    """The limit is per client address; the response has Retry-After."""
    compose("up", "--detach", "--no-deps", "proxy", RATE_LIMIT="10")
    wait_until(lambda: is_ready(proxy), Logs)
    responses = [proxy.post("/predict", json=EXAMPLE) for _ in range(20)]
    assert {response.status_code for response in responses} == {200, 429}
    assert responses[-1].headers["retry-after"] == "10"
    assert "Too many requests" in responses[-1].json()["message"]
