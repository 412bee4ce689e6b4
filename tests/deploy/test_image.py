"""The image, built and run for real: `make image`, and BentoML's own commands."""

import json
import os
import re
import shlex
import shutil

import httpx2
import pytest

from house import EXAMPLE
from tests.helpers.commands import (
    ROOT,
    TUTORIAL_PREDICTION,
    TUTORIAL_RESPONSE,
    is_ready,
    run,
    wait_until,
)
from tests.helpers.containers import running_container
from tests.helpers.load import Load, kill_worker
from tests.helpers.package_index import PRIVATE_INDEX

pytestmark = pytest.mark.docker

MAX_MB_OVER_BASE = 430
IMAGE = "house_price:test"


def inside(script, image=IMAGE):
    """Run a shell script in the image, as root, and return its output."""
    command = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", script]
    return run(*command).stdout


@pytest.fixture(scope="module")
def hardened(image):
    """The `docker run` command that `make image` prints."""
    (command,) = re.findall(r"^ +(docker run .*)$", image, re.MULTILINE)
    for flag in ("--user 1034:1034", "--read-only", "--cap-drop ALL", "no-new-privileges"):
        assert flag in command
    return command


def test_hardened_container_gives_the_tutorials_answer(hardened):
    """With a read-only root, without any capability, as a user without a name."""
    with running_container(hardened) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        user = run("docker", "exec", client.container, "id", "-u").stdout.strip()
        assert user == "1034"
        readonly = run("docker", "exec", client.container, "touch", "/app/x", check=False)
        assert "Read-only file system" in readonly.stderr
        memory = run(
            "docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", client.container
        )
        print(f"\nready after {client.seconds_to_ready:.1f} s, memory {memory.stdout.strip()}")


def test_bentomls_own_commands_make_an_image(engine, model):
    """`bentoml build` and `bentoml containerize house_price:latest`, and a plain `docker run`."""
    run("bentoml", "build")
    run("bentoml", "containerize", "house_price:latest", "--image-tag", "house_price:plain")
    try:
        with running_container("docker run -p 3000:3000 house_price:plain") as client:
            assert client.post("/predict", json=EXAMPLE).json() == {
                "prediction": TUTORIAL_PREDICTION
            }
    finally:
        run("docker", "rmi", "house_price:plain")


def test_size_over_the_base_stays_in_bounds(image):
    """As `make image` prints it."""
    over = int(re.search(r"(\d+) MB of it over", image)[1])
    assert 100 < over <= MAX_MB_OVER_BASE


def test_image_holds_what_serving_needs_and_nothing_else(image):
    """No compiler, no git, no training, no tests."""
    for tool in ("gcc", "cc", "make", "git", "curl"):
        assert inside(f"command -v {tool} || echo none") == "none\n"
    packages = inside("ls /app/.venv/lib/python3.*/site-packages").split()
    assert "sklearn" in packages
    assert not {"pandas", "pytest", "ruff", "uv", "tqdm"} & set(packages)
    files = inside("cd /home/bentoml/bento/src && find . -name '*.pyc' -prune -o -type f -print")
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    assert {name[2:] for name in files.split()} - {"bentofile.yaml", "requirements.txt"} == {
        "service.py",
        "house.py",
        *ours,
    }


def test_image_tells_nothing_of_where_it_was_built(image):
    """No path, no package index and no password of it, in no file, setting or build step."""
    told = run("docker", "history", "--no-trunc", IMAGE).stdout
    told += run("docker", "inspect", IMAGE).stdout
    for secret in (str(ROOT), os.environ["BENTOML_HOME"], PRIVATE_INDEX, "s3cret"):
        assert secret not in told
        found = inside(f"grep -rlsF -- {shlex.quote(secret)} /home /app /etc /root /tmp /var; true")
        assert found == ""


def layers(image):
    """Return the layers of an image."""
    return json.loads(run("docker", "inspect", "--format", "{{json .RootFS.Layers}}", image).stdout)


def test_change_of_code_installs_no_package_again(image, tmp_path):
    """Only the last two layers, which hold the Bento, are others."""
    for name in ("house.py", "bentofile.yaml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "serving", tmp_path / "serving")
    (tmp_path / "service.py").write_text((ROOT / "service.py").read_text() + "# changed\n")
    run("bentoml", "build", cwd=tmp_path)
    run("bentoml", "containerize", "house_price:latest", "--image-tag", "house_price:changed")
    try:
        changed = layers("house_price:changed")
    finally:
        run("docker", "rmi", "house_price:changed")
    assert changed[:-2] == layers(IMAGE)[:-2]
    assert changed[-2] != layers(IMAGE)[-2]


def test_killed_worker_is_seen_and_replaced(hardened):
    """Only the requests inside it are lost, one for each connection at most."""
    with running_container(hardened) as client:
        with Load("127.0.0.1", client.base_url.port, clients=16) as load:
            load.await_answers(500, client.log)
            kill_worker(client.container)
            with pytest.raises(httpx2.TransportError):
                client.get("/readyz", timeout=0.5)
            wait_until(lambda: is_ready(client), client.log)
            load.await_answers(500, client.log)
        assert load.failed <= 16
        assert "Worker ended by signal 9; it is replaced" in client.log.read_text()


def test_stop_ends_well(hardened):
    """Within the time that Docker gives, with exit status 0."""
    with running_container(hardened) as client:
        run("docker", "stop", client.container)
        assert run("docker", "wait", client.container).stdout == "0\n"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DOCKER_HOST": "unix:///nowhere"}, "No Docker engine answers"),
        ({"BASE_IMAGE": "nowhere.invalid/none:1"}, "There is no base image nowhere.invalid/none:1"),
        ({"MODEL": "house_price:none"}, "run `make train`"),
    ],
    ids=["engine", "base", "model"],
)
def test_what_is_missing_is_said(env, words, engine, model):
    """And what to do about it."""
    failed = run("make", "image", check=False, **env)
    assert failed.returncode
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
