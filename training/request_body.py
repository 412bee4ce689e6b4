"""Validate records as the service does."""

from pydantic import BaseModel

from serving.records import RequestBody


def make_body_type(
    validated_type: type[BaseModel], array_length: int | None = None
) -> type[RequestBody]:
    """Return the type of a request body: one record, or an array of 1 to `array_length` records."""

    class Body(RequestBody):
        record_type = validated_type
        max_records = array_length

    return Body
