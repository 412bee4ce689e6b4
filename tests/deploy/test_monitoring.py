"""Prometheus scrapes the service, and evaluates the alerts and the dashboard's queries."""

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

pytestmark = pytest.mark.slow  # needs Prometheus

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
def prometheus_installed():
    """Outside CI, skip the test if Prometheus is not installed."""
    if not shutil.which("prometheus") and "CI" not in os.environ:
        pytest.skip("Prometheus is not installed")


@contextmanager
def load(address):
    """Send REQUESTS over four connections until the end of the block."""
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
    """A client of a service under load, with two workers, MAX_CONCURRENCY=1 and an API key."""
    log = tmp_path_factory.mktemp("service") / "log"
    env = {"API_KEYS": KEY, "WORKERS": "2", "MAX_CONCURRENCY": "1"}
    with running_server("bentoml", "serve", log=log, **env) as client, load(str(client.base_url)):
        yield client


@pytest.fixture(scope="module")
def prometheus(prometheus_installed, service, tmp_path_factory):
    """A client of Prometheus; only target, key and intervals differ from deploy/prometheus."""
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
            wait_until(lambda: query_values(client, "up") == [1], client.log)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=30)


def query_values(prometheus, query):
    """Return the current values of a query without NaN; none if Prometheus does not listen yet."""
    with suppress(httpx2.TransportError):
        response = prometheus.get("query", params={"query": query})
        if response.status_code == 200:
            values = [float(series["value"][1]) for series in response.json()["data"]["result"]]
            return [value for value in values if not math.isnan(value)]
        if response.status_code == 400:
            pytest.fail(response.text)
    return []


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_panel_has_data_under_load(query, prometheus):
    """The query returns a value, with Grafana's variables replaced."""
    query = query.replace("$__rate_interval", "10s").replace("$job", "house_price")
    wait_until(lambda: query_values(prometheus, query), prometheus.log)


def test_dashboard_has_only_fields_that_grafana_knows():
    """Grafana's model of a dashboard drops unknown fields."""
    parsed = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert json_paths(DASHBOARD) <= json_paths(parsed)


def json_paths(value, path=()):
    """Return the path of each value in a JSON document."""
    parts = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        parts = [("[]", part) for part in value]
    return {path}.union(*(json_paths(part, (*path, name)) for name, part in parts))


def test_dashboard_uses_exactly_its_variables(prometheus):
    """The choices for the variable of the job are the jobs that serve a model."""
    (source, job) = DASHBOARD["templating"]["list"]
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) == {
        source["name"],
        job["name"],
        "__rate_interval",
    }
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", job["query"]).groups()
    response = prometheus.get("series", params={"match[]": metric}).json()
    assert [series[label] for series in response["data"]] == ["house_price"]


def test_panels_have_distinct_ids_and_positions():
    """Grafana identifies a panel by its ID. Panels at one position would overlap."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", ALERTS)
def test_alert_uses_existing_series(name, prometheus):
    """With thresholds of 0 its expression has a value; with a wrong name it would have none."""
    query = re.sub(r"(==|>) (?=\w)", ">= bool 0 * ", ALERTS[name]["expr"])
    assert query != ALERTS[name]["expr"]
    wait_until(lambda: query_values(prometheus, query), prometheus.log)


def test_prometheus_evaluates_all_alerts(prometheus):
    """Each rule has the health `ok`."""

    def rule_health():
        (group,) = prometheus.get("rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for rule in group["rules"]}

    wait_until(lambda: "unknown" not in rule_health().values(), prometheus.log)
    assert rule_health() == dict.fromkeys(ALERTS, "ok")


@pytest.mark.parametrize("name", ALERTS)
def test_alert_has_severity_summary_action_and_delay(name):
    """The action says what to do; the delay ignores short disturbances."""
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "action"}
    assert rule["for"]


@pytest.mark.parametrize(
    "command",
    [
        ("test", "rules", "alerts.test.yaml"),
        ("check", "config", "prometheus.yaml"),
        # Without --syntax-only, promtool would look for the key, which Compose mounts.
        ("check", "config", "--syntax-only", "compose.yaml"),
    ],
    ids=["rule tests", "prometheus.yaml", "compose.yaml"],
)
def test_promtool_accepts_files(command, prometheus_installed):
    """Promtool passes the tests of the rules, and finds no error in the configurations."""
    run("promtool", *command, cwd=FOLDER)


def test_every_alert_fires_in_a_rule_test():
    """The rule tests, which promtool runs, expect it to fire at least once."""
    tests = (FOLDER / "alerts.test.yaml").read_text()
    assert all(f'{{alertname="{name}"}}' in tests for name in ALERTS)
