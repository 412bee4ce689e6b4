"""The model: what training records with it, what is checked before it serves, how it predicts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import bentoml
import numpy as np
import sklearn
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from prometheus_client import Counter
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.records import Row

OUTSIDE = Counter(
    "feature_outside_training_range", "Legal values outside the training range", ["feature"]
)


class Training(BaseModel):
    """What training records with a model, as its metadata in the model store."""

    trained_at: datetime
    target: dict[str, str]
    feature_names: list[str]
    training_range: dict[str, tuple[float, float]]
    metrics: dict[str, float]
    data_sha256: str
    versions: dict[str, str]


@attrs.frozen
class RecordModel(BentoModel):
    """A model of the model store that was trained on the features of one record type."""

    record_type: type[BaseModel]

    def resolve(self, base_path: Any = None) -> bentoml.Model:
        """Return the stored model; raise BentoMLException, saying what to do, if it can't serve."""
        try:
            model = super().resolve(base_path)
            trained_on = Training.model_validate(model.info.metadata).feature_names
        except (BentoMLException, ValidationError) as error:
            raise NotFound(
                f"The model store has no {self.tag} saved by train.py: run `make train`"
            ) from error
        features = list(self.record_type.model_fields)
        if trained_on != features:
            difference = sorted({*trained_on} ^ {*features}) or ["their order"]
            raise BentoMLException(
                f"Model {model.tag} was trained on other features than those of "
                f"{self.record_type.__name__} ({', '.join(difference)}): run `make train`"
            )
        return model

    def to_info(self, alias: str | None = None) -> Any:
        """Describe the model for a Bento; raise BentoMLException as `resolve` does."""
        self.resolve()
        return super().to_info(alias)


class Regressor:
    """A scikit-learn regressor from the model store."""

    def __init__(self, model: bentoml.Model) -> None:
        training = Training.model_validate(model.info.metadata)
        self.feature_names = training.feature_names
        self.lowest, self.highest = np.array(list(training.training_range.values())).T
        self.estimator = bentoml.sklearn.load_model(model)

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        X = np.array(rows)
        outside = ((self.lowest > X) | (self.highest < X)).sum(axis=0)
        for index in outside.nonzero()[0]:
            OUTSIDE.labels(self.feature_names[index]).inc(outside[index])
        # A record holds finite numbers only. One that is too large for the trees' float32 becomes
        # infinite there, and goes the way of all large numbers.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return self.estimator.predict(X).tolist()


class ModelCard(Training):
    """The served model: its tag, its training, and the features that it wants to know."""

    tag: str
    features: dict[str, dict[str, Any]]


def card(model: bentoml.Model, record_type: type[BaseModel]) -> ModelCard:
    """Describe a stored model and the features of its record type."""
    features = record_type.model_json_schema()["properties"]
    return ModelCard(**model.info.metadata, tag=str(model.tag), features=features)


def card_app(record_type: type[BaseModel]) -> Starlette:
    """Return the app of `GET /model`, to be mounted in the Service."""

    async def show(request: Request) -> Response:
        model = bentoml.get_current_service().model
        return JSONResponse(card(model, record_type).model_dump(mode="json"))

    return Starlette(routes=[Route("/model", show)])
