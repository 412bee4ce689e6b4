"""A stored model: its files and metadata, and the checks before it is served."""

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

# What reading the metadata of a missing or damaged model raises. YAMLError: model.yaml is not valid
# YAML. ValueError: pydantic rejects the metadata. The others: BentoML rejects them.
MODEL_READ_ERRORS = (BentoMLException, ExceptionGroup, LookupError, ValueError, YAMLError)

InputType = Literal["array", "frame"]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Inference(BaseModel):
    """Which runtime predicts in the service, and how the ONNX export compared with scikit-learn."""

    runtime: Literal["onnxruntime", "scikit-learn"]
    reason: str  # for scikit-learn as the runtime; otherwise empty
    n_rows_compared: int
    # Relative to max(|prediction|, standard deviation of the target).
    largest_difference: float | None = None
    # Duration of a prediction during training, by runtime and number of rows.
    milliseconds: dict[str, dict[int, float]]
    # Requirements of the pickle, if scikit-learn predicts: packages with exact versions, which the
    # image gets in addition to requirements-serve.txt, and Python files of the project, such as
    # "steps.py".
    packages: list[str] = []
    project_files: list[str] = []
    input: InputType  # of scikit-learn's estimator


class TrainingMetadata(BaseModel):
    """The metadata that training saves with a model in the model store."""

    trained_at: datetime
    target: dict[str, str]  # its "name", "description" and "unit"
    feature_names: list[str]
    # Training range of each number or integer: its minimum and maximum.
    training_range: dict[str, Range]
    # The minimum, the nine deciles and the maximum of each number or integer.
    training_deciles: dict[str, list[float]] = {}
    # Distinct training values of each category and boolean.
    training_values: dict[str, list[str | bool]] = {}
    # Share of the training rows with each of the `training_values`, in the same order.
    training_shares: dict[str, list[float]] = {}
    # Share of the training rows in which the value is missing, for each nullable feature.
    training_gaps: dict[str, float] = {}
    # Column types of the training DataFrame, by feature.
    column_dtypes: dict[str, str]
    # Cumulative distribution of the predictions for the training data: for each bound, the share
    # of predictions at or below it.
    prediction_distribution: dict[float, float]
    metrics: dict[str, float]
    target_std: float
    inference: Inference
    data_sha256: str
    file_sha256: dict[str, str]  # by name of the model's file
    versions: dict[str, str]  # of Python and the packages

    @property
    def nullable_features(self) -> set[str]:
        """The names of the features that were nullable when the model was trained."""
        return set(self.training_gaps)

    @property
    def inference_file(self) -> str:
        """The name of the model file that the service loads."""
        return ONNX_FILE if self.inference.runtime == "onnxruntime" else PICKLE_FILE


def training_metadata(model: bentoml.Model) -> TrainingMetadata:
    """Return the metadata of a model; raise one of MODEL_READ_ERRORS if they are damaged."""
    return TrainingMetadata.model_validate(model.info.metadata)


def to_tag(tag: str | bentoml.Tag) -> bentoml.Tag:
    """Convert a text such as "name:version" to a tag."""
    return bentoml.Tag.from_taglike(tag)


@attrs.frozen
class ModelReference(BentoModel):
    """A reference to a stored model that was trained on the features of a record type.

    `stored` (of BentoML) finds the model without checking it, `resolve()` finds and checks it, and
    `resolved` calls `resolve()` once. In an instance of the class that `service.py` defines,
    `self.model` is `resolved`.
    """

    tag: bentoml.Tag = attrs.field(converter=to_tag)  # declared again for mypy
    record_type: type[BaseModel] = attrs.field()

    def resolve(self, base_path: Any = None) -> bentoml.Model:
        """Return the model; raise BentoMLException, saying what to do, if it can't be served.

        Its metadata must be readable and fit the record type. The file that the service loads, and
        the golden predictions, must be unchanged.
        """
        try:
            model = super().resolve(base_path)
            check_outdated(model)
            training = training_metadata(model)
        except OutdatedModelError:  # its own message says more
            raise
        except MODEL_READ_ERRORS as error:
            raise NotFound(
                f"The model store has no {self.tag} saved by train.py: "
                "run `make train`, or correct MODEL"
            ) from error
        self.check_feature_names(model.tag, training.feature_names)
        check_record_type(self.record_type)
        self.check_column_types(model.tag, training)
        for name in (training.inference_file, GOLDEN_FILE):
            read_verified(model, training, name)
        return model

    def pinned(self) -> Self:
        """Return a reference to the newest version instead of to `latest`.

        service.py describes the image when it is imported. `bentoml build` looks up the model
        later, when `latest` may be another. If no model can be read, return `self`: `resolve` will
        say why.
        """
        with suppress(*MODEL_READ_ERRORS):
            if stored := self.stored:
                return attrs.evolve(self, tag=stored.tag)
        return self

    @property
    def resolved(self) -> bentoml.Model:
        """The model, found and checked at the first access, and kept even if the store loses it.

        BentoML's `Model.__get__` calls `resolve` once and keeps the result in the reference. It
        runs when an instance reads a reference that is an attribute of its class; this property
        calls it directly. Its first argument, the instance, only must not be None.
        """
        return self.__get__(self, type(self))

    def check_feature_names(self, tag: bentoml.Tag, trained_on: list[str]) -> None:
        """Raise BentoMLException unless the model has the features of the record type, in order."""
        features = list(feature_schemas(self.record_type))
        if trained_on != features:
            difference = sorted({*trained_on} ^ {*features}) or ["their order"]
            raise BentoMLException(
                f"Model {tag} was trained on other features than those of "
                f"{self.record_type.__name__} ({', '.join(difference)}): run `make train`"
            )

    def check_column_types(self, tag: bentoml.Tag, training: TrainingMetadata) -> None:
        """Raise BentoMLException if the type of a feature has changed since training."""
        for name, schema in feature_schemas(self.record_type).items():
            trained = training.column_dtypes[name], name in training.nullable_features
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
    """An earlier version of this project saved the model."""


def check_outdated(model: bentoml.Model) -> None:
    """Raise OutdatedModelError if the metadata lack `column_dtypes`, as in earlier versions."""
    metadata = model.info.metadata
    if "feature_names" in metadata and "column_dtypes" not in metadata:
        raise OutdatedModelError(
            f"Model {model.tag} was saved by an earlier version of this project: run `make train`"
        )


def read_training_texts(model: bentoml.Model) -> dict[str, list[str]]:
    """Return the distinct training values of each text feature."""
    training = training_metadata(model)
    if TEXTS_FILE not in training.file_sha256:
        return {}
    return json.loads(read_verified(model, training, TEXTS_FILE))


def read_golden(model: bentoml.Model) -> dict[str, Any]:
    """Return a dictionary: "rows", and "predictions" that scikit-learn made during training.

    The rows are some training rows, and then the probe rows.
    """
    return json.loads(read_verified(model, training_metadata(model), GOLDEN_FILE))


def read_verified(model: bentoml.Model, training: TrainingMetadata, name: str) -> bytes:
    """Return the content of a model file; raise BentoMLException if its SHA-256 is not as saved.

    A pickle is a program, so its SHA-256 must be verified before unpickling.
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
