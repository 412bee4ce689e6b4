"""Validate and predict the rows of a table, as the service does."""

from collections.abc import Collection, Iterator, Sequence
from itertools import compress
from math import isfinite
from typing import Any, NamedTuple

import bentoml
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator, core_schema, to_json

from serving.errors import UNPREDICTABLE
from serving.features import feature_schemas, kind_of
from serving.record_errors import Loc, error_message, field_errors
from serving.records import RequestBody, Row, to_row
from training.scoring.cells import CELL_FORMATS
from training.stored_model import Rows, StoredModel

Message = str | dict[str, str]  # of an error
ADDED = ("prediction", "model_tag")  # columns of the output


class Scored(NamedTuple):
    """The predicted rows of a table, and the errors of the others."""

    table: pa.Table  # of the rows that have a prediction, with ADDED
    errors: dict[int, Message]  # by the index of the row in the table that was scored


class Scorer:
    """Scores tables of one kind of file with a stored model, for output to one kind of file."""

    def __init__(
        self, model: bentoml.Model, body: type[RequestBody], data_ending: str, output_ending: str
    ) -> None:
        """Load the model; raise BentoMLException as the service does."""
        self.model = StoredModel(model)
        self.body = body  # of one record
        self.cells = CELL_FORMATS[data_ending]
        self.output_ending = output_ending
        self.schemas = feature_schemas(body.record_type)
        self.are_numbers = all(kind_of(schema) == "number" for schema in self.schemas.values())
        self.column_validator = column_validator(body.record_type)

    def score(self, table: pa.Table) -> Scored:
        """Predict the rows that are valid records; raise TrainingError if the model fails."""
        indices, rows, errors = self.validate(table)
        predictions = self.model.predict(rows)
        is_predicted = list(map(isfinite, predictions))
        if not all(is_predicted):
            errors |= {
                index: UNPREDICTABLE
                for index, predicted in zip(indices, is_predicted, strict=True)
                if not predicted
            }
            indices = list(compress(indices, is_predicted))
            rows = self.to_rows(list(compress(rows, is_predicted)))
            predictions = list(compress(predictions, is_predicted))
        if errors:
            table = take(table, indices)
        return Scored(self.add_predictions(table, rows, predictions), errors)

    def add_predictions(self, table: pa.Table, rows: Rows, predictions: list[float]) -> pa.Table:
        """Return the columns of the output, for rows that are predicted."""
        table = self.cells.output_columns(table, rows, self.schemas, self.output_ending)
        tags = pa.repeat(self.model.tag, len(rows))
        arrays = (pa.array(predictions, pa.float64()), tags)
        for name, array in zip(ADDED, arrays, strict=True):
            table = table.append_column(name, array)
        return table

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the output for tables of a schema."""
        return self.add_predictions(schema.empty_table(), self.to_rows([]), []).schema

    def validate(self, table: pa.Table) -> tuple[Sequence[int], Rows, dict[int, Message]]:
        """Return the valid rows with their indices, and the errors of the others by index."""
        rows, suspects = self.validate_by_column(table)
        if not suspects:
            return range(len(table)), rows, {}
        others = [index for index in range(len(table)) if index not in suspects]
        rows, _ = self.validate_by_column(take(table, others))  # these are valid
        valid = dict(zip(others, rows, strict=True))
        errors: dict[int, Message] = {}
        for index in suspects:
            (cells,) = table.slice(index, 1).to_pylist()
            try:
                valid[index] = self.validate_record(self.cells.to_record(cells, self.schemas))
            except ValidationError as error:
                found = field_errors(error, self.body.nullable, self.cells.null)
                errors[index] = error_message(error.error_count(), found)
        indices = sorted(valid)
        return indices, self.to_rows([valid[index] for index in indices]), errors

    def validate_by_column(self, table: pa.Table) -> tuple[Rows, Collection[int]]:
        """Return (all rows, []) if all are valid, otherwise ([], the indices of the suspects).

        Suspects are the rows that may be invalid: all, if it is not known which ones are.
        Validating whole columns is five times as fast as creating a record for each row.
        """
        if not self.column_validator:
            return [], range(len(table))
        # `quick_json` may return invalid JSON, whose error names no row: then try `to_json`.
        for to_json_array in (self.cells.quick_json, self.cells.to_json):
            columns = [
                to_json_array(table[name].combine_chunks(), schema)
                for name, schema in self.schemas.items()
            ]
            try:
                values = self.column_validator.validate_json(b"[%b]" % b",".join(columns))
            except ValidationError as error:
                # An error's location is a column and a row, or empty for invalid JSON.
                if suspects := {int(loc[1]) for loc in error_locs(error) if len(loc) > 1}:
                    return [], suspects
            else:
                return self.to_rows(values, by_column=True), []
        return [], range(len(table))

    def to_rows(self, values: Sequence[Sequence[Any]], by_column: bool = False) -> Rows:
        """Return values, given by row or by column, as rows: an array if all are numbers."""
        if self.are_numbers:
            array = np.array(values, np.float64)  # faster than tuples; a missing value is NaN
            return array.T if by_column else array.reshape(-1, len(self.schemas))
        return list(zip(*values, strict=True)) if by_column else [tuple(each) for each in values]

    def validate_record(self, record: dict[str, Any]) -> Row:
        """Return the row of a record; raise ValidationError."""
        return to_row(self.body.validate(to_json(record)))


def take(table: pa.Table, indices: Sequence[int | None]) -> pa.Table:
    """Return the rows with some indices; None gives a row of nulls."""
    return table.take(pa.array(indices, pa.int64()))  # an empty list would have no type


def error_locs(error: ValidationError) -> Iterator[Loc]:
    """Yield the location of each error that pydantic found."""
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        yield details["loc"]


def column_validator(record_type: type[BaseModel]) -> SchemaValidator | None:
    """Return a validator of a JSON array with an array for each feature.

    It consists of the record type's validators of single features. Return None if the record type
    may have a validator of several features.
    """
    schema: Any = record_type.__pydantic_core_schema__
    definitions = []
    if schema["type"] == "definitions":
        schema, definitions = schema["schema"], schema["definitions"]
    if schema["type"] != "model" or schema["schema"]["type"] != "model-fields":
        return None
    # A validator that takes pydantic's ValidationInfo may read other features (info.data). There is
    # no public way to find one: look for `with-info`, which the core schema contains for it. A test
    # fails if a version of pydantic calls it differently.
    is_custom = schema.get("custom_init") or schema.get("post_init") or schema.get("root_model")
    features = schema["schema"]["fields"].values()
    if is_custom or "with-info" in repr(features):
        return None
    lists: list[Any] = [core_schema.list_schema(feature["schema"]) for feature in features]
    columns = core_schema.definitions_schema(core_schema.tuple_schema(lists), definitions)
    return SchemaValidator(columns, schema["config"])
