"""The model: what training records with it, what is checked before it serves, how it predicts."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import attrs
import bentoml
import numpy as np
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
        # Imported here because `bentoml serve` imports the service in its supervisor too, which
        # needs no model: without scikit-learn that is N MB smaller, and ready N s earlier.
        from sklearn import config_context

        self.lenient = config_context
        training = Training.model_validate(model.info.metadata)
        self.feature_names = training.feature_names
        ranges = [training.training_range[name] for name in self.feature_names]
        self.lowest, self.highest = np.array(ranges).T
        self.estimator = bentoml.sklearn.load_model(model)

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        X = np.array(rows)
        outside = ((self.lowest > X) | (self.highest < X)).sum(axis=0)
        for index in outside.nonzero()[0]:
            OUTSIDE.labels(self.feature_names[index]).inc(outside[index])
        # A record holds finite numbers only. One that is too large for the trees' float32 becomes
        # infinite there, and goes the way of all large numbers.
        with self.lenient(assume_finite=True), np.errstate(over="ignore"):
            return self.estimator.predict(X).tolist()


class ModelCard(Training):
    """The served model: its tag, its training, and the features that it wants to know."""

    tag: str
    features: dict[str, dict[str, Any]]


def card_app(reference: RecordModel) -> Starlette:
    """Return the app of `GET /model`, to be mounted in the Service."""

    @cache
    def card() -> dict[str, Any]:
        model = reference.resolve()
        features = reference.record_type.model_json_schema()["properties"]
        card = ModelCard(**model.info.metadata, tag=str(model.tag), features=features)
        return card.model_dump(mode="json")

    async def show(request: Request) -> Response:
        return JSONResponse(card())

    return Starlette(routes=[Route("/model", show)])
