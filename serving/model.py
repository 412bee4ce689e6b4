"""The model in the store: what training records with it, and the checks before it is served."""

from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import attrs
import bentoml
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from pydantic import BaseModel, Field
from yaml import YAMLError

from serving.observability import LOG_COLUMNS

MODEL_FILE = "saved_model.pkl"  # the name that `bentoml.sklearn.load_model` expects

# The service relies on this: no conversion, no unknown features, finite numbers, and categories as
# strings instead of members of an Enum.
REQUIRED_CONFIG = {
    "strict": True,
    "extra": "forbid",
    "allow_inf_nan": False,
    "use_enum_values": True,
}

Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class TrainingMetadata(BaseModel):
    """What training records with a model, as its metadata in the model store."""

    trained_at: datetime
    target: dict[str, str]
    feature_names: list[str]
    training_range: dict[str, Range]  # least and greatest value of each number
    training_values: dict[str, list[str | bool]] = {}  # of each category and boolean
    # For some values, the share of the predictions for the training data that do not exceed them.
    prediction_distribution: dict[float, float]
    metrics: dict[str, float]
    data_sha256: str
    model_sha256: str
    versions: dict[str, str]


def to_tag(tag: str | bentoml.Tag) -> bentoml.Tag:
    """Return a tag, given as text or as a tag."""
    return bentoml.Tag.from_taglike(tag)


@attrs.frozen
class ModelReference(BentoModel):
    """A reference to a stored model that was trained on the features of a record type."""

    tag: bentoml.Tag = attrs.field(converter=to_tag)  # as BentoModel has it, for mypy
    record_type: type[BaseModel] = attrs.field()
    allow_other_sklearn: bool = False

    def resolve(self, base_path: Any = None) -> bentoml.Model:
        """Return the stored model; raise BentoMLException, saying what to do, if it can't serve."""
        try:
            model = super().resolve(base_path)
            training = TrainingMetadata.model_validate(model.info.metadata)
        # A damaged model.yaml raises as YAML, as an object of BentoML's or as one of ours.
        except (BentoMLException, ExceptionGroup, LookupError, ValueError, YAMLError) as error:
            raise NotFound(
                f"The model store has no {self.tag} saved by train.py: "
                "run `make train`, or correct MODEL"
            ) from error
        self.check_features(model.tag, training.feature_names)
        check_record_type(self.record_type)
        if not self.allow_other_sklearn:
            check_sklearn_version(model.tag, training.versions["scikit-learn"])
        read_verified_pickle(model, training)
        return model

    @property
    def resolved(self) -> bentoml.Model:
        """The model as it was at first use, although the store may have lost it since.

        It is the object that the attribute of a Service's instance gives.
        """
        return self.__get__(self, type(self))

    def check_features(self, tag: bentoml.Tag, trained_on: list[str]) -> None:
        """Raise BentoMLException unless the model's features are those of the record type."""
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


def feature_schemas(record_type: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each feature; references to an Enum are replaced by its schema."""
    schema = record_type.model_json_schema()
    enums = {f"#/$defs/{name}": enum for name, enum in schema.get("$defs", {}).items()}
    return {
        name: enums[feature.pop("$ref")] | feature if "$ref" in feature else feature
        for name, feature in schema["properties"].items()
    }


def check_record_type(record_type: type[BaseModel], target: str = "") -> None:
    """Raise BentoMLException unless every valid record can be predicted; `target` is no feature."""
    if not REQUIRED_CONFIG.items() <= record_type.model_config.items():
        config = ", ".join(f"{name}={value!r}" for name, value in REQUIRED_CONFIG.items())
        raise BentoMLException(f"{record_type.__name__} needs model_config = ConfigDict({config})")
    for name, schema in feature_schemas(record_type).items():
        if name != target and (reason := unsupported_reason(name, schema)):
            raise BentoMLException(f"{record_type.__name__}.{name} {reason}")


def unsupported_reason(name: str, schema: dict[str, Any]) -> str | None:
    """Return why a feature of this name and JSON schema is not supported, or None."""
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


def probe_rows(record_type: type[BaseModel], example: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return rows of the example, and of it with each category, true and false in turn."""
    records = [example]
    for name, schema in feature_schemas(record_type).items():
        values = [False, True] if schema.get("type") == "boolean" else schema.get("enum", [])
        records += [example | {name: value} for value in values]
    return [tuple(record.values()) for record in records]


def check_sklearn_version(tag: bentoml.Tag, trained_with: str) -> None:
    """Raise BentoMLException unless the installed scikit-learn is the version of the training."""
    # From the package's metadata: importing scikit-learn takes 0.8 s.
    installed = version("scikit-learn")
    if installed != trained_with:
        raise BentoMLException(
            f"Model {tag} was trained with scikit-learn {trained_with}, and {installed} is "
            "installed: run `make train`, or set ALLOW_OTHER_SKLEARN=true to serve it untested"
        )


def read_verified_pickle(model: bentoml.Model, training: TrainingMetadata) -> bytes:
    """Return the pickled estimator; raise BentoMLException unless training wrote these bytes.

    Unpickling executes what the file says, so verify its SHA-256 first.
    """
    path = Path(model.path_of(MODEL_FILE))
    try:
        pickled = path.read_bytes()
        reason = "its content has changed since"
    except OSError as error:
        pickled, reason = b"", str(error.strerror)
    if sha256(pickled).hexdigest() != training.model_sha256:
        raise BentoMLException(
            f"The file of model {model.tag} is not as train.py saved it ({path}: {reason}): "
            "restore it, or run `make train`, and build the Bento again if there is one"
        )
    return pickled
