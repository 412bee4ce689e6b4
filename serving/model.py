"""The model in the store: what training records with it, and what is checked before it serves."""

from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import bentoml
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from yaml import YAMLError

MODEL_FILE = "saved_model.pkl"  # where `bentoml.sklearn.load_model` looks for it, too


class Training(BaseModel):
    """What training records with a model, as its metadata in the model store."""

    trained_at: datetime
    target: dict[str, str]
    feature_names: list[str]
    training_range: dict[str, tuple[float, float]]
    metrics: dict[str, float]
    data_sha256: str
    model_sha256: str
    versions: dict[str, str]


@attrs.frozen
class RecordModel(BentoModel):
    """A model of the model store that was trained on the features of one record type."""

    record_type: type[BaseModel]
    allow_other_sklearn: bool = False

    def resolve(self, base_path: Any = None) -> bentoml.Model:
        """Return the stored model; raise BentoMLException, saying what to do, if it can't serve."""
        try:
            model = super().resolve(base_path)
            training = Training.model_validate(model.info.metadata)
        # A damaged model.yaml fails as YAML, as an object of BentoML's or of ours.
        except (BentoMLException, ExceptionGroup, LookupError, ValueError, YAMLError) as error:
            raise NotFound(
                f"The model store has no {self.tag} saved by train.py: "
                "run `make train`, or correct MODEL"
            ) from error
        self.check_features(model.tag, training.feature_names)
        if not self.allow_other_sklearn:
            check_sklearn(model.tag, training.versions["scikit-learn"])
        read_pickle(model, training)
        return model

    def check_features(self, tag: bentoml.Tag, trained_on: list[str]) -> None:
        """Raise BentoMLException unless the features are those of the record type."""
        features = list(self.record_type.model_fields)
        if trained_on != features:
            difference = sorted({*trained_on} ^ {*features}) or ["their order"]
            raise BentoMLException(
                f"Model {tag} was trained on other features than those of "
                f"{self.record_type.__name__} ({', '.join(difference)}): run `make train`"
            )

    def to_info(self, alias: str | None = None) -> Any:
        """Describe the model for a Bento; raise BentoMLException as `resolve` does."""
        self.resolve()
        return super().to_info(alias)


def check_sklearn(tag: bentoml.Tag, trained_with: str) -> None:
    """Raise BentoMLException unless the installed scikit-learn is that of the training."""
    # Its version is asked of the package, for to import it takes 0.8 s.
    installed = version("scikit-learn")
    if installed != trained_with:
        raise BentoMLException(
            f"Model {tag} was trained with scikit-learn {trained_with}, and {installed} is "
            "installed: run `make train`, or set ALLOW_OTHER_SKLEARN=true to serve it untested"
        )


def read_pickle(model: bentoml.Model, training: Training) -> bytes:
    """Return the pickled regressor; raise BentoMLException if it isn't as training wrote it.

    To unpickle is to run what the file says, so that this has to come first.
    """
    path = Path(model.path_of(MODEL_FILE))
    try:
        pickled = path.read_bytes()
        fault = "its content has changed since"
    except OSError as error:
        pickled, fault = b"", error.strerror
    if sha256(pickled).hexdigest() != training.model_sha256:
        raise BentoMLException(
            f"The file of model {model.tag} is not as train.py saved it ({path}: {fault}): "
            "restore it, or run `make train`, and build the Bento again if there is one"
        )
    return pickled


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
