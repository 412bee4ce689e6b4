"""Render Jinja templates: of the report, the model card and the files of a new bundle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def make_environment(folder: Path, filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Return an environment for the templates in a folder.

    HTML templates, `*.html.jinja`, escape their values; others write Python, YAML and Markdown. An
    undefined variable is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment
