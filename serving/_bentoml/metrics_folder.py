"""The folder of the memory-mapped metrics files of one `bentoml serve`."""

import atexit
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

from bentoml._internal.configuration.containers import BentoMLContainer


def use_private_metrics_folder() -> None:
    """Set a metrics folder for this run of `bentoml serve` alone, and remove it at exit.

    BentoML uses one folder for all runs with the same BENTOML_HOME, and each run empties it when it
    starts (BentoML pull request 2526).
    """
    folder = Path(tempfile.gettempdir(), f"bentoml-metrics-{uuid4().hex}")
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
