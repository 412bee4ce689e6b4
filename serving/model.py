"""The model in the store: what training records with it, and what is checked before it serves."""

from datetime import datetime
from functools import cache
from typing import Any

import attrs
import bentoml
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


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
                f"The model store has no {self.tag} saved by train.py: "
                "run `make train`, or correct MODEL"
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
