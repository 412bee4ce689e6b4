"""Prometheus itself scrapes the service, and evaluates what deploy/ has for it and for Grafana."""

import json
import math
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager, suppress

import httpx2
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from house import EXAMPLE
from tests.helpers.commands import ROOT, free_port, run, running_server, wait_until

DEPLOY = ROOT / "deploy"
FOLDER = DEPLOY / "prometheus"
KEY = "the-key-of-prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
QUERIES = {
    f"{panel['title']}, {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
(GROUP,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
REQUESTS = [
    ("/predict", EXAMPLE),
    ("/predict", EXAMPLE | {"RM": 50}),
    ("/predict", {"POOL": True}),
    ("/predict_batch", [EXAMPLE] * 100),
]


@pytest.fixture(scope="module")
def installed():
    """Prometheus: CI has it, elsewhere the tests that need it are skipped without."""
    if not shutil.which("prometheus") and "CI" not in os.environ:
        pytest.skip("Prometheus is not installed")


@contextmanager
def load(address):
    """Send all kinds of requests over a few connections, until the end of the block."""
    stopping = threading.Event()

    def send():
        with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}) as client:
            while not stopping.is_set():
                for path, body in REQUESTS:
                    client.post(path, json=body)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    """A client of two workers under load, which want a key and take one request at a time."""
    log = tmp_path_factory.mktemp("service") / "log"
    env = {"API_KEYS": KEY, "WORKERS": "2", "MAX_CONCURRENCY": "1"}
    with running_server("bentoml", "serve", log=log, **env) as client, load(str(client.base_url)):
        yield client


@pytest.fixture(scope="module")
def prometheus(installed, service, tmp_path_factory):
    """A client of Prometheus with our configuration, but for the address, the key and the pace."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{service.base_url.port}"]}]
    job["authorization"] = {"credentials": KEY}
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    options = {"config.file": "config.yaml", "storage.tsdb.path": "data"}
    options |= {"web.listen-address": address}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())],  # noqa: S607
            cwd=folder,
            stderr=log,
        )
    try:
        with httpx2.Client(base_url=f"http://{address}/api/v1/", timeout=30) as client:
            client.log = folder / "log"
            wait_until(lambda: values(client, "up") == [1], client.log)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=30)


def values(prometheus, query):
    """Return the values, but for NaN, that a query has now; none before Prometheus listens."""
    with suppress(httpx2.TransportError):
        answer = prometheus.get("query", params={"query": query})
        if answer.status_code == 200:
            found = [float(series["value"][1]) for series in answer.json()["data"]["result"]]
            return [value for value in found if not math.isnan(value)]
        if answer.status_code == 400:
            pytest.fail(answer.text)
    return []


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_panel_has_data_under_load(query, prometheus):
    """As Grafana would ask for it."""
    query = query.replace("$__rate_interval", "10s").replace("$job", "house_price")
    wait_until(lambda: values(prometheus, query), prometheus.log)


def test_dashboard_is_what_grafana_takes():
    """Its models know all that the dashboard says: what they do not know, they leave out."""
    taken = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert paths(DASHBOARD) <= paths(taken)


def paths(value, path=()):
    """Return where each value of a JSON document is."""
    parts = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        parts = [("[]", part) for part in value]
    return {path}.union(*(paths(part, (*path, name)) for name, part in parts))


def test_variables_of_the_dashboard_are_those_that_it_asks_for(prometheus):
    """The job is one that serves a model."""
    (source, job) = DASHBOARD["templating"]["list"]
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) == {
        source["name"],
        job["name"],
        "__rate_interval",
    }
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", job["query"]).groups()
    answer = prometheus.get("series", params={"match[]": metric}).json()
    assert [series[label] for series in answer["data"]] == ["house_price"]


def test_panels_do_not_overlap():
    """Each has an identity and a place of its own."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", ALERTS)
def test_alert_looks_at_series_that_there_are(name, prometheus):
    """It would have a value if its thresholds were 0: one on a wrong name never fires."""
    query = re.sub(r"(==|>) (?=\w)", ">= bool 0 * ", ALERTS[name]["expr"])
    assert query != ALERTS[name]["expr"]
    wait_until(lambda: values(prometheus, query), prometheus.log)


def test_alerts_are_evaluated(prometheus):
    """All of them, without an error."""

    def health():
        (group,) = prometheus.get("rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for rule in group["rules"]}

    wait_until(lambda: "unknown" not in health().values(), prometheus.log)
    assert health() == dict.fromkeys(ALERTS, "ok")


@pytest.mark.parametrize("name", ALERTS)
def test_alert_tells_what_to_do(name):
    """And how bad it is, and it waits before it wakes somebody."""
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "action"}
    assert rule["for"]


@pytest.mark.parametrize(
    "command",
    [
        ("test", "rules", "alerts.test.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("check", "config", "--syntax-only", "compose.yaml"),  # the key is mounted beside it
    ],
)
def test_promtool_passes(command, installed):
    """The tests of the rules, and the configurations."""
    run("promtool", *command, cwd=FOLDER)


def test_every_alert_has_a_test():
    """In which it fires."""
    tests = (FOLDER / "alerts.test.yaml").read_text()
    assert all(f'{{alertname="{name}"}}' in tests for name in ALERTS)
