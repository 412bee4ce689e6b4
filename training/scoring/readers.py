"""Read CSV, JSON Lines and Parquet files as Arrow tables, in bounded memory."""

import csv
import io
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem
from pydantic_core import from_json, to_json

from serving.errors import APIError
from serving.features import feature_schemas
from serving.record_errors import error_message, repeated_features
from serving.records import RequestBody
from training.errors import InvalidDataError
from training.scoring.blocks import Block, read_blocks
from training.scoring.checks import check_columns
from training.scoring.scorer import Message

MAX_ROWS = 10_000  # of a chunk


class Chunk(NamedTuple):
    """Consecutive rows of a file."""

    table: pa.Table  # of the readable rows
    numbers: Sequence[int]  # line or row number of each row of the table
    unreadable: dict[int, Message]  # the errors of the other rows, by line or row number
    size: int  # in the `size_unit` of the reader


class Reader(Protocol):
    """Reads a file as tables of one schema; __init__ raises InvalidDataError or OSError."""

    number_key: str  # "line" or "row": what the numbers of rows count
    size_unit: str
    size: int
    schema: pa.Schema

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; raise InvalidDataError or OSError."""


class ArrowPath(NamedTuple):
    """A file or folder on a filesystem of Arrow, such as the local one or S3."""

    filesystem: FileSystem
    path: str

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.filesystem.get_file_info(self.path).size

    def open(self) -> pa.NativeFile:
        """Open the file to read; raise OSError."""
        return self.filesystem.open_input_file(self.path)


class CsvReader:
    """A CSV file with a header. The cells of its tables are strings."""

    number_key = "line"
    size_unit = "B"

    def __init__(self, file: ArrowPath) -> None:
        self.file = file
        self.size = file.size
        self.names = self.read_header()
        self.schema = pa.schema([(name, pa.string()) for name in self.names])

    def read_header(self) -> list[str]:
        """Return the names of the columns."""
        with self.file.open() as file:
            block = next(read_blocks(file, quotes=True), Block(b"", b"", 1))
        header = block.text[: block.header_length()].decode().rstrip("\r\n")
        if not header:
            raise InvalidDataError("line 1 is empty: it has to name the columns")
        if "\r" in header:
            raise InvalidDataError("line 1 has a CR inside: convert the line ends to LF")
        return next(csv.reader(io.StringIO(header, newline="")))

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; raise InvalidDataError or OSError."""
        with self.file.open() as file:
            for block in read_blocks(file, quotes=True):
                rows = block.without_header() if block.first_line == 1 else block
                yield from split_chunk(self.parse(rows, len(block.text)))

    def parse(self, block: Block, size: int) -> Chunk:
        """Return the rows of a block, which has no header."""
        text, lines = block.without_blank_rows()
        invalid: list[pyarrow.csv.InvalidRow] = []
        table = self.parse_cells(text, invalid) if text else self.schema.empty_table()
        if len(table) + len(invalid) != len(lines):
            raise InvalidDataError(
                f"line {block.first_line} or one of the next {len(lines)} has a CR inside: convert "
                "the line ends to LF, or put the cell in quotes"
            )
        indices = [row.number - 1 for row in invalid]
        unreadable: dict[int, Message] = {
            int(lines[index]): f"There are {row.actual_columns} cells for {len(self.names)} columns"
            for index, row in zip(indices, invalid, strict=True)
        }
        return Chunk(table, np.delete(lines, indices).tolist(), unreadable, size)

    def parse_cells(self, text: bytes, invalid: list[Any]) -> pa.Table:
        """Return the rows of a text; append those with too many or too few cells to `invalid`."""

        def skip(row: Any) -> str:
            invalid.append(row)
            return "skip"

        types = {name: pa.string() for name in self.names}
        return pyarrow.csv.read_csv(
            pa.BufferReader(text),
            # Invalid rows have a number only in a single block and thread.
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, column_names=self.names
            ),
            pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            pyarrow.csv.ConvertOptions(check_utf8=False, column_types=types),
        )


