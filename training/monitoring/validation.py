"""Validate many records as the service does: those of a log, or of training data."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from serving.record_errors import FieldError, field_errors
from serving.records import Row, to_row
from training.request_body import make_body_type

CHUNK_RECORDS = 1000  # few, since one invalid record makes all of its chunk slow


class Validator:
    """Validates records of one type."""

    def __init__(self, validated_type: type[BaseModel]) -> None:
        self.body_type = make_body_type(validated_type, CHUNK_RECORDS)

    def validate(self, records: Sequence[dict[str, Any]]) -> list[Row | list[FieldError]]:
        """Return the row of each record or, if it is invalid, its errors."""
        results: list[Row | list[FieldError]] = []
        for start in range(0, len(records), CHUNK_RECORDS):
            chunk = records[start : start + CHUNK_RECORDS]
            try:
                results += map(to_row, self.body_type.validate(to_json(chunk)))
            except ValidationError:  # it has no rows: validate each record alone
                results += map(self.validate_one, chunk)
        return results

    def validate_one(self, record: dict[str, Any]) -> Row | list[FieldError]:
        """Return the row of a record or, if it is invalid, its errors."""
        try:
            return to_row(self.body_type.validate(to_json([record]))[0])
        except ValidationError as error:
            errors = field_errors(error, self.body_type.nullable)
            return [(loc[1:], message) for loc, message in errors]
