"""The features that a record type declares: their names, kinds and JSON schemas."""

from typing import Any, Literal

from bentoml.exceptions import BentoMLException
from pydantic import BaseModel

from serving.observability import LOG_COLUMNS

Schema = dict[str, Any]
Kind = Literal["number", "integer", "boolean", "category", "text"]
FEATURE_KIND_BY_TYPE: dict[str, Kind] = {  # types of JSON schemas
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
}

# The service relies on this configuration of a record type: no conversion, no unknown features,
# finite numbers, and categories as strings instead of members of an Enum.
REQUIRED_CONFIG = {
    "strict": True,
    "extra": "forbid",
    "allow_inf_nan": False,
    "use_enum_values": True,
}
# With these options a request could name a feature by its alias or by its name in Python.
EXCLUDED_CONFIG = {"populate_by_name", "validate_by_name"}
MAX_INTEGER = 2**53  # beyond it, a float64 does not represent every integer


def feature_schemas(record_type: type[BaseModel]) -> dict[str, Schema]:
    """Return the JSON schema of each feature, by its name in JSON: its alias, if it has one.

    The schemas are simplified: `float | None` becomes `{"type": "number", "nullable": True}`, and a
    reference to an Enum becomes its values.
    """
    schema = record_type.model_json_schema()
    definitions = schema.get("$defs", {})
    return {name: simplify(feature, definitions) for name, feature in schema["properties"].items()}


def simplify(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a schema without references, and with `nullable` instead of the type null."""
    schema = inline_reference(schema, definitions)
    types = schema.get("anyOf", [])
    others = [each for each in types if each.get("type") != "null"]
    is_optional = len(types) == 2 and len(others) == 1  # float | None
    if is_optional:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        schema = simplify(others[0], definitions) | rest | {"nullable": True}
    if None in schema.get("enum", []):  # Literal["a", None]
        values = [value for value in schema["enum"] if value is not None]
        schema = schema | {"enum": values, "nullable": True}
    return schema


def inline_reference(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a schema with the definition to which it refers, if any, in place of the reference."""
    while "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = definitions[schema["$ref"].rpartition("/")[2]] | rest
    return schema


def is_nullable(schema: Schema) -> bool:
    """Return whether the value of a feature may be missing: null in JSON."""
    return schema.get("nullable", False)


def kind_of(schema: Schema) -> Kind | None:
    """Return the kind of a feature, or None if its type is not supported."""
    if "enum" in schema or "const" in schema:
        types = {type(value) for value in declared_values(schema)}
        return "category" if types == {str} else "number" if types <= {int, float} else None
    if "format" in schema:  # such as a date, which is a string in JSON
        return None
    return FEATURE_KIND_BY_TYPE.get(str(schema.get("type")))


def dtype_of(schema: Schema) -> str:
    """Return the type of a feature's column in a DataFrame.

    It is float64 for a nullable integer or boolean, since a missing value is NaN.
    """
    kind = kind_of(schema)
    if kind in ("category", "text"):
        return "object"
    if is_nullable(schema) or kind == "number":
        return "float64"
    return "int64" if kind == "integer" else "bool"


def declared_values(schema: Schema) -> list[Any]:
    """Return all values of a feature with an enumeration or of a boolean; [] for other features."""
    if schema.get("type") == "boolean":
        return [False, True]
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum", []))


def check_record_type(record_type: type[BaseModel], target: str | None = None) -> None:
    """Raise BentoMLException unless the service supports a record type and its features.

    `target` is the field of a labelled record type that training predicts; the service never gets
    it, so its type is not checked.
    """
    check_config(record_type)
    check_fields(record_type)
    for name, schema in feature_schemas(record_type).items():
        if name != target and (problem := find_problem(name, schema)):
            raise BentoMLException(f"{record_type.__name__}.{name} {problem}")


def check_config(record_type: type[BaseModel]) -> None:
    """Raise BentoMLException unless a record type has the configuration that it needs."""
    config = record_type.model_config
    if not REQUIRED_CONFIG.items() <= config.items():
        needed = ", ".join(f"{name}={value!r}" for name, value in REQUIRED_CONFIG.items())
        raise BentoMLException(f"{record_type.__name__} needs model_config = ConfigDict({needed})")
    if excluded := [name for name in EXCLUDED_CONFIG if config.get(name)]:
        raise BentoMLException(f"{record_type.__name__}: remove {excluded[0]} from model_config")


def check_fields(record_type: type[BaseModel]) -> None:
    """Raise BentoMLException unless each field is required and has one unique name in JSON."""
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
    if len(feature_schemas(record_type)) < len(record_type.model_fields):
        raise BentoMLException(f"{record_type.__name__}: two features have the same alias")


def find_problem(name: str, schema: Schema) -> str | None:
    """Return a phrase that says why a feature is not supported, or None if it is supported."""
    kind = kind_of(schema)
    if name in LOG_COLUMNS:
        return "is named as a column of the prediction log: choose another name"
    if kind is None:
        return "has to be a float, int, bool or str, or a Literal or Enum of strings or numbers"
    if kind == "integer" and not fits_float64(schema):
        return (
            "needs ge and le, from -2**53 to 2**53: a float64 can't represent every integer beyond"
        )
    if kind == "text" and "maxLength" not in schema:
        return "needs max_length"
    return None


def fits_float64(schema: Schema) -> bool:
    """Return whether the bounds of an integer exclude those that a float64 can't represent."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return low is not None and high is not None and -MAX_INTEGER <= low <= high <= MAX_INTEGER
