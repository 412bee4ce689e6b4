"""The features that a record type declares: their names, kinds and JSON schemas."""

from typing import Any, Literal

from bentoml.exceptions import BentoMLException
from pydantic import BaseModel

from serving.observability import LOG_COLUMNS

Schema = dict[str, Any]
Kind = Literal["number", "integer", "boolean", "category", "text"]
KINDS: dict[str, Kind] = {  # by the type in a JSON schema
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
}

# The service relies on this: no conversion, no unknown features, finite numbers, and categories as
# strings instead of members of an Enum.
REQUIRED_CONFIG = {
    "strict": True,
    "extra": "forbid",
    "allow_inf_nan": False,
    "use_enum_values": True,
}
# With these, a feature would have two names.
EXCLUDED_CONFIG = {"populate_by_name", "validate_by_name"}
MAX_INTEGER = 2**53  # a float holds every integer up to this one


def feature_schemas(record_type: type[BaseModel]) -> dict[str, Schema]:
    """Return the JSON schema of each feature, by its name in JSON: its alias, if it has one.

    A reference to an Enum is replaced by its schema. A feature that may be null has the schema of
    its other values, and `nullable`.
    """
    schema = record_type.model_json_schema()
    definitions = schema.get("$defs", {})
    return {name: simplify(feature, definitions) for name, feature in schema["properties"].items()}


def simplify(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a schema without references, and with `nullable` in place of the type null."""
    while "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = definitions[schema["$ref"].rpartition("/")[2]] | rest
    types = schema.get("anyOf", [])
    others = [each for each in types if each.get("type") != "null"]
    if len(others) == 1 < len(types):
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        schema = simplify(others[0], definitions) | rest | {"nullable": True}
    if None in schema.get("enum", []):
        values = [value for value in schema["enum"] if value is not None]
        schema = schema | {"enum": values, "nullable": True}
    return schema


def is_nullable(schema: Schema) -> bool:
    """Tell whether a record may have null for a feature: a gap."""
    return schema.get("nullable", False)


def kind_of(schema: Schema) -> Kind | None:
    """Return the kind of a feature, or None for a type that is not supported."""
    if "enum" in schema or "const" in schema:
        types = {type(value) for value in declared_values(schema)}
        return "category" if types == {str} else "number" if types <= {int, float} else None
    if "format" in schema:  # a date, or the like, which JSON writes as a string
        return None
    return KINDS.get(str(schema.get("type")))


def dtype_of(schema: Schema) -> str:
    """Return the type of a feature's column; a gap turns integers and booleans into floats."""
    kind = kind_of(schema)
    if kind in ("category", "text"):
        return "object"
    if is_nullable(schema) or kind == "number":
        return "float64"
    return "int64" if kind == "integer" else "bool"


def declared_values(schema: Schema) -> list[Any]:
    """Return the values of a feature that has only a few, otherwise nothing."""
    if schema.get("type") == "boolean":
        return [False, True]
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def check_record_type(record_type: type[BaseModel], target: str = "") -> None:
    """Raise BentoMLException unless every valid record can be predicted; `target` is no feature."""
    config = record_type.model_config
    if not REQUIRED_CONFIG.items() <= config.items():
        needed = ", ".join(f"{name}={value!r}" for name, value in REQUIRED_CONFIG.items())
        raise BentoMLException(f"{record_type.__name__} needs model_config = ConfigDict({needed})")
    if excluded := [name for name in EXCLUDED_CONFIG if config.get(name)]:
        raise BentoMLException(f"{record_type.__name__}: remove {excluded[0]} from model_config")
    for name, field in record_type.model_fields.items():
        if field.validation_alias not in (None, field.alias):
            raise BentoMLException(
                f"{record_type.__name__}.{name} has several names: give it one, with Field(alias=)"
            )
        if not field.is_required():
            raise BentoMLException(
                f"{record_type.__name__}.{name} has a default: remove it, since a record has every "
                "feature, and declare the feature with `| None` if it may have no value"
            )
    schemas = feature_schemas(record_type)
    if len(schemas) < len(record_type.model_fields):
        raise BentoMLException(f"{record_type.__name__}: two features have the same alias")
    for name, schema in schemas.items():
        if name != target and (reason := unsupported_reason(name, schema)):
            raise BentoMLException(f"{record_type.__name__}.{name} {reason}")


def unsupported_reason(name: str, schema: Schema) -> str | None:
    """Return why a feature of this name and JSON schema is not supported, or None."""
    kind = kind_of(schema)
    if name in LOG_COLUMNS:
        return "is named as a column of the prediction log: choose another name"
    if kind is None:
        return "has to be a float, int, bool or str, or some strings in a Literal or an Enum"
    if kind == "integer" and not is_bounded(schema):
        return f"needs ge and le, between -{MAX_INTEGER} and {MAX_INTEGER}: no float holds more"
    if kind == "text" and "maxLength" not in schema:
        return "needs max_length"
    return None


def is_bounded(schema: Schema) -> bool:
    """Tell whether a float holds each integer of a schema."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return low is not None and high is not None and -MAX_INTEGER <= low <= high <= MAX_INTEGER
