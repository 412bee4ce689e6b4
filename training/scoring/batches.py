"""Score batches of Arrow or pandas anywhere, such as in the actors of Ray Data."""

import json
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import bentoml
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from serving.model import ModelReference, read_verified, training_metadata
from training.scoring.checks import body_of, check_columns
from training.scoring.scorer import Scorer, take

ERROR = "prediction_error"  # column of why a row has no prediction, as JSON


class PortableModel(NamedTuple):
    """A model out of the store, to send to machines that do not have it."""

    tag: str
    metadata: dict[str, Any]
    files: dict[str, bytes]

    @classmethod
    def from_store(cls, reference: ModelReference) -> "PortableModel":
        """Return a stored model; raise BentoMLException as the service does."""
        model = reference.resolve()
        training = training_metadata(model)
        names = training.file_sha256
        files = {name: read_verified(model, training, name) for name in names}
        return cls(str(model.tag), model.info.metadata, files)

    def unpack(self) -> Any:
        """Return the model as the store would, with files in a folder of this machine."""
        folder = Path(tempfile.mkdtemp(prefix="model-"))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return SimpleNamespace(
            tag=bentoml.Tag.from_str(self.tag),
            info=SimpleNamespace(metadata=self.metadata),
            path_of=lambda name: str(folder / name),
        )


class BatchScorer:
    """Scores batches with one model, which is loaded and checked once, when this is created.

    `data_ending` says how to read the cells: ".csv" if they are strings as in a CSV file, ".jsonl"
    if they are JSON texts, ".parquet" if they are values.
    """

    def __init__(
        self,
        model: PortableModel,
        record_type: type[BaseModel],
        data_ending: str = ".parquet",
        output_ending: str = ".parquet",
        unread: Sequence[str] = (),  # columns that are passed on as they are
    ) -> None:
        self.unread = unread
        self.scorer = Scorer(model.unpack(), body_of(record_type), data_ending, output_ending)

    def __call__(self, batch: pa.Table | pd.DataFrame) -> pa.Table | pd.DataFrame:
        """Return all rows with their `prediction`, `model_tag` and `prediction_error`.

        A row with an error has no prediction. So does one that has an error already.
        """
        if isinstance(batch, pd.DataFrame):
            return self(pa.Table.from_pandas(batch, preserve_index=False)).to_pandas()
        check_columns(batch.schema, self.scorer.body.record_type)
        errors: list[str | None] = [None] * len(batch)
        if ERROR in batch.column_names:
            errors = batch[ERROR].to_pylist()
            batch = batch.drop_columns([ERROR])
        passed_on = {name: batch[name] for name in self.unread}
        batch = batch.drop_columns(list(self.unread))
        readable = [place for place, error in enumerate(errors) if error is None]
        scored = self.scorer.score(take(batch, readable))
        for place, message in scored.errors.items():
            errors[readable[place]] = json.dumps(message, ensure_ascii=False)
        positions = count()
        table = take(scored.table, [next(positions) if e is None else None for e in errors])
        for n, field in enumerate(table.schema):
            if (
                field.name in batch.column_names
                and batch.schema.field(field.name).type == field.type
            ):
                table = table.set_column(n, field, batch[field.name])
        for name, column in passed_on.items():
            table = table.append_column(name, column)
        return table.append_column(ERROR, pa.array(errors, pa.string()))
