"""Check the rows of a table with the record type, and predict them, as the service does."""

from collections.abc import Collection, Iterator, Sequence
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
from training.scoring.cells import COLUMNS
from training.stored_model import Rows, StoredModel

Message = str | dict[str, str]


ADDED = ("prediction", "model_tag")  # columns of the output


class Scored(NamedTuple):
    """What became of the rows of a table."""

    table: pa.Table  # of the rows that have a prediction, with ADDED
    errors: dict[int, Message]  # of the others, by their place in the table


class Scorer:
    """Scores tables of one kind of file with a stored model, for output to one kind of file."""

    def __init__(
        self, model: bentoml.Model, body: type[RequestBody], data_ending: str, output_ending: str
    ) -> None:
        """Load the model; raise BentoMLException as the service does."""
        self.model = StoredModel(model)
        self.body = body  # of one record
        self.columns = COLUMNS[data_ending]
        self.output_ending = output_ending
        self.schemas = feature_schemas(body.record_type)
        self.are_numbers = all(kind_of(schema) == "number" for schema in self.schemas.values())
        self.validator = column_validator(body.record_type)

    def score(self, table: pa.Table) -> Scored:
        """Predict the rows that are valid records; raise TrainingError if the model fails."""
        places, rows, errors = self.check(table)
        predictions = self.model.predict(rows)
        if not all(map(isfinite, predictions)):
            unpredicted = [n for n, each in enumerate(predictions) if not isfinite(each)]
            errors |= {places[n]: UNPREDICTABLE for n in unpredicted}
            kept = [n for n, each in enumerate(predictions) if isfinite(each)]
            places, rows = [places[n] for n in kept], self.to_rows([rows[n] for n in kept])
            predictions = [predictions[n] for n in kept]
        if errors:
            table = take(table, places)
        return Scored(self.output(table, rows, predictions), errors)

    def output(self, table: pa.Table, rows: Rows, predictions: list[float]) -> pa.Table:
        """Return the columns of the output, for rows that are predicted."""
        table = self.columns.output(table, rows, self.schemas, self.output_ending)
        tags = pa.repeat(self.model.tag, len(rows))
        arrays = (pa.array(predictions, pa.float64()), tags)
        for name, array in zip(ADDED, arrays, strict=True):
            table = table.append_column(name, array)
        return table

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the output for tables of a schema."""
        return self.output(schema.empty_table(), self.to_rows([]), []).schema

    def check(self, table: pa.Table) -> tuple[Sequence[int], Rows, dict[int, Message]]:
        """Return the places of the valid rows, these rows, and messages for the others."""
        rows, suspects = self.check_columns(table)
        if not suspects:
            return range(len(table)), rows, {}
        others = [place for place in range(len(table)) if place not in suspects]
        rows, _ = self.check_columns(take(table, others))
        checked = dict(zip(others, rows, strict=True))
        errors: dict[int, Message] = {}
        for place in suspects:
            (cells,) = table.slice(place, 1).to_pylist()
            try:
                checked[place] = self.check_record(self.columns.record(cells, self.schemas))
            except ValidationError as error:
                found = field_errors(error, self.body.nullable, self.columns.null)
                errors[place] = error_message(error.error_count(), found)
        places = sorted(checked)
        return places, self.to_rows([checked[place] for place in places]), errors

    def check_columns(self, table: pa.Table) -> tuple[Rows, Collection[int]]:
        """Return all rows if they are valid records, otherwise the places of those that may not be.

        The validators of the features get a column each, since pydantic takes five times as long
        to create a record for each row.
        """
        if not self.validator:
            return [], range(len(table))
        for exact in (False, True):
            columns = [
                self.columns.to_json(table[name].combine_chunks(), schema, exact)
                for name, schema in self.schemas.items()
            ]
            try:
                values = self.validator.validate_json(b"[%b]" % b",".join(columns))
            except ValidationError as error:
                # Without a place if it is no JSON.
                if suspects := {int(loc[1]) for loc in error_locs(error) if len(loc) > 1}:
                    return [], suspects
            else:
                return self.to_rows(values, by_column=True), []
        return [], range(len(table))

    def to_rows(self, values: Sequence[Sequence[Any]], by_column: bool = False) -> Rows:
        """Return rows, given by row or by column, as an array if all features are numbers."""
        if self.are_numbers:
            array = np.array(values, np.float64)  # faster than tuples; a gap is NaN
            return array.T if by_column else array.reshape(-1, len(self.schemas))
        return list(zip(*values, strict=True)) if by_column else [tuple(each) for each in values]

    def check_record(self, record: dict[str, Any]) -> Row:
        """Return the row of a record; raise ValidationError."""
        return to_row(self.body.validate(to_json(record)))


def take(table: pa.Table, places: Sequence[int | None]) -> pa.Table:
    """Return some rows of a table; None gives a row of nulls."""
    return table.take(pa.array(places, pa.int64()))  # an empty list would have no type


def error_locs(error: ValidationError) -> Iterator[Loc]:
    """Yield the location of each error that pydantic found."""
    for details in error.errors(include_url=False, include_context=False, include_input=False):
        yield details["loc"]


def column_validator(record_type: type[BaseModel]) -> SchemaValidator | None:
    """Return a validator of the columns of records, as a JSON array of arrays.

    It consists of the record type's own validators of its features. Return None if there may be
    others, which see several features at once.
    """
    schema: Any = record_type.__pydantic_core_schema__
    definitions = []
    if schema["type"] == "definitions":
        schema, definitions = schema["schema"], schema["definitions"]
    if schema["type"] != "model" or schema["schema"]["type"] != "model-fields":
        return None
    is_custom = schema.get("custom_init") or schema.get("post_init") or schema.get("root_model")
    features = schema["schema"]["fields"].values()
    if is_custom or "with-info" in repr(features):  # such a validator may read other features
        return None
    lists: list[Any] = [core_schema.list_schema(feature["schema"]) for feature in features]
    columns = core_schema.definitions_schema(core_schema.tuple_schema(lists), definitions)
    return SchemaValidator(columns, schema["config"])
