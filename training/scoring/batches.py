"""Score batches of Arrow or pandas anywhere, such as in the actors of Ray Data."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import bentoml
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from serving.model import ModelReference, read_verified, training_metadata
from training.request_body import make_body_type
from training.scoring.checks import check_columns
from training.scoring.scorer import Scorer, take

ERROR = "prediction_error"  # column with the error message of a row as JSON, or null


class PortableModel(NamedTuple):
    """A stored model with its files in memory, to send to machines whose model store lacks it."""

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
        """Return the model as the model store does, with its files in a temporary folder."""
        folder = Path(tempfile.mkdtemp(prefix="model-"))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return SimpleNamespace(
            tag=bentoml.Tag.from_str(self.tag),
            info=SimpleNamespace(metadata=self.metadata),
            path_of=lambda name: str(folder / name),
        )


class BatchScorer:
    """Scores batches with one model, which __init__ loads and verifies.

    `data_ending` is the format of the cells: ".csv" for strings as in a CSV file, ".jsonl" for JSON
    texts, ".parquet" for values.
    """

    def __init__(
        self,
        model: PortableModel,
        record_type: type[BaseModel],
        data_ending: str = ".parquet",
        output_ending: str = ".parquet",
        passthrough: Sequence[str] = (),  # columns that are neither read nor converted
    ) -> None:
        self.passthrough = list(passthrough)
        self.scorer = Scorer(
            model.unpack(), make_body_type(record_type), data_ending, output_ending
        )

    def __call__(self, batch: pa.Table | pd.DataFrame) -> pa.Table | pd.DataFrame:
        """Return all rows with their `prediction`, `model_tag` and `prediction_error`.

        A row that comes with a `prediction_error` keeps it, and is not predicted.
        """
        if isinstance(batch, pd.DataFrame):
            return self(pa.Table.from_pandas(batch, preserve_index=False)).to_pandas()
        check_columns(batch.schema, self.scorer.body.record_type)
        passthrough = batch.select(self.passthrough)
        batch, errors = split_errors(batch.drop_columns(self.passthrough))
        without_error = [index for index, error in enumerate(errors) if error is None]
        scored = self.scorer.score(take(batch, without_error))
        for index, message in scored.errors.items():
            errors[without_error[index]] = json.dumps(message, ensure_ascii=False)
        table = restore_values(expand(scored.table, errors), batch)
        for name, column in zip(self.passthrough, passthrough.columns, strict=True):
            table = table.append_column(name, column)
        return table.append_column(ERROR, pa.array(errors, pa.string()))


def split_errors(batch: pa.Table) -> tuple[pa.Table, list[str | None]]:
    """Return a batch without the column ERROR, and the error of each row or None."""
    if ERROR not in batch.column_names:
        return batch, [None] * len(batch)
    return batch.drop_columns([ERROR]), batch[ERROR].to_pylist()


def expand(scored: pa.Table, errors: Iterable[str | None]) -> pa.Table:
    """Return the scored rows with a row of nulls in the place of each row that has an error."""
    indices = count()
    return take(scored, [next(indices) if error is None else None for error in errors])


def restore_values(table: pa.Table, batch: pa.Table) -> pa.Table:
    """Fill the rows that have an error with their values in the batch.

    Columns whose type scoring has converted remain null in these rows.
    """
    for index, field in enumerate(table.schema):
        if field.name in batch.column_names and batch.schema.field(field.name).type == field.type:
            table = table.set_column(index, field, batch[field.name])
    return table
