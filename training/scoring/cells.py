"""The JSON values of a table's cells, and the columns of the output, for each kind of file."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import repeat
from typing import Any, Protocol

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
NUMBER = b"0123456789+-.eE,"
ABSENT = "{}"  # in the place of a value: no feature may be an object

Schemas = Mapping[str, Schema]  # of the features


class Columns(Protocol):
    """How the cells of one kind of file stand for JSON values."""

    null: str  # how a gap is written, for messages

    def to_json(self, column: pa.Array, schema: Schema, exact: bool) -> bytes:
        """Return a feature's values as a JSON array.

        Without `exact` it need not be valid JSON if a value is unusual.
        """

    def record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the JSON values of a row's features; leave out those that it lacks."""

    def output(self, table: pa.Table, rows: Rows, schemas: Schemas, ending: str) -> pa.Table:
        """Return the columns of valid rows for a file of another kind, or the same."""


class CsvColumns:
    """Cells are strings, read as in the training data."""

    null = "an empty cell"

    def to_json(self, column: pa.Array, schema: Schema, exact: bool) -> bytes:
        """Return a feature's values as a JSON array."""
        if kind_of(schema) in ("number", "integer") and not exact:
            joined = join(column)
            # No cell can be JSON but a number, unless it has other characters.
            if not joined[1:-1].translate(None, NUMBER) and joined.count(b",") == len(column) - 1:
                return joined
        cells = column.to_pylist()
        values = {cell: parse_cell(cell, schema) for cell in set(cells)}
        return to_json([values[cell] for cell in cells])

    def record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the JSON values of a row's features."""
        return {name: parse_cell(row[name], schema) for name, schema in schemas.items()}

    def output(self, table: pa.Table, rows: Rows, schemas: Schemas, ending: str) -> pa.Table:
        """Return features of their types, or for a CSV file the cells as they are."""
        return table if ending == ".csv" else with_features(table, rows, schemas)


class JsonColumns:
    """Cells are JSON texts, or null where a record lacks the feature."""

    null = "null"

    def to_json(self, column: pa.Array, schema: Schema, exact: bool) -> bytes:
        """Return a feature's values as a JSON array, with ABSENT for those that are not there."""
        return join(column.fill_null(ABSENT))

    def record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the JSON values of a row's features; leave out those that it lacks."""
        return {name: from_json(row[name]) for name in schemas if row[name] is not None}

    def output(self, table: pa.Table, rows: Rows, schemas: Schemas, ending: str) -> pa.Table:
        """Return features of their types; other columns are JSON texts, or just texts."""
        others = [name for name in table.column_names if name not in schemas]
        for name in others:
            n = table.column_names.index(name)
            if ending == ".jsonl":
                field = pa.field(name, pa.string(), metadata=JSON_TEXT)
                table = table.set_column(n, field, table[name])
            else:
                values = [unquote(text) for text in table[name].to_pylist()]
                table = table.set_column(n, name, pa.array(values, pa.string()))
        return with_features(table, rows, schemas)


class TypedColumns:
    """Cells have the types of Arrow."""

    null = "null"

    def to_json(self, column: pa.Array, schema: Schema, exact: bool) -> bytes:
        """Return a feature's values as a JSON array."""
        values = column
        if pa.types.is_decimal(column.type):
            values = column.cast(pa.float64())
        return to_json(values.to_pylist())

    def record(self, row: Mapping[str, Any], schemas: Schemas) -> dict[str, Any]:
        """Return the JSON values of a row's features."""
        values = {name: row[name] for name in schemas}
        return {
            name: float(value) if isinstance(value, Decimal) else value
            for name, value in values.items()
        }

    def output(self, table: pa.Table, rows: Rows, schemas: Schemas, ending: str) -> pa.Table:
        """Return the columns as they are."""
        return table


COLUMNS: dict[str, Columns] = {  # by the ending of the file
    ".csv": CsvColumns(),
    ".jsonl": JsonColumns(),
    ".parquet": TypedColumns(),
}


def join(column: pa.Array) -> bytes:
    """Return JSON texts as a JSON array."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(column)], column), ",")
    return b"[%b]" % joined[0].as_buffer().to_pybytes()


def arrow_type(schema: Schema) -> pa.DataType:
    """Return the type of a feature's column."""
    return ARROW_TYPES[kind_of(schema) or "text"]


def with_features(table: pa.Table, rows: Rows, schemas: Schemas) -> pa.Table:
    """Return a table with the values of rows in place of its features."""
    columns: Iterable[Any] = rows.T if isinstance(rows, np.ndarray) else zip(*rows, strict=True)
    for (name, schema), values in zip(
        schemas.items(), columns if len(rows) else repeat(()), strict=False
    ):
        array = pa.array(values, arrow_type(schema), from_pandas=True)  # a NaN is a gap
        table = table.set_column(table.column_names.index(name), name, array)
    return table


def unquote(text: str | None) -> str | None:
    """Return the string that a JSON text is, or the text of any other value; None for null."""
    value = None if text is None else from_json(text)
    return value if isinstance(value, str | None) else text
