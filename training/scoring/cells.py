"""Convert the cells of each file format to JSON values, and to the columns of the output."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json, to_json

from serving.features import Schema, kind_of
from training.data import parse_cell
from training.scoring.writers import JSON_TEXT
from training.stored_model import Rows

ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
}
NUMBER_CHARACTERS = b"0123456789+-.eE,"  # of JSON numbers, joined by commas
ABSENT = "{}"  # placeholder for an absent value: an object is never a valid feature

Schemas = Mapping[str, Schema]  # of the features


class CellFormat(ABC):
    """Converts the cells of one file format to JSON values."""

    null: str  # how a missing value is written, for messages

    def quick_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Return a feature's values as a JSON array, or as invalid JSON if a cell is invalid."""
        return self.to_json(column, schema)

    @abstractmethod
    def to_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Return a feature's values as a JSON array."""

    @abstractmethod
    def to_record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the features of a row, without those that it lacks, as JSON values."""

    @abstractmethod
    def output_columns(
        self, table: pa.Table, rows: Rows, schemas: Schemas, output_ending: str
    ) -> pa.Table:
        """Return the columns of a table for an output file; `rows` are its validated rows."""


class CsvCells(CellFormat):
    """Cells are strings, read as in the training data."""

    null = "an empty cell"

    def quick_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Join the cells without parsing them, if they have only characters of numbers.

        Each one is then a JSON number or invalid JSON: the scorer then parses them with `to_json`.
        """
        if kind_of(schema) in ("number", "integer"):
            joined = join(column)
            has_other_characters = joined[1:-1].translate(None, NUMBER_CHARACTERS)
            if not has_other_characters and joined.count(b",") == len(column) - 1:
                return joined
        return self.to_json(column, schema)

    def to_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Return a feature's values as a JSON array; parse each distinct cell once."""
        cells = column.to_pylist()
        values = {cell: parse_cell(cell, schema) for cell in set(cells)}
        return to_json([values[cell] for cell in cells])

    def to_record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the features of a row as JSON values."""
        return {name: parse_cell(row[name], schema) for name, schema in schemas.items()}

    def output_columns(
        self, table: pa.Table, rows: Rows, schemas: Schemas, output_ending: str
    ) -> pa.Table:
        """Return typed features or, for a CSV file, the cells unchanged."""
        return table if output_ending == ".csv" else with_features(table, rows, schemas)


class JsonCells(CellFormat):
    """Cells are JSON texts, or null if a record lacks the feature."""

    null = "null"

    def to_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Return a feature's values as a JSON array, with ABSENT for missing features."""
        return join(column.fill_null(ABSENT))

    def to_record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the features of a row, without those that it lacks, as JSON values."""
        return {name: from_json(row[name]) for name in schemas if row[name] is not None}

    def output_columns(
        self, table: pa.Table, rows: Rows, schemas: Schemas, output_ending: str
    ) -> pa.Table:
        """Return typed features; other columns are JSON values in JSON Lines, otherwise texts."""
        for index, name in enumerate(table.column_names):
            if name in schemas:
                continue
            if output_ending == ".jsonl":
                field = pa.field(name, pa.string(), metadata=JSON_TEXT)
                table = table.set_column(index, field, table[name])
            else:
                texts = [decode_string(text) for text in table[name].to_pylist()]
                table = table.set_column(index, name, pa.array(texts, pa.string()))
        return with_features(table, rows, schemas)


class ArrowCells(CellFormat):
    """Cells have Arrow types."""

    null = "null"

    def to_json(self, column: pa.Array, schema: Schema) -> bytes:
        """Return a feature's values as a JSON array."""
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        return to_json(column.to_pylist())

    def to_record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the features of a row as JSON values."""
        values = {name: row[name] for name in schemas}
        return {
            name: float(value) if isinstance(value, Decimal) else value
            for name, value in values.items()
        }

    def output_columns(
        self, table: pa.Table, rows: Rows, schemas: Schemas, output_ending: str
    ) -> pa.Table:
        """Return the columns unchanged."""
        return table


CELL_FORMATS: dict[str, CellFormat] = {  # by the ending of the file
    ".csv": CsvCells(),
    ".jsonl": JsonCells(),
    ".parquet": ArrowCells(),
}


def join(column: pa.Array) -> bytes:
    """Join JSON texts to a JSON array."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(column)], column), ",")
    return b"[%b]" % joined[0].as_buffer().to_pybytes()


def arrow_type(schema: Schema) -> pa.DataType:
    """Return the type of a feature's column."""
    return ARROW_TYPES[kind_of(schema) or "text"]


def with_features(table: pa.Table, rows: Rows, schemas: Schemas) -> pa.Table:
    """Return a table whose features are replaced by the typed values of rows."""
    columns: Iterable[Any] = rows.T if isinstance(rows, np.ndarray) else zip(*rows, strict=True)
    if not len(rows):  # there is nothing to transpose: each feature gets an empty column
        columns = [()] * len(schemas)
    for (name, schema), values in zip(schemas.items(), columns, strict=True):
        array = pa.array(values, arrow_type(schema), from_pandas=True)  # NaN is a missing value
        table = table.set_column(table.column_names.index(name), name, array)
    return table


def decode_string(text: str | None) -> str | None:
    """Decode a JSON string; return the text of another JSON value, and None for null."""
    value = None if text is None else from_json(text)
    return value if isinstance(value, str | None) else text
