"""The model in the store: what training records with it, and what is checked before it serves."""

from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import attrs
import bentoml
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from yaml import YAMLError

MODEL_FILE = "saved_model.pkl"  # where `bentoml.sklearn.load_model` looks for it, too

# What is relied on of each record: nothing converted, nothing unknown, finite, categories as text.
CONFIG = {"strict": True, "extra": "forbid", "allow_inf_nan": False, "use_enum_values": True}
# Of the prediction log, beside the features.
LOG_COLUMNS = ("timestamp", "request_id", "model_tag", "prediction")

Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Training(BaseModel):
    """What training records with a model, as its metadata in the model store."""

    trained_at: datetime
    target: dict[str, str]
    feature_names: list[str]
    training_range: dict[str, Range]  # of each number
    training_values: dict[str, list[str | bool]] = {}  # of each category and boolean
    # The share of the predictions for the training data that are not over each of some values.
    prediction_distribution: dict[float, float]
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
        check_record_type(self.record_type)
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


def described(record_type: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each feature, with the values of its Enum, if it has one, in it."""
    schema = record_type.model_json_schema()
    enums = {f"#/$defs/{name}": enum for name, enum in schema.get("$defs", {}).items()}
    return {
        name: enums[feature.pop("$ref")] | feature if "$ref" in feature else feature
        for name, feature in schema["properties"].items()
    }


def check_record_type(record_type: type[BaseModel], target: str = "") -> None:
    """Raise BentoMLException unless all that is valid, but for a target, can be predicted."""
    if not CONFIG.items() <= record_type.model_config.items():
        words = ", ".join(f"{name}={value!r}" for name, value in CONFIG.items())
        raise BentoMLException(f"{record_type.__name__} needs model_config = ConfigDict({words})")
    for name, schema in described(record_type).items():
        if name != target and (fault := fault_of(name, schema)):
            raise BentoMLException(f"{record_type.__name__}.{name} {fault}")


def fault_of(name: str, schema: dict[str, Any]) -> str | None:
    """Return why a feature can't be one, if so."""
    kind, bounds = schema.get("type"), {"minimum", "maximum"}
    if name in LOG_COLUMNS:
        return "is named as a column of the prediction log: choose another name"
    if "enum" in schema or "const" in schema:
        return None
    if kind not in ("number", "integer", "boolean"):
        return "has to be a float, an int, a bool, or one of the strings of a Literal or an Enum"
    if kind == "integer" and not bounds <= schema.keys():
        return "needs ge and le: no float holds every integer"
    return None


def specimens(record_type: type[BaseModel], example: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return rows of the example, and of it with each other category, true and false in turn."""
    rows = [example]
    for name, schema in described(record_type).items():
        values = [False, True] if schema.get("type") == "boolean" else schema.get("enum", [])
        rows += [example | {name: value} for value in values]
    return [tuple(row.values()) for row in rows]


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
        # What the Service's attribute gives, too, and keeps: the store may have lost it by now.
        model = reference.__get__(reference, type(reference))
        features = described(reference.record_type)
        card = ModelCard(**model.info.metadata, tag=str(model.tag), features=features)
        return card.model_dump(mode="json")

    async def show(request: Request) -> Response:
        return JSONResponse(card())

    return Starlette(routes=[Route("/model", show)])
