"""Train the model without an export; scikit-learn then predicts in the service."""

import sys

from train import PROJECT
from training import main
from training.errors import NotExportableError
from training.fitting import inference


def refuse_export(*_: object) -> bytes:
    """Replace the export to ONNX: raise NotExportableError."""
    raise NotExportableError("The benchmark compares with scikit-learn.")


inference.export = refuse_export
main(PROJECT, ["train", *sys.argv[1:]])
