"""Write tables to a CSV, JSON Lines or Parquet file, atomically."""

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json, to_json

from training.errors import InvalidDataError

JSON_TEXT = {b"content": b"json"}  # metadata of a column of strings
ROW_GROUP_ROWS, ROW_GROUP_BYTES = 100_000, 1 << 25


class Writer(Protocol):
    """Writes tables of one schema to a file that the caller opens and closes."""

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table; raise OSError."""

    def finish(self) -> None:
        """Write the remaining rows; raise OSError."""


class CsvWriter:
    """Writes a CSV file with a header; quotes a cell only if necessary."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        for field in schema:
            if pa.types.is_nested(field.type) or is_binary(field.type):
                raise InvalidDataError(
                    f"The column {field.name} ({field.type}) can't be written to CSV: write "
                    ".parquet or .jsonl"
                )
        self.text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self.writer = csv.writer(self.text, lineterminator="\n")
        self.writer.writerow(schema.names)

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table; a null is an empty cell."""
        columns = [column.to_pylist() for column in table.columns]
        self.writer.writerows(zip(*columns, strict=True))

    def finish(self) -> None:
        """Detach from the file without closing it."""
        self.text.detach()


class JsonLinesWriter:
    """Writes a JSON object for each row."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.file = file
        self.json_texts = {field.name for field in schema if field.metadata == JSON_TEXT}

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table; omit a JSON text that is null."""
        for row in table.to_pylist():
            values = {
                name: from_json(value) if name in self.json_texts else value
                for name, value in row.items()
                if value is not None or name not in self.json_texts
            }
            line = to_json(values, inf_nan_mode="null", bytes_mode="base64", fallback=str)
            self.file.write(line + b"\n")

    def finish(self) -> None:
        """Do nothing: each line is complete."""


class ParquetWriter:
    """Writes a Parquet file, in row groups that fit in memory."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        # A dictionary pays only for a column with few distinct values.
        self.writer = pq.ParquetWriter(file, schema, use_dictionary=["model_tag"])
        self.tables: list[pa.Table] = []
        self.n_rows = self.n_bytes = 0

    def write(self, table: pa.Table) -> None:
        """Buffer the rows of a table, and write them once they fill a row group."""
        self.tables.append(table)
        self.n_rows += len(table)
        self.n_bytes += table.nbytes
        if self.n_rows >= ROW_GROUP_ROWS or self.n_bytes >= ROW_GROUP_BYTES:
            self.write_row_group()

    def write_row_group(self) -> None:
        """Write the buffered rows."""
        if self.tables:
            self.writer.write_table(pa.concat_tables(self.tables))
        self.tables = []
        self.n_rows = self.n_bytes = 0

    def finish(self) -> None:
        """Write the last rows, and the metadata."""
        self.write_row_group()
        self.writer.close()


WRITERS: dict[str, Callable[[BinaryIO, pa.Schema], Writer]] = {  # by the ending of the file
    ".csv": CsvWriter,
    ".jsonl": JsonLinesWriter,
    ".parquet": ParquetWriter,
}


@contextmanager
def atomic_write(output: Path, rejected: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open temporary files that replace both paths once both are complete and on the disk.

    If nothing was written to the second file, remove `rejected` instead.
    """
    temporary_output, temporary_rejected = (
        path.with_name(f".{path.name}.{os.getpid()}.part") for path in (output, rejected)
    )
    try:
        with temporary_output.open("wb") as file, temporary_rejected.open("wb") as rejected_file:
            yield file, rejected_file
            has_rejected = rejected_file.tell() > 0
            for each in (file, rejected_file):
                each.flush()
                os.fsync(each.fileno())
        temporary_output.replace(output)
        if has_rejected:
            temporary_rejected.replace(rejected)
        else:
            rejected.unlink(missing_ok=True)
    finally:
        temporary_output.unlink(missing_ok=True)
        temporary_rejected.unlink(missing_ok=True)


def is_binary(data_type: pa.DataType) -> bool:
    """Return whether the values of an Arrow type are bytes."""
    return (
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_fixed_size_binary(data_type)
    )
