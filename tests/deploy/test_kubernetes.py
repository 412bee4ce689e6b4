"""The manifests of deploy/kubernetes: valid for Kubernetes, and consistent with the service."""

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
OLDEST_VERSION = re.search(r"Kubernetes ([\d.]+)", (FOLDER / "kustomization.yaml").read_text())[1]


def load(name):
    """Return the content of a YAML file of the folder."""
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
ENV_SETTINGS = {name for name in ENV if name.lower() in Settings.model_fields}
SETTINGS = Settings(**{name.lower(): ENV[name] for name in ENV_SETTINGS})
MEMORY_AT_REST = 160  # MiB, of the supervisor and a worker


def mebibytes(quantity):
    """Return a quantity of memory in MiB."""
    return int(quantity.removesuffix("Mi"))


@pytest.fixture
def autoscaler_with_component():
    """The autoscaler, patched by the component requests-in-progress."""
    (patch,) = load("requests-in-progress/kustomization.yaml")["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("add", "/spec/metrics/-")
    autoscaler = copy.deepcopy(MANIFESTS[patch["target"]["kind"]])
    autoscaler["spec"]["metrics"].append(operation["value"])
    return autoscaler


@pytest.mark.parametrize("version", [OLDEST_VERSION, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifest_is_valid(kind, version):
    """Validate with the schemas of the oldest supported Kubernetes version, and of the newest."""
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_component_makes_a_valid_autoscaler(autoscaler_with_component):
    """The component adds a metric to the one for the CPU."""
    kubernetes_validate.validate(autoscaler_with_component, OLDEST_VERSION, strict=True)


def test_kustomization_lists_every_file():
    """`kubectl apply -k` ignores other files."""
    assert sorted(KUSTOMIZATION["resources"]) == sorted(FILES)
    assert len(MANIFESTS) == len(FILES)


def test_kustomization_sets_the_image():
    """It sets the registry and the tag of the image that the Deployment names."""
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [CONTAINER["image"]]


def test_manifests_set_no_namespace():
    """The user chooses it with `kubectl apply -k --namespace`."""
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
    ids=["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "host", "zone"],
)
def test_selector_matches_the_pods(selector):
    """An empty selector would match all Pods of the namespace."""
    assert selector
    assert selector.items() <= LABELS.items()


def test_manifests_use_the_port_of_the_service():
    """They refer to the container's port by its name, `http`."""
    assert (PORT["name"], PORT["containerPort"]) == ("http", SETTINGS.port)
    (service,) = MANIFESTS["Service"]["spec"]["ports"]
    assert (service["name"], service["targetPort"]) == ("http", "http")
    (rule,) = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http"}]


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")],
)
def test_probe_path_exists(probe, path, client):
    """The probe uses the name of the port, and the service responds with 200."""
    assert CONTAINER[probe]["httpGet"] == {"path": path, "port": "http"}
    assert client.get(path).status_code == 200


def test_annotations_point_prometheus_to_the_metrics(client):
    """The annotations of the Pods name the port and the path of the metrics."""
    annotations = DEPLOYMENT["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(SETTINGS.port)
    assert "bentoml_service" in client.get(annotations["prometheus.io/path"]).text


def test_environment_contains_only_known_variables():
    """A misspelled variable would have no effect, and go unnoticed."""
    assert ENV.keys() - ENV_SETTINGS == {"BENTOML_HOME", BENTOML_DO_NOT_TRACK}
    assert ENV[BENTOML_DO_NOT_TRACK] == "true"


def test_container_has_one_worker():
    """Resources, probes and the autoscaler are for one worker; replicas add more."""
    assert SETTINGS.workers == 1


def test_user_id_is_that_of_bentomls_user():
    """The image has only the user's name; Kubernetes needs the ID to check that it is not root."""
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (BENTO_UID_GID, BENTO_UID_GID)


def test_pod_has_no_privileges():
    """It meets the Pod Security Standard `restricted`, and has no token for the Kubernetes API."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"]["allowPrivilegeEscalation"] is False
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False


def test_only_temporary_folder_is_writable():
    """BENTOML_HOME is in it; the folder is deleted with the Pod."""
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    (mount,) = CONTAINER["volumeMounts"]
    (volume,) = POD["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/tmp"}  # noqa: S108
    assert volume["emptyDir"]["medium"] == "Memory"
    assert PurePosixPath(ENV["BENTOML_HOME"]).is_relative_to(mount["mountPath"])


def test_worker_has_a_core_and_no_cpu_limit():
    """Throttling by a CPU limit would make the slowest responses slower."""
    assert float(CONTAINER["resources"]["requests"]["cpu"]) >= 1
    assert "cpu" not in CONTAINER["resources"]["limits"]


def test_memory_limit_fits_maximum_concurrency():
    """Each request has the largest body, and records of that size again; the volume is full."""
    resources = CONTAINER["resources"]
    (volume,) = POD["volumes"]
    bodies = SETTINGS.max_concurrency * SETTINGS.max_body_bytes / 2**20
    required = MEMORY_AT_REST + 2 * bodies + mebibytes(volume["emptyDir"]["sizeLimit"])
    assert mebibytes(resources["limits"]["memory"]) >= required
    assert mebibytes(resources["requests"]["memory"]) >= MEMORY_AT_REST


def test_grace_period_covers_graceful_shutdown():
    """Kubernetes kills the Pod only after the preStop wait and SHUTDOWN_TIMEOUT."""
    pre_stop = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > pre_stop + SETTINGS.shutdown_timeout


def test_rollout_stops_no_pod_before_its_replacement_is_ready():
    """The number of ready Pods never falls below the number of replicas."""
    assert DEPLOYMENT["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_disruption_budget_keeps_a_pod():
    """At least one Pod of the autoscaler's minimum remains."""
    budget = MANIFESTS["PodDisruptionBudget"]["spec"]
    assert 1 <= budget["maxUnavailable"] < AUTOSCALER["minReplicas"]


def test_only_the_autoscaler_sets_the_number_of_replicas():
    """With `replicas` in the Deployment, each apply would undo the autoscaler's decision."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert AUTOSCALER["scaleTargetRef"] == target
    assert "replicas" not in DEPLOYMENT


def test_autoscaler_uses_existing_metrics(autoscaler_with_component, live):
    """They are the CPU, relative to the container's request, and a gauge of the service."""
    cpu_metric, pods_metric = autoscaler_with_component["spec"]["metrics"]
    assert cpu_metric["resource"]["name"] in CONTAINER["resources"]["requests"]
    families = text_string_to_metric_families(live.get("/metrics").text)
    gauges = {family.name for family in families if family.type == "gauge"}
    assert pods_metric["pods"]["metric"]["name"] in gauges


def test_network_policy_allows_only_ingress_from_named_namespaces():
    """It allows no egress at all."""
    policy = MANIFESTS["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert rule["from"]
    for peer in rule["from"]:
        (label,) = peer["namespaceSelector"]["matchLabels"]
        assert label == "kubernetes.io/metadata.name"


def is_exposed(path):
    """Return whether the Ingress forwards a path."""
    return any(
        path == rule["path"]
        or (rule["pathType"] == "Prefix" and PurePosixPath(path).is_relative_to(rule["path"]))
        for rule in INGRESS["http"]["paths"]
    )


def test_ingress_exposes_all_endpoints_but_probes_and_metrics(client):
    """Probes and metrics are only for the cluster."""
    app = client.app
    internal = {"/metrics", *app.unlogged_paths}
    endpoints = app.endpoints - {""}
    assert internal < endpoints
    assert {path for path in endpoints if is_exposed(path)} == endpoints - internal


def test_ingress_exposes_the_files_of_swagger_ui(client):
    """The page loads its script, style sheet and icon from the service."""
    files = re.findall(r'"(static_content/[^"]+)"', client.get("/").text)
    assert len(files) >= 3
    for path in files:
        assert is_exposed(f"/{path}")
        assert client.get(f"/{path}").status_code == 200


def test_ingress_forwards_to_the_service():
    """All paths lead to the port `http` of the Service; TLS is for the Ingress's one host."""
    assert MANIFESTS["Service"]["metadata"]["name"] == NAME
    for path in INGRESS["http"]["paths"]:
        assert path["backend"] == {"service": {"name": NAME, "port": {"name": "http"}}}
    (tls,) = MANIFESTS["Ingress"]["spec"]["tls"]
    assert tls["hosts"] == [INGRESS["host"]]


def test_ingress_allows_larger_bodies_than_the_service():
    """The service rejects a body over its limit, with an error in JSON."""
    limits = MANIFESTS["Ingress"]["metadata"]["annotations"].values()
    assert min(int(limit.removesuffix("m")) for limit in limits) << 20 > SETTINGS.max_body_bytes
