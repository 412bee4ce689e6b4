"""What the commands need to know of a bundle; train.py says it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel

from serving.features import feature_schemas

if TYPE_CHECKING:  # it takes a second to import, and not every command needs it
    import pandas as pd

ROOT = Path(__file__).parent.parent  # of the bundle


class Estimator(Protocol):
    """A fitted regressor, with the interface of scikit-learn's."""

    def predict(self, X: Any) -> Any:
        """Predict the targets (n_samples,) of features (n_samples, n_features)."""


Fit = Callable[["pd.DataFrame", "pd.Series"], Estimator]


class Project(NamedTuple):
    """The names of a bundle, its record type, its data and its estimator."""

    name: str  # of the model and of the Service
    record_type: type[BaseModel]
    labelled_type: type[BaseModel]  # the record type with the target as last field
    data: Path  # CSV file
    fit: Fit  # from (n_samples, n_features) and (n_samples,) to a fitted regressor

    @property
    def target(self) -> str:
        """The name of the target."""
        return list(feature_schemas(self.labelled_type))[-1]
