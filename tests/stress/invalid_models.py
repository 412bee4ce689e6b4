"""Missing, corrupt and replaced models, for which the server must not start."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.model import ONNX_FILE
from tests.helpers.commands import ROOT, free_port
from tests.stress.config import StressConfig
from tests.stress.result import Result
from tests.stress.server import START_TIMEOUT_SECONDS, ModelStore


def invalid_models(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Start the server with each invalid model and check that it exits with an error message."""
    accepted = [corrupt.__name__ for corrupt in CORRUPTIONS if not is_rejected(store, corrupt)]
    measured = f"accepted: {', '.join(accepted) or 'none'}"
    target = "error message, exit status 1"
    check = "invalid model in the store"
    yield Result(check, len(CORRUPTIONS), len(accepted), measured, target, not accepted)


def is_rejected(store: ModelStore, corrupt: Callable[[Path], None]) -> bool:
    """Return whether the server exits with status 1 and a message that names the remedy.

    `corrupt` takes the folder of a copy of the model and makes that model invalid.
    """
    corrupt_store = store.folder / corrupt.__name__
    model_folder = corrupt_store / store.model_folder.relative_to(store.folder)
    shutil.copytree(store.model_folder, model_folder)
    corrupt(model_folder)
    completed = subprocess.run(
        ["bentoml", "serve"],  # noqa: S607
        cwd=ROOT,
        env=store.server_env(PORT=str(free_port()), BENTOML_HOME=str(corrupt_store)),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_SECONDS,
    )
    message = re.search(r"Error: .*(run `make train`|restore it)", completed.stderr)
    has_traceback = "Traceback" in completed.stderr
    return completed.returncode == 1 and bool(message) and not has_traceback


def missing_model(model_folder: Path) -> None:
    """Delete the model."""
    shutil.rmtree(model_folder)


def missing_file(model_folder: Path) -> None:
    """Delete the exported regressor."""
    (model_folder / ONNX_FILE).unlink()


def truncated_file(model_folder: Path) -> None:
    """Truncate the exported regressor to half its size."""
    path = model_folder / ONNX_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_bit(model_folder: Path) -> None:
    """Flip one bit of the exported regressor."""
    path = model_folder / ONNX_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced_regressor(model_folder: Path) -> None:
    """Replace the exported regressor with another file."""
    (model_folder / ONNX_FILE).write_bytes(b"another model")


def corrupt_metadata(model_folder: Path) -> None:
    """Write invalid YAML to the model's metadata."""
    (model_folder / "model.yaml").write_text("name: [")


CORRUPTIONS = [
    missing_model,
    missing_file,
    truncated_file,
    flipped_bit,
    replaced_regressor,
    corrupt_metadata,
]
