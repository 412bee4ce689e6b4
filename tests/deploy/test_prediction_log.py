"""The files of deploy/ that make replicas log predictions, each to a folder of its own."""

import copy
import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from serving.settings import Settings
from tests.deploy.test_kubernetes import MANIFESTS, OLDEST_VERSION
from tests.helpers.commands import ROOT, run

COMPONENT = ROOT / "deploy/kubernetes/prediction-log"


@pytest.fixture
def deployment():
    """The Deployment with the operations of the component, which all add a value."""
    patched = copy.deepcopy(MANIFESTS["Deployment"])
    (patch,) = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())["patches"]
    assert patch["target"] == {"kind": "Deployment"}
    for operation in yaml.safe_load(patch["patch"]):
        assert operation["op"] == "add"
        *parents, last = operation["path"].removeprefix("/").split("/")
        node = patched
        for name in parents:
            node = node[int(name) if name.isdecimal() else name]
        if last == "-":
            node.append(operation["value"])
        else:
            node[last] = operation["value"]
    return patched


@pytest.fixture
def claim():
    """The claim of a volume for the logs."""
    return yaml.safe_load((COMPONENT / "persistentvolumeclaim.yaml").read_text())


def test_component_is_valid(deployment, claim):
    """Kubernetes accepts the patched Deployment and the claim."""
    kubernetes_validate.validate(deployment, OLDEST_VERSION, strict=True)
    kubernetes_validate.validate(claim, OLDEST_VERSION, strict=True)


def test_pods_log_to_folders_of_their_own_in_the_volume(deployment, claim):
    """The name of the Pod is declared before it is used; the user may write to the volume."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    *_, pod_name, log = container["env"]
    assert pod_name["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert log["name"].lower() in Settings.model_fields
    assert log["value"] == f"{container['volumeMounts'][-1]['mountPath']}/$({pod_name['name']})"
    volume = pod["volumes"][-1]
    assert volume["name"] == container["volumeMounts"][-1]["name"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_compose_replicas_log_to_folders_of_their_own(tmp_path):
    """The command sets PREDICTION_LOG to a folder in the volume, and serves the Bento."""
    override = yaml.safe_load((ROOT / "deploy/compose.prediction-log.yaml").read_text())
    service = override["services"]["service"]
    (volume,) = service["volumes"]
    folder = volume.rpartition(":")[2]
    bentoml = tmp_path / "bentoml"
    bentoml.write_text('#!/bin/sh\necho "$PREDICTION_LOG" "$@"\n')
    bentoml.chmod(0o755)
    command = [part.replace("$$", "$") for part in service["command"]]  # as Compose does
    env = {
        "HOSTNAME": "replica",
        "BENTO_PATH": "/bento",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    assert run(*command, **env).stdout == f"{Path(folder, 'replica')} serve /bento\n"
