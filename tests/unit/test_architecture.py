"""The import rules in pyproject.toml: `make lint` fails if an import breaks one."""

import shutil

import pytest

from tests.helpers.commands import ROOT, run

WRONG_IMPORTS = {
    "observability imports the records": (
        "serving/observability/prediction_metrics.py",
        "from serving.records import Row",
        "lint-imports",
    ),
    "http imports serving._bentoml": (
        "serving/http/app.py",
        "from serving._bentoml.server import Server",
        "lint-imports",
    ),
    "records import http": (
        "serving/records.py",
        "from serving.http.auth import APIKeyAuth",
        "lint-imports",
    ),
    "serving imports training": (
        "serving/model.py",
        "from training.project import ROOT",
        "lint-imports",
    ),
    "training imports serving._bentoml": (
        "training/data.py",
        "from serving._bentoml.batching import Predictor",
        "lint-imports",
    ),
    "serving imports the service": ("serving/model.py", "import service", "lint-imports"),
    "training imports train.py": ("training/cli.py", "import train", "lint-imports"),
    "http imports uvicorn": ("serving/http/body.py", "import uvicorn", "lint-imports"),
    "internal module of BentoML": (
        "serving/model.py",
        "import bentoml._internal.models",
        "ruff check --select TID",
    ),
    "internal module of the Prometheus client": (
        "serving/observability/prediction_metrics.py",
        "from prometheus_client.values import ValueClass",
        "ruff check --select TID",
    ),
    "private member of another object": (
        "serving/http/docs_page.py",
        "Response._attribute",
        "ruff check --select SLF",
    ),
}


@pytest.fixture
def copy(tmp_path):
    """A copy of the code to which the rules apply."""
    for name in ("serving", "training"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "service.py", "train.py", "house.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["lint-imports", "ruff check --select TID,SLF"])
def test_code_keeps_the_rules(copy, command):
    """Without a wrong import the linters pass."""
    run(*command.split(), cwd=copy)


@pytest.mark.parametrize(("path", "wrong", "command"), WRONG_IMPORTS.values(), ids=WRONG_IMPORTS)
def test_wrong_import_fails_the_lint(copy, path, wrong, command):
    """A line that breaks a rule makes its command exit with 1."""
    with (copy / path).open("a") as module:
        module.write(f"\n{wrong}\n")
    assert run(*command.split(), cwd=copy, check=False).returncode == 1
