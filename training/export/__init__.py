"""Export a fitted scikit-learn regressor as an ONNX model, and check that both predict the same."""

from training.export.check import ExportCheck, verify
from training.export.convert import export

__all__ = ["ExportCheck", "export", "verify"]
