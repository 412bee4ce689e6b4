"""deploy/rollout.sh with REPLAY_LOG: it replays the prediction log before the rollout."""

import json

import pytest

from house import EXAMPLE
from tests.helpers.commands import run
from tests.helpers.logs import write_log
from tests.helpers.tutorial import TUTORIAL_PREDICTION

BENTO = """service: service:HousePrice
models: []
services:
- name: house_price
  models:
  - tag: {tag}
    module: bentoml.sklearn
envs:
- tag: other
"""


@pytest.fixture
def docker(tmp_path):
    """A fake docker command that has one image, and writes its calls to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "docker-compose"):
        (folder / name).write_text(
            '#!/bin/sh\ncase "$*" in\n'
            f'*"cat house_price:replayed "*) exec cat {tmp_path}/bento.yaml ;;\n'
            f'*) echo "$@" >> {tmp_path}/calls; exit 1 ;;\nesac\n'
        )
        (folder / name).chmod(0o755)
    return tmp_path / "calls"


def roll_out(docker, log, image="house_price:replayed"):
    """Run deploy/rollout.sh with the log in a folder."""
    path = f"{docker.parent}/bin:/usr/bin:/bin"
    env = {"REPLAY_LOG": str(log), "IMAGE": image, "PATH": path}
    return run("deploy/rollout.sh", check=False, **env)


def test_blocked_model_replaces_no_replica(model, docker, tmp_path):
    """The exit status is that of the replay; with an accepted model, the rollout begins."""
    (tmp_path / "bento.yaml").write_text(BENTO.format(tag=model.tag))
    values = list(EXAMPLE.values())
    write_log(tmp_path, EXAMPLE, [([values], [TUTORIAL_PREDICTION.expected])], tag=str(model.tag))
    path = tmp_path / "predictions-1.jsonl"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"prediction": 99}) + "\n")
    done = roll_out(docker, tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"replayed with {model.tag}" in done.stdout
    assert "Candidate fails: 100.0% of the predictions change by more than" in done.stdout
    assert not docker.exists()
    path.write_text(json.dumps(entry) + "\n")
    roll_out(docker, tmp_path)
    assert docker.exists()


@pytest.mark.parametrize(
    ("bento", "image"),
    [("models: []\n", "house_price:replayed"), ("", "house_price:nowhere")],
    ids=["no model", "no image"],
)
def test_image_whose_model_is_unknown_replaces_no_replica(docker, tmp_path, bento, image):
    """Without the tag of its model, the log can't be replayed."""
    (tmp_path / "bento.yaml").write_text(bento)
    done = roll_out(docker, tmp_path, image)
    assert done.returncode == 1
    assert f"The image {image} has no bento.yaml with a model" in done.stderr
