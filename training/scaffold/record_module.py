"""Render the field declarations of record.py, formatted as ruff does."""

import builtins
import json
import keyword
import re
import unicodedata
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from pydantic import BaseModel

from serving.features import MAX_INTEGER
from training.scaffold.columns import Column, InferredTable

WIDTH = 100  # as in pyproject.toml
INDENT = "    "
# The Python type of each kind of feature; a category has a type of its own.
TYPES = {"number": "float", "integer": "int", "boolean": "bool", "text": "str"}
# Names that the class body of the record type uses. Fields get other names, also if a name is a
# keyword, a builtin or an attribute of BaseModel.
RESERVED = {"feature", "Any", "Literal", "Field", "model_config"}


def quoted(text: str) -> str:
    """Return a text as a Python literal, in double quotes unless that takes more backslashes."""
    is_double = text.count('"') <= text.count("'")
    return json.dumps(text, ensure_ascii=False) if is_double else repr(text)


def docstring(text: str) -> str:
    """Return a text for a docstring: one short line without backslashes and double quotes."""
    return shorten(text, 60, placeholder="...").replace("\\", "/").replace('"', "'")


def literal(value: Any) -> str:
    """Return a value as a Python literal."""
    return quoted(value) if isinstance(value, str) else repr(value).replace("e+", "e")


def bound_literal(value: float) -> str:
    """Return a bound as a Python literal that is easy to read."""
    if abs(value) == MAX_INTEGER:
        return "2**53" if value > 0 else "-(2**53)"
    return f"{value:_}"


def field_name(name: str, used: set[str]) -> str:
    """Return a field name for a column, if possible the same, and add it to `used`."""
    text = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_")
    if not text or not text.isidentifier():
        text = f"column_{text}".rstrip("_")
    reserved = keyword.iskeyword(text) or text in RESERVED or hasattr(builtins, text)
    if reserved or hasattr(BaseModel, text):
        text = f"{text}_"
    while text in used:
        text = f"{text}_"
    used.add(text)
    return text


def title_and_unit(name: str) -> tuple[str, str]:
    """Return the name of a column as a title, and its unit.

    `body_mass (g)` gives `Body mass` and `g`; without brackets at the end, the unit is empty.
    """
    match = re.fullmatch(r"(.*?)\s*[(\[]([^()\[\]]+)[)\]]", name)
    words, unit = match.groups() if match else (name, "")
    title = re.sub(r"[\W_]+", " ", words).strip() or name
    return title[:1].upper() + title[1:], unit


def bracketed(start: str, arguments: Sequence[str], end: str, indent: str = "") -> str:
    """Return arguments between `start` and `end`, on one line if they fit, or one per line."""
    line = f"{indent}{start}{', '.join(arguments)}{end}"
    if len(line) <= WIDTH:
        return line
    lines = "".join(f"\n{indent}{INDENT}{argument}," for argument in arguments)
    return f"{indent}{start}{lines}\n{indent}{end}"


class RecordModule:
    """The parts of record.py that depend on the data."""

    def __init__(self, table: InferredTable, example: dict[str, float | bool | str]) -> None:
        """Render the declarations; `example` has a value for each feature."""
        self.used: set[str] = set()  # names of fields and of category types
        self.category_types: list[str] = []  # source lines, such as `FuelCategory = Literal[...]`
        self.fields = [self.declare(column, example[column.name]) for column in table.features]
        self.target = self.declare_target(table.target)

    def declare(self, column: Column, example: float | bool | str) -> str:
        """Return the declaration of a feature."""
        name = field_name(column.name, self.used)
        options = {"ge": column.minimum, "le": column.maximum, "max_length": column.max_length}
        description, unit = title_and_unit(column.name)
        arguments = [quoted(description), quoted(unit), literal(example)]
        if name != column.name:
            arguments.append(f"alias={quoted(column.name)}")
        arguments += [
            f"{key}={bound_literal(bound)}" for key, bound in options.items() if bound is not None
        ]
        annotation = TYPES.get(column.kind) or self.declare_category(name, column.values)
        if column.n_missing:
            annotation += " | None"
        return bracketed(f"{name}: {annotation} = feature(", arguments, ")", INDENT)

    def declare_category(self, name: str, values: Sequence[str]) -> str:
        """Add the type of a category to `category_types`; return its name."""
        words = re.split(r"_+", name)
        type_name = "".join(word[:1].upper() + word[1:] for word in words) + "Category"
        while type_name in self.used:
            type_name += "_"
        self.used.add(type_name)
        source = bracketed(f"{type_name} = Literal[", [*map(quoted, values)], "]")
        self.category_types.append(source)
        return type_name

    def declare_target(self, target: str) -> str:
        """Return the declaration of the target."""
        name = field_name(target, self.used)
        description, unit = title_and_unit(target)
        unit = quoted(unit or f"units of {target}")
        arguments = [f"description={quoted(description)}"]
        arguments += [f'json_schema_extra={{"unit": {unit}}}']
        if name != target:
            arguments.append(f"alias={quoted(target)}")
        return bracketed(f"{name}: float = Field(", arguments, ")", INDENT)
