"""`GET /model`: the model card as JSON, for programs. docs/MODEL_CARD.md is the one for people."""

from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.features import feature_schemas
from serving.model import ModelReference, TrainingMetadata


class ModelCard(TrainingMetadata):
    """The metadata of the served model: its tag, its training, and the features that it expects."""

    tag: str
    features: dict[str, dict[str, Any]]


def model_card_app(reference: ModelReference) -> Starlette:
    """Return the application that responds to `GET /model`; service.py mounts it."""

    @cache
    def card() -> dict[str, Any]:
        model = reference.resolved
        features = feature_schemas(reference.record_type)
        values = {**model.info.metadata, "tag": str(model.tag), "features": features}
        return ModelCard.model_validate(values).model_dump(mode="json")

    async def view(request: Request) -> Response:
        return JSONResponse(card())

    return Starlette(routes=[Route("/model", view)])
