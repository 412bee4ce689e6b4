"""The description of a bundle, which train.py fills in.

A bundle is a folder like this one: a service, its training and its data. `make new` writes others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel

from serving.features import feature_schemas

if TYPE_CHECKING:  # pandas takes a second to import, and not every command needs it
    import pandas as pd

ROOT = Path(__file__).parent.parent  # the folder of this bundle


class Estimator(Protocol):
    """A fitted regressor with the interface of scikit-learn."""

    def predict(self, X: Any) -> Any:
        """Predict the targets (n_samples,) of features (n_samples, n_features)."""


FitFunction = Callable[["pd.DataFrame", "pd.Series"], Estimator]


class Project(NamedTuple):
    """The name, the record type, the data and the estimator of a bundle."""

    name: str  # of the model, the Service and the Bento
    record_type: type[BaseModel]
    labelled_type: type[BaseModel]  # the record type with the target as last field
    data: Path  # CSV file with the training data
    fit: FitFunction  # X_train (n_samples, n_features), y_train (n_samples,) -> fitted regressor

    @property
    def target(self) -> str:
        """The name of the target."""
        return list(feature_schemas(self.labelled_type))[-1]
