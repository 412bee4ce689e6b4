"""Validate many records as the service does: those of a log, or of training data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from serving.record_errors import field_errors
from serving.records import Row, to_row
from training.request_body import make_body_type

CHUNK_RECORDS = 1000  # few, since one invalid record makes all of its chunk slow


class Validated(NamedTuple):
    """The row of a valid record; for an invalid one None, and the error messages."""

    row: Row | None
    messages: Sequence[str] = ()


class Validator:
    """Validates records of one type."""

    def __init__(self, validated_type: type[BaseModel]) -> None:
        self.body_type = make_body_type(validated_type, CHUNK_RECORDS)

    def validate(self, records: Sequence[dict[str, Any]]) -> list[Validated]:
        """Return the result for each record."""
        results: list[Validated] = []
        for start in range(0, len(records), CHUNK_RECORDS):
            chunk = records[start : start + CHUNK_RECORDS]
            try:
                validated = self.body_type.validate(to_json(chunk))
                results += [Validated(to_row(each)) for each in validated]
            except ValidationError:  # the exception has no valid rows: validate each record alone
                results += map(self.validate_one, chunk)
        return results

    def validate_one(self, record: dict[str, Any]) -> Validated:
        """Return the result for one record."""
        try:
            return Validated(to_row(self.body_type.validate(to_json([record]))[0]))
        except ValidationError as error:
            errors = field_errors(error, self.body_type.nullable)
            return Validated(None, [message for _, message in errors])
