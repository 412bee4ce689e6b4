"""The manifests of `deploy/kubernetes`: what Kubernetes takes, and true of the image."""

import copy
import re
from pathlib import PurePosixPath

import kubernetes_validate
import pytest
import yaml
from bentoml._internal.container.generate import BENTO_UID_GID
from bentoml._internal.utils.analytics.usage_stats import BENTOML_DO_NOT_TRACK
from prometheus_client.parser import text_string_to_metric_families

from serving.settings import Settings
from tests.helpers.commands import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST = re.search(r"Kubernetes ([\d.]+)", (FOLDER / "kustomization.yaml").read_text())[1]


def load(name):
    """Return the content of a file in the folder."""
    return yaml.safe_load((FOLDER / name).read_text())


FILES = {path.name: load(path.name) for path in FOLDER.glob("*.yaml")}
KUSTOMIZATION = FILES.pop("kustomization.yaml")
MANIFESTS = {manifest["kind"]: manifest for manifest in FILES.values()}
NAME = MANIFESTS["Deployment"]["metadata"]["name"]
DEPLOYMENT = MANIFESTS["Deployment"]["spec"]
AUTOSCALER = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
(INGRESS,) = MANIFESTS["Ingress"]["spec"]["rules"]
LABELS = DEPLOYMENT["template"]["metadata"]["labels"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
(PORT,) = CONTAINER["ports"]
ENV = {variable["name"]: variable.get("value", "") for variable in CONTAINER["env"]}
OURS = {name for name in ENV if name.lower() in Settings.model_fields}
SETTINGS = Settings(**{name.lower(): ENV[name] for name in OURS})
MEMORY_AT_REST = 280  # MiB, of the supervisor and a worker


def mebibytes(quantity):
    """Return a quantity of memory in MiB."""
    return int(quantity.removesuffix("Mi"))


@pytest.fixture
def requests_in_progress():
    """The autoscaler, patched by the component of that name."""
    (patch,) = load("requests-in-progress/kustomization.yaml")["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("add", "/spec/metrics/-")
    autoscaler = copy.deepcopy(MANIFESTS[patch["target"]["kind"]])
    autoscaler["spec"]["metrics"].append(operation["value"])
    return autoscaler


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_are_valid(kind, version):
    """By the strict schemas of the oldest Kubernetes that we name, and of a new one."""
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_component_gives_a_valid_autoscaler(requests_in_progress):
    """Beside the metric that it had."""
    kubernetes_validate.validate(requests_in_progress, OLDEST, strict=True)


def test_kustomization_lists_every_file():
    """What is not listed is not applied."""
    assert sorted(KUSTOMIZATION["resources"]) == sorted(FILES)
    assert len(MANIFESTS) == len(FILES)


def test_image_is_named_in_the_kustomization():
    """For there it gets its registry and its tag."""
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [CONTAINER["image"]]


def test_manifests_go_into_any_namespace():
    """`kubectl apply -k --namespace` says which."""
    assert "namespace" not in KUSTOMIZATION
    assert not [kind for kind in MANIFESTS if "namespace" in MANIFESTS[kind]["metadata"]]


@pytest.mark.parametrize(
    "selector",
    [
        DEPLOYMENT["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in POD["topologySpreadConstraints"]),
    ],
)
def test_selector_selects_the_pods(selector):
    """An empty one would select all Pods of the namespace."""
    assert selector
    assert selector.items() <= LABELS.items()


def test_port_is_that_of_the_service():
    """And each manifest means it when it says `http`."""
    assert (PORT["name"], PORT["containerPort"]) == ("http", SETTINGS.port)
    (service,) = MANIFESTS["Service"]["spec"]["ports"]
    assert (service["name"], service["targetPort"]) == ("http", "http")
    (rule,) = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http"}]


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")],
)
def test_probe_asks_what_the_service_answers(probe, path, client):
    """Under the port's name."""
    assert CONTAINER[probe]["httpGet"] == {"path": path, "port": "http"}
    assert client.get(path).status_code == 200


def test_prometheus_is_told_where_the_metrics_are(client):
    """By the annotations of the Pods."""
    annotations = DEPLOYMENT["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(SETTINGS.port)
    assert "bentoml_service" in client.get(annotations["prometheus.io/path"]).text


def test_variables_are_settings_or_bentomls():
    """One that nobody reads would be a mistake that nobody sees."""
    assert ENV.keys() - OURS == {"BENTOML_HOME", BENTOML_DO_NOT_TRACK}
    assert ENV[BENTOML_DO_NOT_TRACK] == "true"


def test_container_has_one_worker():
    """What is requested, probed and scaled is one; more replicas make more workers."""
    assert SETTINGS.workers == 1


def test_user_is_bentomls():
    """The image has its name, of which Kubernetes cannot tell that it is not root's."""
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (BENTO_UID_GID, BENTO_UID_GID)


def test_pod_has_no_privileges():
    """As the Pod Security Standard `restricted` wants it, and no token for the API."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"]["allowPrivilegeEscalation"] is False
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False


def test_only_what_is_written_to_is_writable():
    """Temporary files, and BentoML's home among them; they end with the Pod."""
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    (mount,) = CONTAINER["volumeMounts"]
    (volume,) = POD["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/tmp"}  # noqa: S108
    assert volume["emptyDir"]["medium"] == "Memory"
    assert PurePosixPath(ENV["BENTOML_HOME"]).is_relative_to(mount["mountPath"])


def test_worker_has_a_core_and_is_never_throttled():
    """A limit of CPU would be one on the slowest answers."""
    assert float(CONTAINER["resources"]["requests"]["cpu"]) >= 1
    assert "cpu" not in CONTAINER["resources"]["limits"]


def test_memory_is_enough_for_all_requests_at_once():
    """Each with the largest body and its records, as large again, and with the volume full."""
    resources = CONTAINER["resources"]
    (volume,) = POD["volumes"]
    bodies = SETTINGS.max_concurrency * SETTINGS.max_body_bytes / 2**20
    most = MEMORY_AT_REST + 2 * bodies + mebibytes(volume["emptyDir"]["sizeLimit"])
    assert mebibytes(resources["limits"]["memory"]) >= most
    assert mebibytes(resources["requests"]["memory"]) >= MEMORY_AT_REST


def test_requests_in_progress_may_end():
    """The kill comes after the wait for the proxies and the wait for the requests."""
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > wait + SETTINGS.shutdown_timeout


def test_rollout_takes_no_pod_away_before_its_successor_is_ready():
    """So that there are never too few."""
    assert DEPLOYMENT["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_disruption_leaves_a_pod():
    """Of the fewest that the autoscaler keeps."""
    budget = MANIFESTS["PodDisruptionBudget"]["spec"]
    assert 1 <= budget["maxUnavailable"] < AUTOSCALER["minReplicas"]


def test_autoscaler_alone_decides_on_the_replicas():
    """Those of the Deployment, which must name no number of its own."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert AUTOSCALER["scaleTargetRef"] == target
    assert "replicas" not in DEPLOYMENT


def test_autoscaler_asks_for_metrics_that_there_are(requests_in_progress, live):
    """CPU, a share of what is requested; and a series that the service has, per Pod."""
    of_cpu, of_pods = requests_in_progress["spec"]["metrics"]
    assert of_cpu["resource"]["name"] in CONTAINER["resources"]["requests"]
    families = text_string_to_metric_families(live.get("/metrics").text)
    gauges = {family.name for family in families if family.type == "gauge"}
    assert of_pods["pods"]["metric"]["name"] in gauges


def test_network_is_closed_but_for_named_namespaces():
    """Out, to all."""
    policy = MANIFESTS["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    for peer in rule["from"]:
        (label,) = peer["namespaceSelector"]["matchLabels"]
        assert label == "kubernetes.io/metadata.name"


def exposed(path):
    """Tell whether the Ingress lets a path through."""
    return any(
        path == rule["path"]
        or (rule["pathType"] == "Prefix" and PurePosixPath(path).is_relative_to(rule["path"]))
        for rule in INGRESS["http"]["paths"]
    )


def test_ingress_exposes_what_is_for_callers(client):
    """Every endpoint of the service, but for its probes and metrics."""
    edge = client.app
    inside = {"/metrics", *edge.unlogged}
    endpoints = edge.endpoints - {""}
    assert inside < endpoints
    assert {path for path in endpoints if exposed(path)} == endpoints - inside


def test_ingress_exposes_what_swagger_ui_loads(client):
    """From the service itself."""
    loads = re.findall(r'"(static_content/[^"]+)"', client.get("/").text)
    assert len(loads) >= 3
    for path in loads:
        assert exposed(f"/{path}")
        assert client.get(f"/{path}").status_code == 200


def test_ingress_leads_to_the_service():
    """Over TLS, for its one host."""
    assert MANIFESTS["Service"]["metadata"]["name"] == NAME
    for path in INGRESS["http"]["paths"]:
        assert path["backend"] == {"service": {"name": NAME, "port": {"name": "http"}}}
    (tls,) = MANIFESTS["Ingress"]["spec"]["tls"]
    assert tls["hosts"] == [INGRESS["host"]]


def test_ingress_leaves_the_limit_of_the_body_to_the_service():
    """For its refusal is JSON, as every error."""
    limits = MANIFESTS["Ingress"]["metadata"]["annotations"].values()
    assert min(int(limit.removesuffix("m")) for limit in limits) << 20 > SETTINGS.max_body_bytes
