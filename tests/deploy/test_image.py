"""The image, built and run in Docker: by `make image`, and by BentoML's own commands."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import httpx2
import pytest

from house import EXAMPLE
from tests.helpers.client_load import Load, kill_worker
from tests.helpers.commands import ROOT, is_ready, run, wait_until
from tests.helpers.containers import running_container
from tests.helpers.package_index import PRIVATE_INDEX
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

pytestmark = [pytest.mark.docker, pytest.mark.slow]  # builds images

MAX_MB_OVER_BASE = 300
IMAGE = "house_price:test"


def run_in_image(script, image=IMAGE):
    """Run a shell script as root in the image; return its output."""
    command = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", script]
    return run(*command).stdout


@pytest.fixture(scope="module")
def hardened_command(image):
    """The `docker run` command that `make image` prints."""
    (command,) = re.findall(r"^ +(docker run .*)$", image, re.MULTILINE)
    for flag in ("--user 1034:1034", "--read-only", "--cap-drop ALL", "no-new-privileges"):
        assert flag in command
    return command


def test_hardened_container_predicts(hardened_command):
    """It runs with a read-only root, without capabilities, as user 1034."""
    with running_container(hardened_command) as client:
        assert client.post("/predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        user = run("docker", "exec", client.container, "id", "-u").stdout.strip()
        assert user == "1034"
        readonly = run("docker", "exec", client.container, "touch", "/app/x", check=False)
        assert "Read-only file system" in readonly.stderr
        memory = run(
            "docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", client.container
        )
        print(f"\nready after {client.seconds_to_ready:.1f} s, memory {memory.stdout.strip()}")


def test_bentoml_containerize_makes_a_working_image(engine, model):
    """The image runs without the options of the hardened command."""
    run("bentoml", "build")
    run("bentoml", "containerize", "house_price:latest", "--image-tag", "house_price:plain")
    try:
        with running_container("docker run -p 3000:3000 house_price:plain") as client:
            assert client.post("/predict", json=EXAMPLE).json() == {
                "prediction": TUTORIAL_PREDICTION
            }
    finally:
        run("docker", "rmi", "house_price:plain")


def test_image_size_over_base_is_limited(image):
    """`make image` prints how much the image adds to its base."""
    added = int(re.search(r"(\d+) MB of it over", image)[1])
    assert 100 < added <= MAX_MB_OVER_BASE


def test_image_contains_only_what_serving_needs(image):
    """It contains no compiler, git, training code or tests."""
    for tool in ("gcc", "cc", "make", "git", "curl"):
        assert run_in_image(f"command -v {tool} || echo none") == "none\n"
    packages = run_in_image("ls /app/.venv/lib/python3.*/site-packages").split()
    assert "onnxruntime" in packages
    training = {"sklearn", "scipy", "joblib", "onnx", "skl2onnx", "pandas", "tqdm"}
    assert not (training | {"pytest", "ruff", "uv"}) & set(packages)
    files = run_in_image(
        "cd /home/bentoml/bento/src && find . -name '*.pyc' -prune -o -type f -print"
    )
    paths = [*(ROOT / "serving").rglob("*.py"), *(ROOT / "serving/http/static").rglob("*.*")]
    serving_files = {path.relative_to(ROOT).as_posix() for path in paths}
    assert {name[2:] for name in files.split()} - {"bentofile.yaml", "requirements-serve.txt"} == {
        "service.py",
        "house.py",
        *serving_files,
    }


def test_image_reveals_nothing_about_the_build_host(image):
    """No file, setting or build step contains a path, the package index or its password."""
    metadata = run("docker", "history", "--no-trunc", IMAGE).stdout
    metadata += run("docker", "inspect", IMAGE).stdout
    for secret in (str(ROOT), os.environ["BENTOML_HOME"], PRIVATE_INDEX, "s3cret"):
        assert secret not in metadata
        found = run_in_image(
            f"grep -rlsF -- {shlex.quote(secret)} /home /app /etc /root /tmp /var; true"
        )
        assert found == ""


def layers(image):
    """Return the layers of an image."""
    return json.loads(run("docker", "inspect", "--format", "{{json .RootFS.Layers}}", image).stdout)


def test_code_change_keeps_the_package_layers(image, tmp_path):
    """Only the last two layers, which contain the Bento, differ."""
    for name in ("house.py", "bentofile.yaml", "requirements-serve.txt", "README.md"):
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


def test_killed_worker_in_container_is_replaced(hardened_command):
    """Only its requests in progress are lost, at most one for each of the 16 connections."""
    with running_container(hardened_command) as client:
        with Load("127.0.0.1", client.base_url.port, clients=16) as load:
            load.await_answers(500, client.log)
            kill_worker(client.container)
            with pytest.raises(httpx2.TransportError):
                client.get("/readyz", timeout=0.5)
            wait_until(lambda: is_ready(client), client.log)
            load.await_answers(500, client.log)
        assert load.failed <= 16
        assert "Worker was killed by signal 9; starting a replacement" in client.log.read_text()


def test_docker_stop_shuts_down_gracefully(hardened_command):
    """The exit status is 0: Docker does not kill the service at the end of its grace period."""
    with running_container(hardened_command) as client:
        run("docker", "stop", client.container)
        assert run("docker", "wait", client.container).stdout == "0\n"


def check_containers():
    """Return the containers, running or not, in which `make image` starts an image."""
    return run("docker", "ps", "--all", "--quiet", "--filter", "name=-check-").stdout.split()


def test_make_image_fails_if_the_container_does_not_start(engine, model, tmp_path):
    """It prints the container's log with the reason, here a package that only training installs."""
    for name in ("service.py", "bentofile.yaml", "requirements-serve.txt", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("serving", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "house.py").write_text((ROOT / "house.py").read_text() + "\nimport tqdm\n")
    tag = "house_price:unready"
    failed = run("deploy/image.sh", cwd=tmp_path, check=False, timeout=900, TAG=tag)
    run("docker", "rmi", "--force", tag)
    assert failed.returncode == 1
    assert "No module named 'tqdm'" in failed.stderr
    assert f"A container of {tag} did not get ready; its log is above" in failed.stderr
    assert "Built" not in failed.stdout
    assert not check_containers()


@pytest.mark.parametrize(
    ("send", "number"),
    [
        pytest.param(os.kill, signal.SIGTERM, id="SIGTERM to the script"),
        pytest.param(os.killpg, signal.SIGINT, id="Ctrl-C in a terminal"),
    ],
)
def test_interrupted_make_image_leaves_no_container(image, send, number):
    """The signal arrives while the container starts."""
    building = subprocess.Popen(
        [ROOT / "deploy/image.sh"],
        cwd=ROOT,
        env=os.environ | {"TAG": IMAGE, "UV_DEFAULT_INDEX": PRIVATE_INDEX},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while not check_containers():
        assert building.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    send(building.pid, number)
    output, _ = building.communicate(timeout=30)
    assert building.returncode
    assert "Built" not in output
    assert not check_containers()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DOCKER_HOST": "unix:///nowhere"}, "No Docker engine answers"),
        ({"BASE_IMAGE": "nowhere.invalid/none:1"}, "There is no base image nowhere.invalid/none:1"),
        ({"MODEL": "house_price:none"}, "run `make train`"),
    ],
    ids=["no Docker engine", "no base image", "no model"],
)
def test_make_image_reports_missing_prerequisite(env, message, engine, model):
    """The message says what to do, without a traceback."""
    failed = run("make", "image", check=False, **env)
    assert failed.returncode
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
