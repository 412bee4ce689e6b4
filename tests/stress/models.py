"""A model that is missing, damaged or swapped: the start is refused, with a sentence."""

import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from sklearn.dummy import DummyRegressor

from serving.model import MODEL_FILE
from tests.stress.row import Row
from tests.stress.service import ROOT, START_SECONDS, Home, free_port
from tests.stress.size import Size


def refused_models(home: Home, size: Size) -> Iterator[Row]:
    """Start with each model that must not be served."""
    started = [fault.__name__ for fault in FAULTS if not is_refused(home, fault)]
    figure = f"served: {', '.join(started) or 'none'}"
    target = "a sentence, exit status 1"
    yield Row("unfit model in the store", len(FAULTS), len(started), figure, target, not started)


def is_refused(home: Home, fault: Callable[[Path], None]) -> bool:
    """Tell whether a service with a fault in its model ends with a sentence."""
    store = home.folder / fault.__name__
    model = store / home.model.relative_to(home.folder)
    shutil.copytree(home.model, model)
    fault(model)
    done = subprocess.run(
        ["bentoml", "serve"],  # noqa: S607
        cwd=ROOT,
        env=home.env(PORT=str(free_port()), BENTOML_HOME=str(store)),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    says = re.search(r"Error: .*(run `make train`|restore it)", done.stderr)
    return done.returncode == 1 and bool(says) and "Traceback" not in done.stderr


def missing(model: Path) -> None:
    """Remove the model."""
    shutil.rmtree(model)


def missing_file(model: Path) -> None:
    """Remove the regressor."""
    (model / MODEL_FILE).unlink()


def cut(model: Path) -> None:
    """Leave half of the regressor."""
    path = model / MODEL_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(model: Path) -> None:
    """Change one bit of it."""
    path = model / MODEL_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swapped(model: Path) -> None:
    """Put another regressor in its place."""
    (model / MODEL_FILE).write_bytes(pickle.dumps(DummyRegressor().fit([[0] * 13], [1])))


def damaged_yaml(model: Path) -> None:
    """Damage what the store knows of it."""
    (model / "model.yaml").write_text("name: [")


FAULTS = [missing, missing_file, cut, flipped, swapped, damaged_yaml]
