"""Check which files can be scored, and where the results go."""

from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel

from serving.features import feature_schemas
from training.errors import InvalidDataError
from training.scoring.scorer import ADDED
from training.scoring.writers import WRITERS


def check_paths(data: Path, output: Path) -> Path:
    """Return the path for rejected rows; raise InvalidDataError or OSError."""
    check_ending(str(data))
    check_ending(str(output))
    rejected = output.with_suffix(".rejected.jsonl")
    data.stat()  # raises OSError if there is no such file
    for path in (output, rejected):
        if path.exists() and path.samefile(data):
            raise InvalidDataError(f"The output would replace {path}, the data: name another file")
    for path in (data, output, rejected):
        if path.exists() and not path.is_file():
            raise InvalidDataError(f"{path} is not a regular file")
    return rejected


def check_ending(path: str) -> str:
    """Return the ending of a path; raise InvalidDataError if it is unknown."""
    for ending in WRITERS:
        if path.endswith(ending):
            return ending
    raise InvalidDataError(f"{path} has to end with one of {', '.join(WRITERS)}")


def check_columns(schema: pa.Schema, record_type: type[BaseModel]) -> None:
    """Raise InvalidDataError unless a file with these columns can be scored."""
    names = schema.names
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InvalidDataError(f"Several columns have the name {repeated[0]}: rename them")
    if reserved := [name for name in ADDED if name in names]:
        raise InvalidDataError(
            f"The output gets a column {reserved[0]}, which the data have, too: rename or remove it"
        )
    if missing := [name for name in feature_schemas(record_type) if name not in names]:
        raise InvalidDataError(f"There is no column {', '.join(missing)}")
    for name in feature_schemas(record_type):
        if not is_feature_type(data_type := schema.field(name).type):
            raise InvalidDataError(
                f"The column {name} has the type {data_type}: a feature is a number, a boolean or "
                "a string"
            )


def is_feature_type(data_type: pa.DataType) -> bool:
    """Return whether a value of an Arrow type can be that of a feature."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    tests = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
    )
    return any(test(data_type) for test in tests)
