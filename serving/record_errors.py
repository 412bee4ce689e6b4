"""Turn what is wrong with the records of a request into messages for the client."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_ERRORS = 1000  # listed in one response
MAX_QUOTED = 40  # characters of a value or an unknown name

# The location of an error, as in pydantic: (), ("age",), (3,) or (3, "age").
Loc = tuple[str | int, ...]
FieldError = tuple[Loc, str]  # location and message

# The label `kind` of the metric of rejected requests. pydantic has about a hundred types of errors.
# "too_many" stands for too many records, values or errors.
ERROR_KINDS = ("json", "type", "value", "missing", "unknown", "repeated", "empty", "too_many")
ERROR_KIND_BY_TYPE = {  # by pydantic's type; `error_kinds` has the rule for other types
    "json_invalid": "json",
    "missing": "missing",
    "extra_forbidden": "unknown",
    "too_short": "empty",
    "too_long": "too_many",
}

# By pydantic's type: messages for a body that is not a record, or not an array of valid length.
BODY_MESSAGES = {
    "model_type": "Send one record, as a JSON object",
    "list_type": "Send records, as a JSON array",
    "too_short": "Send at least {min_length} record",
    "too_long": "Send at most {max_length} records, not {actual_length}",
}


def field_errors(
    error: ValidationError, nullable: Collection[str], null: str = "null"
) -> Iterator[FieldError]:
    """Yield the location and the message of each error that pydantic found.

    `nullable` has the names of the nullable features; `null` is the word for a missing value.
    """
    for details in error.errors(include_url=False):
        loc = details["loc"]
        if details["type"] == "extra_forbidden":  # a name that the client has chosen
            loc = (*loc[:-1], truncate(str(loc[-1])))
        yield loc, field_message(details, loc, nullable, null)


def field_message(details: ErrorDetails, loc: Loc, nullable: Collection[str], null: str) -> str:
    """Return the message for one of pydantic's errors."""
    error_type, message = details["type"], details["msg"]
    if not loc and error_type in BODY_MESSAGES:
        return BODY_MESSAGES[error_type].format_map(details.get("ctx", {}))
    name = describe_loc(loc)
    if error_type == "missing":
        return f"No {name} provided"
    if error_type == "extra_forbidden":
        return f"There is no feature {name}"
    # pydantic's texts about a value begin with "Input" or "String"; a validator's text that begins
    # so is treated like them. Any other text stays as it is: that of invalid JSON, or of a
    # validator of the record type.
    if not message.startswith(("Input", "String")):
        return message
    # "Input should be a valid number" becomes "age should be a valid number, got true".
    rule = message.partition(" ")[2]
    # pydantic does not name null for `float | None`; for Literal["a", None] it ends with "or None".
    if name in nullable and lists_valid_values(error_type):
        rule = f"{rule.removesuffix(' or None')} or {null}"
    value = truncate(json.dumps(details["input"], default=str, ensure_ascii=False))
    return f"{name} {rule}, got {value}"


def describe_loc(loc: Loc) -> str:
    """Return the name of what is wrong: the body, a record of an array, or a feature."""
    if not loc:
        return "The body"
    return f"Record {loc[-1]}" if isinstance(loc[-1], int) else loc[-1]


def lists_valid_values(error_type: str) -> bool:
    """Return whether the message of a pydantic error names the valid types or values."""
    return error_type.endswith("_type") or error_type in ("literal_error", "enum")


def repeated_features(body: bytes) -> Iterator[FieldError]:
    """Yield an error for each feature that a record of a valid body has more than once."""
    value = json.loads(body, object_pairs_hook=lambda pairs: Counter(name for name, _ in pairs))
    records = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, names in records:
        for name, times in names.items():
            if times > 1:
                loc = (name,) if number is None else (number, name)
                yield loc, f"{name} is given {times} times"


def error_message(count: int, errors: Iterable[FieldError]) -> str | dict[str, str]:
    """Return the message of a response: a text for the whole body, or a text for each field."""
    if count > MAX_ERRORS:
        return f"The body has {count} errors, too many to list; check its format"
    messages = {}
    # Different unknown names may be equal once they are truncated.
    for (loc, message), times in Counter(errors).items():
        if not loc:
            return message
        messages[".".join(map(str, loc))] = message if times == 1 else f"{message} ({times} times)"
    return messages


def error_kinds(error: ValidationError) -> set[str]:
    """Return the ERROR_KINDS of the errors that pydantic found."""
    if error.error_count() > MAX_ERRORS:
        return {"too_many"}
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    types = {details["type"] for details in errors}
    return {
        ERROR_KIND_BY_TYPE.get(name, "type" if name.endswith("_type") else "value")
        for name in types
    }


def truncate(text: str) -> str:
    """Shorten a text to MAX_QUOTED characters."""
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."