class JsonLinesReader:
    """A file with a JSON object in each line.

    The cells of its tables are JSON texts, or null if a line lacks the column.
    """

    number_key = "line"
    size_unit = "B"

    def __init__(
        self, file: ArrowPath, body: type[RequestBody], schema: pa.Schema | None = None
    ) -> None:
        """Find the columns, unless a schema is given."""
        self.file = file
        self.body = body  # of one record
        self.size = file.size
        self.schema = schema or self.find_columns()

    def find_columns(self) -> pa.Schema:
        """Return the columns of all lines, since any line may have another one."""
        names: dict[str, None] = {}
        for block in self.blocks():
            for _, line in numbered_lines(block):
                record, _ = self.parse_line(line)
                names.update(dict.fromkeys(record))
        names.update(dict.fromkeys(feature_schemas(self.body.record_type)))
        return pa.schema([(name, pa.string()) for name in names])

    def blocks(self) -> Iterator[Block]:
        """Yield the file in blocks of whole lines."""
        with self.file.open() as file:
            yield from read_blocks(file, quotes=False)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; raise InvalidDataError or OSError."""
        for block in self.blocks():
            records, numbers, unreadable = [], [], {}
            for number, line in numbered_lines(block):
                record, message = self.parse_line(line)
                if message:
                    unreadable[number] = message
                else:
                    records.append({key: to_json(value).decode() for key, value in record.items()})
                    numbers.append(number)
            table = pa.Table.from_pylist(records, self.schema)
            yield from split_chunk(Chunk(table, numbers, unreadable, len(block.text)))

    def parse_line(self, line: bytes) -> tuple[dict[str, Any], Message | None]:
        """Return the record of a line and None, or the error message of the service."""
        line = line.removeprefix(BOM_UTF8)  # from a file that was appended to another
        try:
            record = from_json(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            return {}, self.service_error(line)
        # `from_json` keeps the last of repeated names. More colons than names usually come from
        # strings, but may come from a repeated name.
        if line.count(b":") > len(record) and (repeated := list(repeated_features(line))):
            return {}, error_message(len(repeated), repeated)
        return record, None

    def service_error(self, line: bytes) -> Message:
        """Return the error message of the service for a line that is not a JSON object."""
        try:
            self.body.parse(line)
        except APIError as error:
            return error.message
        return "Send one record, as a JSON object"


class ParquetReader:
    """A Parquet file. The columns of its tables have the types of the file."""

    number_key = "row"
    size_unit = "rows"

    def __init__(self, file: ArrowPath) -> None:
        self.file = file
        with self.open() as parquet:
            self.size = parquet.metadata.num_rows
            self.schema = parquet.schema_arrow

    def open(self) -> pq.ParquetFile:
        """Open the file; raise InvalidDataError or OSError."""
        try:
            return pq.ParquetFile(self.file.open(), pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowException as error:
            raise InvalidDataError(f"This is not a complete Parquet file: {error}") from None

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows; raise InvalidDataError or OSError."""
        number = 1
        with self.open() as parquet:
            batches = parquet.iter_batches(MAX_ROWS, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise InvalidDataError(
                        f"The file is damaged after row {number - 1}: {error}"
                    ) from None
                if batch is None:
                    return
                numbers = range(number, number := number + len(batch))
                yield Chunk(pa.Table.from_batches([batch]), numbers, {}, len(batch))


def split_chunk(chunk: Chunk) -> Iterator[Chunk]:
    """Yield chunks of at most MAX_ROWS."""
    unreadable, size = chunk.unreadable, chunk.size
    for start in range(0, len(chunk.table) or 1, MAX_ROWS):
        table = chunk.table.slice(start, MAX_ROWS)
        yield Chunk(table, chunk.numbers[start : start + MAX_ROWS], unreadable, size)
        unreadable, size = {}, 0


def numbered_lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a block, except blank ones, with their numbers."""
    text, numbers = block.without_blank_rows()
    return zip(numbers.tolist(), text.split(b"\n"), strict=False)


def open_reader(
    file: ArrowPath, body: type[RequestBody], schema: pa.Schema | None = None
) -> Reader:
    """Open a file with the reader for its ending; raise InvalidDataError or OSError.

    `schema`: that of JSON Lines, if it is known. To find it, the whole file is read.
    """
    reader: Reader
    if file.path.endswith(".jsonl"):
        reader = JsonLinesReader(file, body, schema)
    else:
        reader = CsvReader(file) if file.path.endswith(".csv") else ParquetReader(file)
    check_columns(reader.schema, body.record_type)
    return reader
