"""What the commands need to know of a bundle; train.py says it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel
from sklearn.base import RegressorMixin

from serving.features import feature_schemas

ROOT = Path(__file__).parent.parent  # of the bundle

Fit = Callable[[pd.DataFrame, pd.Series], RegressorMixin]


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
