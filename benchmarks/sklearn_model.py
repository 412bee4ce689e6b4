"""Train the model without an export, so that scikit-learn predicts in the service."""

import sys

from train import PROJECT
from training import main
from training.errors import NotExportableError
from training.fitting import inference


def refuse(*_: object) -> bytes:
    """Take the place of the export."""
    raise NotExportableError("The benchmark compares with scikit-learn.")


inference.export = refuse
main(PROJECT, ["train", *sys.argv[1:]])
