"""Replicas behind the proxy, for real: deploy/compose.yaml and deploy/rollout.sh."""

import json
import ssl
from contextlib import suppress

import httpx2
import pytest

from house import EXAMPLE
from tests.helpers.commands import ROOT, TUTORIAL_RESPONSE, free_port, is_ready, run, wait_until
from tests.helpers.load import Load, kill_worker

pytestmark = pytest.mark.docker

HTTP, HTTPS, PROMETHEUS = free_port(), free_port(), free_port()
SETTINGS = {
    "COMPOSE_PROJECT_NAME": "house-price-tests",
    "IMAGE": "house_price:test",
    "PUBLISH": f"127.0.0.1:{HTTP}",
    "PUBLISH_TLS": f"127.0.0.1:{HTTPS}",
    "PUBLISH_PROMETHEUS": f"127.0.0.1:{PROMETHEUS}",
}
MONITORED = ["--file", "compose.yaml", "--file", "compose.prometheus.yaml"]
V2 = run("docker", "compose", "version", check=False).returncode == 0


def compose(*arguments, **env):
    """Run Docker Compose, whichever there is, in deploy/; return its output."""
    command = ["docker", "compose"] if V2 else ["docker-compose"]
    done = run(*command, *arguments, cwd=ROOT / "deploy", timeout=600, **SETTINGS | env)
    return done.stdout


class Logs:
    """What all containers have logged."""

    @staticmethod
    def read_text():
        """Return it, as a file's."""
        return compose("logs", "--no-color", "--tail", "50")


def replicas():
    """Return the state of each replica."""
    names = compose("ps", "--quiet", "service").split()
    return json.loads(run("docker", "inspect", *names).stdout)


def all_healthy():
    """Tell whether Docker finds every replica healthy."""
    return all(replica["State"]["Health"]["Status"] == "healthy" for replica in replicas())


@pytest.fixture(scope="module")
def proxy(image):
    """A client of the proxy, once all replicas are ready; without a limit of the rate."""
    try:
        compose("up", "--detach", "--build", RATE_LIMIT="1000000")
        with httpx2.Client(base_url=f"http://127.0.0.1:{HTTP}", timeout=30) as client:
            wait_until(lambda: is_ready(client) and all_healthy(), Logs)
            yield client
    finally:
        compose(*MONITORED, "down", "--volumes")


def test_proxy_gives_the_tutorials_answer(proxy):
    """And the model's tag."""
    answer = proxy.post("/predict", json=EXAMPLE)
    assert answer.json() == TUTORIAL_RESPONSE
    assert answer.headers["x-model-tag"].startswith("house_price:")


KNOWN = ["/", "/static_content/swagger-ui.css", "/docs.json", "/schema.json", "/model", "/readyz"]
UNKNOWN = ["/nowhere", "/metrics", "/metrics/", "//metrics", "/%6detrics", "/predict/../metrics"]


@pytest.mark.parametrize(
    ("path", "status"), [(path, 200) for path in KNOWN] + [(path, 404) for path in UNKNOWN]
)
def test_only_known_paths_pass(path, status, proxy):
    """The metrics are not for everybody, however the path is written."""
    answer = proxy.send(
        proxy.build_request("GET", httpx2.URL(proxy.base_url, raw_path=path.encode()))
    )
    assert answer.status_code == status
    assert "bentoml_service_request" not in answer.text
    if status == 404:
        assert answer.json() == {"message": "Nothing is here; GET / describes the API"}


def test_proxy_refuses_what_is_too_large(proxy):
    """Without reading it."""
    answer = proxy.post("/predict", content=b" " * (2**20 + 1))
    assert answer.status_code == 413
    assert "over 1048576 bytes" in answer.json()["message"]


def test_replicas_are_confined(proxy):
    """Each with a read-only root, no capability, no way out and no published port."""
    for replica in replicas():
        host = replica["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert not host["PortBindings"]
        assert replica["Config"]["User"] == "1034:1034"
        (network,) = replica["NetworkSettings"]["Networks"]
        internal = run("docker", "network", "inspect", "--format", "{{.Internal}}", network)
        assert internal.stdout == "true\n"


def test_stop_of_a_replica_loses_no_request(proxy):
    """What it does not answer any more, another one does."""
    (replica, *others) = replicas()
    assert len(others) == 2
    with Load("127.0.0.1", HTTP, clients=32) as load:
        load.await_answers(500, Logs)
        run("docker", "stop", replica["Id"])
        load.await_answers(500, Logs)
        run("docker", "start", replica["Id"])
        wait_until(all_healthy, Logs)
        load.await_answers(500, Logs)
    assert load.failed == 0


def test_kill_of_a_worker_loses_no_request(proxy):
    """Nor does the wait for the one that replaces it."""
    (replica, *_) = replicas()
    with Load("127.0.0.1", HTTP, clients=32) as load:
        load.await_answers(500, Logs)
        kill_worker(replica["Id"])
        load.await_answers(2000, Logs)
    assert load.failed == 0
    wait_until(all_healthy, Logs)


def test_rollout_loses_no_request(proxy):
    """All replicas are new ones afterwards, and as many as before."""
    before = {replica["Id"] for replica in replicas()}
    with Load("127.0.0.1", HTTP, clients=32) as load:
        load.await_answers(500, Logs)
        run("deploy/rollout.sh", timeout=300, **SETTINGS)
        load.await_answers(500, Logs)
    assert load.failed == 0
    after = {replica["Id"] for replica in replicas()}
    assert len(after) == len(before) == 3
    assert not after & before


def test_https_is_switched_on_by_a_certificate(proxy, tmp_path):
    """With the file that compose.tls.yaml names."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    for folder in [both, *list(both.parents)[:-2]]:
        folder.chmod(0o755)
    files = ["--file", "compose.yaml", "--file", "compose.tls.yaml"]
    compose(
        *files, "up", "--detach", "--no-deps", "proxy", TLS_CERT=str(both), RATE_LIMIT="1000000"
    )
    trusting = ssl.create_default_context(cafile=certificate)
    with httpx2.Client(base_url=f"https://127.0.0.1:{HTTPS}", verify=trusting) as client:
        wait_until(lambda: is_ready(client), Logs)
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE


def test_prometheus_scrapes_every_replica(proxy):
    """Past the proxy, and has the rules."""
    compose(*MONITORED, "up", "--detach", "--build", "--no-deps", "prometheus")
    with httpx2.Client(base_url=f"http://127.0.0.1:{PROMETHEUS}/api/v1/", timeout=30) as client:

        def served():
            with suppress(httpx2.TransportError):
                answer = client.get("query", params={"query": "served_model_info"}).json()
                return len(answer["data"]["result"]) == 3

        wait_until(served, Logs)
        assert "NoReplica" in client.get("rules").text


def test_rate_of_one_address_is_limited(proxy):
    """It is told when to come back."""
    compose("up", "--detach", "--no-deps", "proxy", RATE_LIMIT="10")
    wait_until(lambda: is_ready(proxy), Logs)
    answers = [proxy.post("/predict", json=EXAMPLE) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert answers[-1].headers["retry-after"] == "10"
    assert "Too many requests" in answers[-1].json()["message"]
