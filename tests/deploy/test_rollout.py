"""deploy/rollout.sh with a replay of the prediction log in front."""

import json

import pytest

from house import EXAMPLE
from tests.helpers.commands import run
from tests.helpers.logs import write_log
from tests.helpers.tutorial import TUTORIAL_PREDICTION


@pytest.fixture
def docker(tmp_path):
    """A docker command that only notes that it was called: no replica may be touched."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "docker-compose"):
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit 1\n')
        (folder / name).chmod(0o755)
    return tmp_path / "calls"


def roll_out(docker, log, **env):
    """Run deploy/rollout.sh with the log in a folder."""
    path = f"{docker.parent}/bin:/usr/bin:/bin"
    env |= {"REPLAY_LOG": str(log), "PATH": path}
    return run("deploy/rollout.sh", check=False, **env)


def test_refused_model_replaces_no_replica(model, docker, tmp_path):
    """The status is that of the replay; with an accepted model the rollout begins."""
    values = list(EXAMPLE.values())
    write_log(tmp_path, EXAMPLE, [([values], [TUTORIAL_PREDICTION.expected])], tag=str(model.tag))
    path = tmp_path / "predictions-1.jsonl"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"prediction": 99}) + "\n")
    done = roll_out(docker, tmp_path, MODEL=str(model.tag))
    assert done.returncode == 3, done.stderr
    assert "of the predictions move by more than" in done.stdout
    assert not docker.exists()
    path.write_text(json.dumps(entry) + "\n")
    roll_out(docker, tmp_path, MODEL=str(model.tag))
    assert docker.exists()


def test_replay_needs_the_model_of_the_image(docker, tmp_path):
    """Otherwise it might replay another one."""
    done = roll_out(docker, tmp_path, MODEL="")
    assert done.returncode != 0
    assert "Say with MODEL which model the image holds" in done.stderr
    assert not docker.exists()
