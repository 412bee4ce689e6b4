"""The model in the store: what training records with it, and the checks before it is served."""

import json
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import attrs
import bentoml
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from pydantic import BaseModel, Field
from yaml import YAMLError

from serving.features import check_record_type, dtype_of, feature_schemas, is_nullable

# The files of a stored model. `bentoml.sklearn.load_model` expects the name of the first.
PICKLE_FILE = "saved_model.pkl"
ONNX_FILE = "model.onnx"
GOLDEN_FILE = "golden_predictions.json"
TEXTS_FILE = "training_texts.json"

# A damaged model.yaml raises as YAML, as an object of BentoML's or as one of ours.
UNUSABLE_MODEL = (BentoMLException, ExceptionGroup, LookupError, ValueError, YAMLError)

InputType = Literal["array", "frame"]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Inference(BaseModel):
    """What predicts in the service, and how the export was compared with scikit-learn."""

    runtime: Literal["onnxruntime", "scikit-learn"]
    reason: str  # why scikit-learn predicts in the service, if so
    n_rows_compared: int
    # Relative to max(|prediction|, standard deviation of the target).
    largest_difference: float | None = None
    # By runtime and number of rows, as measured at training.
    milliseconds: dict[str, dict[int, float]]
    # What the pickle needs, if scikit-learn predicts: packages in exact versions, which the image
    # gets besides requirements-serve.txt, and Python files of the project, such as "steps.py".
    packages: list[str] = []
    project_files: list[str] = []
    input: InputType  # what scikit-learn's estimator takes


class TrainingMetadata(BaseModel):
    """What training records with a model, as its metadata in the model store."""

    trained_at: datetime
    target: dict[str, str]
    feature_names: list[str]
    training_range: dict[str, Range]  # least and greatest value of each number
    training_deciles: dict[str, list[float]] = {}  # of each number, from the least to the greatest
    training_values: dict[str, list[str | bool]] = {}  # of each category and boolean
    training_shares: dict[str, list[float]] = {}  # of the rows, for each of those values
    training_gaps: dict[str, float] = {}  # share of the rows, of each feature that may be null
    column_dtypes: dict[str, str]  # of the DataFrame of the training
    # For some values, the share of the predictions for the training data that do not exceed them.
    prediction_distribution: dict[float, float]
    metrics: dict[str, float]
    target_std: float
    inference: Inference
    data_sha256: str
    file_sha256: dict[str, str]  # of each file of the model
    versions: dict[str, str]

    @property
    def inference_file(self) -> str:
        """The name of the file that the service loads."""
        return ONNX_FILE if self.inference.runtime == "onnxruntime" else PICKLE_FILE


def to_tag(tag: str | bentoml.Tag) -> bentoml.Tag:
    """Return a tag, given as text or as a tag."""
    return bentoml.Tag.from_taglike(tag)


@attrs.frozen
class ModelReference(BentoModel):
    """A reference to a stored model that was trained on the features of a record type."""

    tag: bentoml.Tag = attrs.field(converter=to_tag)  # as BentoModel has it, for mypy
    record_type: type[BaseModel] = attrs.field()

    def resolve(self, base_path: Any = None) -> bentoml.Model:
        """Return the stored model; raise BentoMLException, saying what to do, if it can't serve."""
        try:
            model = super().resolve(base_path)
            check_outdated(model)
            training = TrainingMetadata.model_validate(model.info.metadata)
        except OutdatedModelError:
            raise
        except UNUSABLE_MODEL as error:
            raise NotFound(
                f"The model store has no {self.tag} saved by train.py: "
                "run `make train`, or correct MODEL"
            ) from error
        self.check_features(model.tag, training.feature_names)
        check_record_type(self.record_type)
        self.check_types(model.tag, training)
        for name in (training.inference_file, GOLDEN_FILE):
            read_verified(model, training, name)
        return model

    def pinned(self) -> Self:
        """Return a reference to the version that is newest now; without a model, to the same tag.

        The image of a Bento depends on the model, and BentoML asks for the model only after it.
        """
        with suppress(*UNUSABLE_MODEL):
            if stored := self.stored:
                return attrs.evolve(self, tag=stored.tag)
        return self

    @property
    def resolved(self) -> bentoml.Model:
        """The model, resolved at the first use and then kept: the store may have lost it since.

        BentoML's descriptor keeps it; it is what `self.model` gives in a Service.
        """
        return self.__get__(self, type(self))

    def check_features(self, tag: bentoml.Tag, trained_on: list[str]) -> None:
        """Raise BentoMLException unless the model's features are those of the record type."""
        features = list(feature_schemas(self.record_type))
        if trained_on != features:
            difference = sorted({*trained_on} ^ {*features}) or ["their order"]
            raise BentoMLException(
                f"Model {tag} was trained on other features than those of "
                f"{self.record_type.__name__} ({', '.join(difference)}): run `make train`"
            )

    def check_types(self, tag: bentoml.Tag, training: TrainingMetadata) -> None:
        """Raise BentoMLException unless the features have the types of the training."""
        for name, schema in feature_schemas(self.record_type).items():
            trained = training.column_dtypes[name], name in training.training_gaps
            if trained != (dtype_of(schema), is_nullable(schema)):
                raise BentoMLException(
                    f"Model {tag} was trained with another type of {self.record_type.__name__}."
                    f"{name}: run `make train`"
                )

    def to_info(self, alias: str | None = None) -> Any:
        """Describe the model for a Bento; raise BentoMLException as `resolve` does."""
        self.resolve()
        return super().to_info(alias)


class OutdatedModelError(BentoMLException):
    """A model was saved by an earlier version of this bundle."""


def check_outdated(model: bentoml.Model) -> None:
    """Raise OutdatedModelError if an earlier version, without `column_dtypes`, saved a model."""
    metadata = model.info.metadata
    if "feature_names" in metadata and "column_dtypes" not in metadata:
        raise OutdatedModelError(
            f"Model {model.tag} was saved by an earlier version of this bundle: run `make train`"
        )


def read_texts(model: bentoml.Model) -> dict[str, list[str]]:
    """Return the values of the training, of each feature that is a text."""
    training = TrainingMetadata.model_validate(model.info.metadata)
    if TEXTS_FILE not in training.file_sha256:
        return {}
    return json.loads(read_verified(model, training, TEXTS_FILE))


def read_golden(model: bentoml.Model) -> dict[str, Any]:
    """Return the "rows" and the "predictions" of a model's golden predictions."""
    training = TrainingMetadata.model_validate(model.info.metadata)
    return json.loads(read_verified(model, training, GOLDEN_FILE))


def read_verified(model: bentoml.Model, training: TrainingMetadata, name: str) -> bytes:
    """Return a file of a model; raise BentoMLException unless training wrote these bytes.

    Unpickling executes what the file says, so verify its SHA-256 first.
    """
    path = Path(model.path_of(name))
    try:
        content = path.read_bytes()
        reason = "its content has changed since"
    except OSError as error:
        content, reason = b"", str(error.strerror)
    if sha256(content).hexdigest() != training.file_sha256.get(name):
        raise BentoMLException(
            f"The file of model {model.tag} is not as train.py saved it ({path}: {reason}): "
            "restore it, or run `make train`, and build the Bento again if there is one"
        )
    return content
